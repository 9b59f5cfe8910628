"""Snapshots of instances: cloned within Ceph as Nova does, and named as their image's location."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from headrace import errors
from headrace.model import Status, Viewer
from headrace.service.context import Context
from headrace.service.images import ChangeOp
from headrace.service.locations import Hashes, LocationChange, Named
from headrace.stores.registry import Registry
from tests.ceph.rbd_settings import with_ceph
from tests.conftest import Serve
from tests.contract.stores import rbds
from tests.faults.service import BLOCK, wait_until
from tests.faults.service import Service as Running
from tests.service.conftest import ADMIN, Service, serving
from tests.service.test_races import Paused
from tools.ceph import Ceph

pytestmark = pytest.mark.ceph

DATA = os.urandom(BLOCK) * 5
USER = Context(Viewer(project_id="me"), frozenset({"member"}))
NOVA = replace(USER, roles=frozenset({"member", "service"}))


@pytest.fixture
def service(ceph: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """One whose only store is in Ceph."""
    monkeypatch.setenv(rbds.ADDRESS, str(ceph.conf))
    store = rbds.store(tmp_path / "images")
    (tmp_path / "images").mkdir(exist_ok=True)
    yield from serving(tmp_path, Registry([store], store.id))


@pytest.fixture
def pool(service: Service) -> str:
    return rbds.pool(service.datadir)


def clone(ceph: Ceph, pool: str, image_id: str, disk: Path) -> None:
    """Make an instance's ``disk`` in the pool, and from it what Nova makes of it for an image."""
    disk.write_bytes(DATA)
    ceph.rbd("import", str(disk), f"{pool}/instance", "--no-progress")
    ceph.rbd("snap", "create", f"{pool}/instance@1", "--no-progress")
    ceph.rbd("snap", "protect", f"{pool}/instance@1")
    ceph.rbd("clone", f"{pool}/instance@1", f"{pool}/{image_id}")
    ceph.rbd("flatten", f"{pool}/{image_id}", "--no-progress")
    ceph.rbd("snap", "unprotect", f"{pool}/instance@1")
    ceph.rbd("snap", "purge", f"{pool}/instance", "--no-progress")
    ceph.rbd("rm", f"{pool}/instance", "--no-progress")
    ceph.rbd("snap", "create", f"{pool}/{image_id}@snap", "--no-progress")
    ceph.rbd("snap", "protect", f"{pool}/{image_id}@snap")


def patched(named: Named) -> list[LocationChange]:
    return [LocationChange(ChangeOp.ADD, (named,))]


def record(service: Service, **values: object) -> str:
    formats = {"disk_format": "raw", "container_format": "bare"}
    return service.images.create(USER, formats | values).id


def test_nova_clones_a_snapshot_and_names_it(ceph: Ceph, serve: Serve, tmp_path: Path) -> None:
    pool = ceph.new_pool()
    shown = {"OS_DEFAULT__SHOW_MULTIPLE_LOCATIONS": "true"}
    service = Running(serve(env=with_ceph(ceph, pool, tmp_path) | shown))
    image_id = service.create()
    clone(ceph, pool, image_id, tmp_path / "disk")
    url = f"rbd://{ceph.fsid}/{pool}/{image_id}/snap"
    patch = [{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}]
    answer = service.request(
        "PATCH", f"/v2/images/{image_id}",
        "Content-Type: application/openstack-images-v2.1-json-patch",
        body=json.dumps(patch).encode(),
    )  # fmt: skip
    assert answer.status == 200, answer.body
    image = service.show(image_id)
    assert (image["status"], image["size"], image["stores"]) == ("active", len(DATA), "ceph")
    assert image["locations"] == [{"url": url, "metadata": {"store": "ceph"}}]
    assert service.request("GET", f"/v2/images/{image_id}/file").body == DATA
    service.delete(image_id)
    assert ceph.rbd("ls", pool) == ""


@pytest.mark.parametrize("context", [NOVA, ADMIN], ids=["service", "administrator"])
def test_the_newer_api_takes_it_of_services(
    service: Service, ceph: Ceph, pool: str, tmp_path: Path, context: Context
) -> None:
    image_id = record(service)
    clone(ceph, pool, image_id, tmp_path / "disk")
    service.locations.add(context, image_id, Named(service.store.url(image_id), {}))
    wait_until(lambda: not service.locations.active())
    image = service.images.show(ADMIN, image_id)
    assert (image.status, image.size) == (Status.ACTIVE, len(DATA))
    assert image.os_hash_value == hashlib.new(str(image.os_hash_algo), DATA).hexdigest()


@pytest.mark.parametrize("deleted", [False, True])
def test_it_goes_when_the_process_dies_that_hashes_it_first(
    service: Service, ceph: Ceph, pool: str, tmp_path: Path, deleted: bool
) -> None:
    """It is in no record of the image, which waits for data again, or is gone."""
    image_id = record(service)
    clone(ceph, pool, image_id, tmp_path / "disk")
    taken = [service.locations._turns.acquire() for _ in range(2)]  # so that hashing waits
    hashes = Hashes("sha256", hashlib.sha256(DATA).hexdigest())
    service.locations.add(NOVA, image_id, Named(service.store.url(image_id), {}, hashes))
    if deleted:
        service.images.delete(USER, image_id)
    service.clock.ahead = timedelta(seconds=61)
    service.housekeeping.sweep()
    assert ceph.rbd("ls", pool) == ""
    if not deleted:
        assert service.images.show(USER, image_id).status is Status.QUEUED
    for _ in taken:
        service.locations._turns.release()
    wait_until(lambda: not service.locations.active())


def test_what_is_not_what_it_should_be_goes(
    service: Service, ceph: Ceph, pool: str, tmp_path: Path
) -> None:
    image_id = record(service)
    clone(ceph, pool, image_id, tmp_path / "disk")
    wrong = Hashes("sha256", "0" * 64)
    service.locations.add(NOVA, image_id, Named(service.store.url(image_id), {}, wrong))
    wait_until(lambda: not service.locations.active())
    assert service.images.show(ADMIN, image_id).status is Status.QUEUED
    assert ceph.rbd("ls", pool) == ""
    service.content.upload(ADMIN, image_id, Paused(DATA))  # the name is free again


def test_the_newer_api_does_not_take_it_of_users(
    service: Service, ceph: Ceph, pool: str, tmp_path: Path
) -> None:
    image_id = record(service)
    clone(ceph, pool, image_id, tmp_path / "disk")
    named = Named(service.store.url(image_id), {})
    with pytest.raises(errors.InvalidLocation):
        service.locations.add(USER, image_id, named)
    service.locations.update(USER, image_id, patched(named))
    assert service.images.show(USER, image_id).status is Status.ACTIVE


def test_nobody_names_what_is_not_the_images_own(
    service: Service, ceph: Ceph, pool: str, tmp_path: Path
) -> None:
    other, image_id = record(service), record(service)
    clone(ceph, pool, other, tmp_path / "disk")
    place = service.store.url(other)
    for url in (
        place, place.replace("/snap", "/other"), place.removesuffix("/snap"), f"rbd://{other}",
        f"rbd://{ceph.fsid}/{pool}x/{image_id}/snap", f"rbd://0/{pool}/{image_id}/snap",
        service.store.url(image_id),  # where nothing is
        service.store.url(image_id).replace(image_id, f"./{image_id}"),
    ):  # fmt: skip
        for caller in (USER, NOVA, ADMIN):
            with pytest.raises(errors.InvalidLocation):
                service.locations.update(caller, image_id, patched(Named(url, {})))
        for caller in (NOVA, ADMIN):
            with pytest.raises(errors.InvalidLocation):
                service.locations.add(caller, image_id, Named(url, {}))
    assert service.images.show(ADMIN, image_id).status is Status.QUEUED
    assert ceph.rbd("ls", pool).split() == [other]


def test_what_was_there_before_the_image_is_somebody_elses(
    service: Service, ceph: Ceph, pool: str, tmp_path: Path
) -> None:
    """Another service that shares the pool may have an image of that id, which callers choose."""
    image_id = str(uuid.uuid4())
    clone(ceph, pool, image_id, tmp_path / "disk")
    service.clock.ahead = timedelta(hours=1)
    assert record(service, id=image_id) == image_id
    for caller in (USER, NOVA, ADMIN):
        with pytest.raises(errors.InvalidLocation):
            service.locations.update(
                caller, image_id, patched(Named(service.store.url(image_id), {}))
            )
    service.images.delete(USER, image_id)
    assert ceph.rbd("ls", pool).split() == [image_id]


def test_what_an_instance_wrote_is_raw(
    service: Service, ceph: Ceph, pool: str, tmp_path: Path
) -> None:
    """As another format, which it may be made to look like, it could name the host's files."""
    image_id = record(service, disk_format="qcow2")
    clone(ceph, pool, image_id, tmp_path / "disk")
    with pytest.raises(errors.InvalidLocation):
        service.locations.update(USER, image_id, patched(Named(service.store.url(image_id), {})))


def test_an_image_with_data_takes_no_snapshot(
    service: Service, ceph: Ceph, pool: str, tmp_path: Path
) -> None:
    image_id = record(service)
    clone(ceph, pool, image_id, tmp_path / "disk")
    named = Named(service.store.url(image_id), {})
    service.locations.update(USER, image_id, patched(named))
    before = service.images.show(ADMIN, image_id)
    with pytest.raises(errors.Error):
        service.locations.update(USER, image_id, patched(named))
    assert service.images.show(ADMIN, image_id).locations == before.locations
    with pytest.raises(errors.StatusConflict):
        service.locations.add(NOVA, image_id, named)
