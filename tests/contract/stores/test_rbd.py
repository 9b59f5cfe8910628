"""What the rbd store promises beyond every store: Glance's layout, clones, and whose data stay."""

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from headrace import errors
from headrace.model import MIB
from headrace.stores.base import Store
from headrace.stores.ceph import Cluster, modules
from headrace.stores.rbd import RbdStore
from tests.contract.stores import rbds
from tests.contract.stores.storing import IMAGE_ID, get, published, put
from tests.faults.service import wait_until
from tools.ceph import USER, Ceph

pytestmark = pytest.mark.ceph

CONTENT = os.urandom(MIB) * 20 + b"tail"
IMAGE = f"{IMAGE_ID}@snap"


@pytest.fixture
def variant() -> str:
    return "rbd"


@pytest.fixture
def pool(store: Store, datadir: Path) -> str:
    """The store's pool."""
    return rbds.pool(datadir)


def shown(ceph: Ceph, *words: str) -> Any:
    return json.loads(ceph.rbd(*words, "--format", "json"))


def used(ceph: Ceph, pool: str) -> int:
    """How many bytes of the image were written."""
    return sum(int(each["length"]) for each in shown(ceph, "diff", f"{pool}/{IMAGE_ID}"))


def test_images_lie_as_glances_do(store: Store, ceph: Ceph, pool: str) -> None:
    url = put(store, CONTENT)
    assert url == f"rbd://{ceph.fsid}/{pool}/{IMAGE_ID}/snap"
    image = shown(ceph, "info", f"{pool}/{IMAGE_ID}")
    assert (image["size"], image["order"], image["format"]) == (len(CONTENT), 23, 2)
    assert "layering" in image["features"]
    (snapshot,) = shown(ceph, "snap", "ls", f"{pool}/{IMAGE_ID}")
    assert (snapshot["name"], snapshot["protected"]) == ("snap", "true")
    assert store.properties == {
        "pool": pool,
        "chunk_size": 8 * MIB,
        "thin_provisioning": False,
        "fsid": ceph.fsid,
    }


@pytest.mark.parametrize(("chunk_size", "order"), [(1, 20), (6, 22)])
def test_objects_are_as_large_as_is_wished(
    store: Store, datadir: Path, ceph: Ceph, pool: str, chunk_size: int, order: int
) -> None:
    assert get(store, put(rbds.store(datadir, chunk_size=chunk_size), CONTENT)) == CONTENT
    assert shown(ceph, "info", f"{pool}/{IMAGE_ID}")["order"] == order


def test_zeros_are_written_unless_it_is_thin(
    store: Store, datadir: Path, ceph: Ceph, pool: str
) -> None:
    sparse = b"head" + bytes(9 * MIB - 4) + CONTENT[:MIB] + bytes(7 * MIB + 1000)
    url = put(store, sparse)
    assert used(ceph, pool) == len(sparse)
    store.delete(url)
    assert get(store, put(rbds.store(datadir, thin=True), sparse)) == sparse
    assert used(ceph, pool) <= 3 * MIB


def test_what_clones_need_stays(store: RbdStore, ceph: Ceph, pool: str) -> None:
    url = put(store, CONTENT)
    assert not store.in_use(url)
    ceph.rbd("clone", f"{pool}/{IMAGE}", f"{pool}/clone")
    assert store.in_use(url)
    with pytest.raises(errors.DataInUse):
        store.delete(url)
    assert get(store, url) == CONTENT
    ceph.rbd("rm", f"{pool}/clone", "--no-progress")
    assert not store.in_use(url)
    store.delete(url)
    assert ceph.rbd("ls", pool) == ""


def test_what_clones_need_that_we_may_not_see_stays(
    store: RbdStore, datadir: Path, ceph: Ceph, pool: str
) -> None:
    elsewhere = ceph.new_pool()
    caps = [word for each in ("mon", "mgr", "osd") for word in (each, f"profile rbd pool={pool}")]
    caps[1] = "profile rbd"
    keyring = ceph.directory / "client.narrow.keyring"
    ceph.ceph("auth", "get-or-create", "client.narrow", *caps, "-o", str(keyring))
    cluster = Cluster(str(ceph.conf), "narrow", 30.0)
    narrow = RbdStore("rbd", cluster, pool, str(datadir.parent))
    url = put(narrow, CONTENT)
    ceph.rbd("clone", f"{pool}/{IMAGE}", f"{elsewhere}/clone")
    assert narrow.in_use(url)
    with pytest.raises(errors.DataInUse):
        narrow.delete(url)
    ceph.rbd("rm", f"{elsewhere}/clone", "--no-progress")
    assert not narrow.in_use(url)
    ceph.rbd("clone", f"{pool}/{IMAGE}", f"{elsewhere}/clone")  # asking has changed nothing
    ceph.rbd("rm", f"{elsewhere}/clone", "--no-progress")
    narrow.delete(url)
    assert ceph.rbd("ls", pool) == ""
    cluster.connection().shutdown()


def test_clones_that_keep_what_they_need_let_the_image_go(
    store: RbdStore, ceph: Ceph, pool: str, tmp_path: Path
) -> None:
    url = put(store, CONTENT)
    second = ("--rbd-default-clone-format", "2")
    ceph.rbd("clone", f"{pool}/{IMAGE}", f"{pool}/clone", *second)
    assert not store.in_use(url)
    store.delete(url)
    with pytest.raises(errors.NotFound):
        store.open(url)
    assert list(store.held()) == []
    assert store.sweep() == 0
    ceph.rbd("export", f"{pool}/clone", str(tmp_path / "clone"), "--no-progress")
    assert (tmp_path / "clone").read_bytes() == CONTENT
    ceph.rbd("rm", f"{pool}/clone", "--no-progress")
    wait_until(lambda: store.sweep() == 1)
    assert ceph.rbd("ls", pool) == ""


def test_what_is_read_cannot_be_removed_by_others(store: Store, ceph: Ceph, pool: str) -> None:
    """An RBD image whose objects are gone reads as zeros."""
    with contextlib.closing(store.open(put(store, CONTENT))) as data:
        assert data.read(1000) == CONTENT[:1000]
        ceph.rbd("snap", "unprotect", f"{pool}/{IMAGE}")
        ceph.rbd("snap", "rm", f"{pool}/{IMAGE}", "--no-progress")
        with pytest.raises(RuntimeError, match="watchers"):
            ceph.rbd("rm", f"{pool}/{IMAGE_ID}", "--no-progress")
        at = 1000
        with contextlib.suppress(errors.TransferError):
            while block := data.read(MIB):
                assert block == CONTENT[at : at + MIB]
                at += len(block)
    ceph.rbd("rm", f"{pool}/{IMAGE_ID}", "--no-progress")


def test_other_snapshots_keep_the_data_and_not_the_name(
    store: Store, ceph: Ceph, pool: str
) -> None:
    url = put(store, CONTENT)
    ceph.rbd("snap", "create", f"{pool}/{IMAGE_ID}@backup", "--no-progress")
    store.delete(url)
    with pytest.raises(errors.NotFound):
        store.open(url)
    (name,) = ceph.rbd("ls", pool).split()
    ceph.rbd("snap", "rm", f"{pool}/{name}@backup", "--no-progress")
    wait_until(lambda: store.sweep() == 1)


@pytest.fixture
def full(store: RbdStore, ceph: Ceph, pool: str) -> str:
    """The location of an image by which its pool is full."""
    store.delete(put(store, b"data"))  # for the first removal Ceph needs room
    url = put(store, CONTENT)
    ceph.set_quota(pool, MIB)
    wait_until(lambda: ceph.is_full(pool), "the quota")
    return url


def test_an_image_leaves_a_pool_that_is_full(
    store: RbdStore, ceph: Ceph, pool: str, full: str
) -> None:
    """There is no room even for another name."""
    store.delete(full)
    assert ceph.rbd("ls", pool) == ""


def test_what_is_read_stays_whole_in_a_pool_that_is_full(
    store: RbdStore, ceph: Ceph, pool: str, full: str
) -> None:
    with contextlib.closing(store.open(full)) as data:
        with pytest.raises(errors.ServiceUnavailable, match="the pool is full"):
            store.delete(full)
        assert b"".join(iter(lambda: data.read(MIB), b"")) == CONTENT
    (snapshot,) = shown(ceph, "snap", "ls", f"{pool}/{IMAGE_ID}")
    assert snapshot["protected"] == "true"  # or nothing could be made of it any more
    store.delete(full)
    assert ceph.rbd("ls", pool) == ""


def test_what_was_begun_just_now_is_no_leftover(
    store: Store, datadir: Path, ceph: Ceph, pool: str
) -> None:
    """Between its making and its opening nobody watches an image."""
    ceph.rbd("create", f"{pool}/headrace-{IMAGE_ID}", "--size", "8M")
    assert rbds.store(datadir, settling=60.0).sweep() == 0
    assert store.sweep() == 1


def test_what_others_put_into_the_pool_is_left_alone(store: Store, ceph: Ceph, pool: str) -> None:
    for name in ("volume-1", f"headrace-{IMAGE_ID}-2", IMAGE_ID):
        ceph.rbd("create", f"{pool}/{name}", "--size", "8M")
    assert store.sweep() == 0
    assert list(store.held()) == [IMAGE_ID]
    with pytest.raises(errors.NotFound):
        store.open(store.url(IMAGE_ID))  # without a snapshot it is not finished
    assert len(ceph.rbd("ls", pool).split()) == 3


def test_locations_of_other_pools_and_clusters(store: Store, pool: str, ceph: Ceph) -> None:
    url = put(store, CONTENT)
    for other in (url.replace(pool, f"{pool}2"), url.replace(ceph.fsid, IMAGE_ID)):
        assert not store.holds(other)
        with pytest.raises(errors.StoreNotFound):
            store.open(other)
        with pytest.raises(errors.StoreNotFound):
            store.delete(other)
    assert get(store, f"rbd://{IMAGE_ID}") == CONTENT  # as they once were
    for other in (f"{url}%00", url.replace("/snap", "%00/snap"), url.replace("/snap", "/")):
        with pytest.raises(errors.NotFound):
            store.open(other)


def test_nobody_names_locations(store: Store) -> None:
    with pytest.raises(errors.InvalidLocation):
        store.check(store.url(IMAGE_ID))


def test_a_file_is_taken_from_where_it_is(store: Store, tmp_path: Path) -> None:
    (tmp_path / "staged").write_bytes(CONTENT)
    fd = os.open(tmp_path / "staged", os.O_RDONLY)
    try:
        writer = store.adopt(IMAGE_ID, fd)
    finally:
        os.close(fd)
    assert writer is not None
    assert get(store, published(writer)) == CONTENT


def test_no_more_are_read_at_a_time_than_may_be(store: Store, datadir: Path) -> None:
    few = rbds.store(datadir, most=1)
    url = put(few, CONTENT)
    with contextlib.closing(few.open(url)), pytest.raises(errors.OriginsBusy):
        few.open(url)
    assert get(few, url) == CONTENT


def test_a_pool_that_is_not_there(store: Store, ceph: Ceph, tmp_path: Path) -> None:
    other = RbdStore("rbd", rbds.cluster(), "no-such-pool", str(tmp_path))
    with pytest.raises(errors.ServiceUnavailable):
        other.create(IMAGE_ID, None)
    with pytest.raises(errors.NotFound):
        other.open(other.url(IMAGE_ID))
    with pytest.raises(errors.ServiceUnavailable, match="no pool"):
        other.sweep()


def test_a_cluster_that_is_not_there(tmp_path: Path, ceph: Ceph) -> None:
    conf = tmp_path / "ceph.conf"
    conf.write_text(f"[global]\nmon host = v2:127.0.0.1:9\nkeyring = {tmp_path}/none\n")
    store = RbdStore("rbd", Cluster(str(conf), USER, 1.0), "images", str(tmp_path))
    for act in (store.url, lambda image_id: store.create(image_id, None), lambda _: store.sweep()):
        with pytest.raises(errors.ServiceUnavailable):
            act(IMAGE_ID)
    assert not store.holds(f"rbd://{ceph.fsid}/images/{IMAGE_ID}/snap")
    assert "fsid" not in store.properties


def test_who_may_not_connect_is_told_once(
    ceph: Ceph, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = RbdStore("rbd", Cluster(str(ceph.conf), "nobody", 30.0), "images", str(tmp_path))
    with pytest.raises(errors.ServiceUnavailable, match=r"permission denied.*connecting"):
        store.create(IMAGE_ID, None)
    assert caplog.messages == []  # what could not be done says it


def test_a_forked_process_connects_by_itself(store: Store) -> None:
    url = put(store, CONTENT)
    child = os.fork()
    if not child:
        os._exit(0 if get(store, url) == CONTENT else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert get(store, url) == CONTENT


def test_a_lock_that_we_have_left_is_no_hindrance(store: Store, datadir: Path, pool: str) -> None:
    """As when an OSD hangs while an upload is given up: the watch is gone, the lock stays."""
    _, rbd = modules()
    name = f"headrace-{uuid.uuid4()}"
    with rbds.cluster().pool(pool) as ioctx:
        rbd.RBD().create(ioctx, name, MIB)
        with rbd.Image(ioctx, name) as image:
            header = f"rbd_header.{image.id()}"
        ioctx.lock_exclusive(header, "rbd_lock", "auto 1")
    assert store.sweep() == 1
    assert rbds.names(datadir) == []
