"""A service whose images lie in Ceph: up, down, in parts, from store to store, away."""

import hashlib
import json
import os
from collections.abc import Iterator

import pytest

from tests.ceph.rbd_settings import with_ceph
from tests.faults.service import BLOCK, Service, wait_until
from tools.ceph import Ceph
from tools.serving import serving

pytestmark = pytest.mark.ceph

DATA = os.urandom(BLOCK) * 70 + b"tail"


@pytest.fixture(scope="module")
def pool(ceph: Ceph) -> str:
    return ceph.new_pool()


@pytest.fixture(scope="module")
def service(ceph: Ceph, pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all, who leave nothing in its pool."""
    directory = tmp_path_factory.mktemp("service")
    with serving(directory / "state", env=with_ceph(ceph, pool, directory)) as server:
        yield Service(server)


def file_of(image_id: str) -> str:
    return f"/v2/images/{image_id}/file"


def images_in(ceph: Ceph, pool: str) -> list[str]:
    return ceph.rbd("ls", pool).split()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_image_goes_up_and_comes_down(
    service: Service, ceph: Ceph, pool: str, chunked: bool
) -> None:
    image_id = service.create()
    fields = ["Content-Type: application/octet-stream", "Connection: close"]
    with service.connect() as wire:
        if chunked:
            wire.send(f"PUT {file_of(image_id)} HTTP/1.1\r\nHost: localhost\r\n".encode())
            wire.send("".join(f"{each}\r\n" for each in fields).encode())
            wire.send(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(DATA))
            wire.send(DATA + b"\r\n0\r\n\r\n")
            assert wire.answer("PUT").status == 204
        else:
            assert wire.request("PUT", file_of(image_id), *fields, body=DATA).status == 204
    image = service.show(image_id)
    assert (image["status"], image["size"], image["stores"]) == ("active", len(DATA), "ceph")
    assert image["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
    assert service.request("GET", file_of(image_id)).body == DATA
    part = service.request("GET", file_of(image_id), f"Range: bytes={BLOCK - 5}-{5 * BLOCK}")
    assert (part.status, part.body) == (206, DATA[BLOCK - 5 : 5 * BLOCK + 1])
    assert images_in(ceph, pool) == [image_id]
    assert os.listdir(service.server.state_dir / "staging") == []
    service.delete(image_id)
    assert images_in(ceph, pool) == []


def test_what_does_not_fit_its_format_leaves_nothing(
    service: Service, ceph: Ceph, pool: str
) -> None:
    image_id = service.create(disk_format="qcow2")
    assert service.upload(image_id, DATA).status == 415
    assert service.status(image_id) == "queued"
    service.delete(image_id)
    assert images_in(ceph, pool) == []


def test_copies_go_from_store_to_store(service: Service, ceph: Ceph, pool: str) -> None:
    image_id = service.create()
    assert service.upload(image_id, DATA, "X-Image-Meta-Store: fast").status == 204
    for there, here in (("ceph", "fast"), ("fast", "ceph")):
        wanted = {"method": {"name": "copy-image"}, "stores": [there]}
        answer = service.request(
            "POST", f"/v2/images/{image_id}/import", body=json.dumps(wanted).encode()
        )
        assert answer.status == 202, answer.body
        wait_until(lambda: set(service.show(image_id)["stores"].split(",")) == {"fast", "ceph"})
        assert service.request("DELETE", f"/v2/stores/{here}/{image_id}").status == 204
        assert service.request("GET", file_of(image_id)).body == DATA
    assert images_in(ceph, pool) == []
    service.delete(image_id)


def test_an_image_that_clones_need_stays(service: Service, ceph: Ceph, pool: str) -> None:
    image_id = service.active(DATA)
    ceph.rbd("clone", f"{pool}/{image_id}@snap", f"{pool}/clone")
    answer = service.request("DELETE", f"/v2/images/{image_id}")
    assert answer.status == 409
    assert answer.headers["x-headrace-error"] == "store.data_in_use"
    assert service.request("GET", file_of(image_id)).body == DATA
    ceph.rbd("rm", f"{pool}/clone", "--no-progress")
    service.delete(image_id)
    assert images_in(ceph, pool) == []


def test_what_administrators_are_told(service: Service, ceph: Ceph, pool: str) -> None:
    stores = service.request("GET", "/v2/info/stores/detail").json["stores"]
    assert stores[0] == {
        "id": "ceph",
        "type": "rbd",
        "default": "true",
        "weight": 0,
        "properties": {
            "pool": pool,
            "chunk_size": 8 << 20,
            "thin_provisioning": False,
            "fsid": ceph.fsid,
        },
    }
