"""A Ceph that hangs, dies or is full, and a service that dies: nothing is lost, nothing is left."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ceph.rbd_settings import with_ceph
from tests.conftest import Serve
from tests.deploy.wire import Answer, Wire
from tests.faults.service import BLOCK, Service, wait_until
from tools.ceph import Ceph

pytestmark = pytest.mark.ceph

OCTETS = "Content-Type: application/octet-stream"
SIZE = 96 * BLOCK
BLOCKS = [os.urandom(BLOCK)] * (SIZE // BLOCK)
DATA = b"".join(BLOCKS)
SOON, LATE = 2, 60  # seconds that the cluster may not answer
FORGOTTEN = 120.0  # a hang guard: the OSD is found dead, comes back, forgets watches, is swept

Start = Callable[[int], Service]


@pytest.fixture
def pool(ceph: Ceph) -> str:
    return ceph.new_pool()


@pytest.fixture
def start(serve: Serve, ceph: Ceph, pool: str, tmp_path: Path) -> Start:
    """``start(timeout)``: a service on the test's pool, on what the last one left."""

    def started(timeout: int) -> Service:
        settings = with_ceph(ceph, pool, tmp_path, rados_connect_timeout=timeout)
        return Service(serve(env={**settings, "OS_HEADRACE__UPLOAD_LEASE": "3"}))

    return started


@pytest.fixture
def hurt(ceph: Ceph) -> Iterator[Ceph]:
    """A cluster whose OSD may be stopped: it goes on in the end."""
    yield ceph
    ceph.resume_osd()


def images_in(ceph: Ceph, pool: str) -> list[str]:
    return ceph.rbd("ls", pool).split()


def download(service: Service, image_id: str) -> Answer:
    return service.request("GET", f"/v2/images/{image_id}/file")


def begin_upload(service: Service, wire: Wire, blocks: int) -> str:
    """An upload of which some blocks have been sent; its image."""
    image_id = service.create()
    wire.send(
        wire.head("PUT", f"/v2/images/{image_id}/file", OCTETS, f"Content-Length: {SIZE}"),
        *BLOCKS[:blocks],
    )
    return image_id


def refusal(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.headers.get("x-headrace-error")


def test_an_osd_that_hangs_while_an_image_is_read(start: Start, hurt: Ceph) -> None:
    service = start(SOON)
    image_id = service.active(DATA)
    with service.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", f"/v2/images/{image_id}/file"))
        wire.wait_for_head()
        hurt.signal("osd", signal.SIGSTOP)
        answer = wire.answer()
    assert (answer.status, answer.whole) == (200, False)
    assert DATA.startswith(answer.body)
    assert refusal(download(service, image_id)) == (503, "service.unavailable")
    assert service.status(image_id) == "active"
    hurt.resume_osd()
    wait_until(lambda: download(service, image_id).body == DATA, "all of it", FORGOTTEN)


def test_an_osd_that_dies_and_comes_back_while_an_image_is_read(start: Start, ceph: Ceph) -> None:
    service = start(LATE)
    image_id = service.active(DATA)
    with service.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", f"/v2/images/{image_id}/file"))
        wire.wait_for_head()
        ceph.signal("osd", signal.SIGKILL)
        ceph.start("osd")
        answer = wire.answer()
    assert (answer.status, answer.whole) == (200, True)
    assert answer.body == DATA
    ceph.wait_for_osd()


def test_an_osd_that_hangs_while_an_image_is_written(start: Start, hurt: Ceph, pool: str) -> None:
    service = start(SOON)
    with service.connect() as wire:
        image_id = begin_upload(service, wire, 40)
        wait_until(lambda: images_in(hurt, pool), "the image")
        hurt.signal("osd", signal.SIGSTOP)
        wire.send(*BLOCKS[40:])
        assert refusal(wire.answer("PUT")) == (503, "service.unavailable")
    assert service.status(image_id) == "queued"
    hurt.resume_osd()
    wait_until(lambda: images_in(hurt, pool) == [], "the sweep", FORGOTTEN)
    # It is in use again before it answers everything within so few seconds.
    wait_until(lambda: service.upload(image_id, DATA).status == 204, "an upload", FORGOTTEN)
    wait_until(lambda: download(service, image_id).body == DATA, "all of it", FORGOTTEN)
    wait_until(lambda: images_in(hurt, pool) == [image_id], "the sweep", FORGOTTEN)


def test_an_osd_that_dies_and_comes_back_while_an_image_is_written(
    start: Start, ceph: Ceph, pool: str
) -> None:
    service = start(LATE)
    with service.connect() as wire:
        image_id = begin_upload(service, wire, 40)
        wait_until(lambda: images_in(ceph, pool), "the image")
        ceph.signal("osd", signal.SIGKILL)
        ceph.start("osd")
        wire.send(*BLOCKS[40:])
        assert wire.answer("PUT").status == 204
    assert download(service, image_id).body == DATA
    assert images_in(ceph, pool) == [image_id]
    ceph.wait_for_osd()


def test_a_pool_that_is_full(start: Start, ceph: Ceph, pool: str) -> None:
    service = start(LATE)
    service.active(DATA)
    ceph.set_quota(pool, SIZE // 2)
    wait_until(lambda: ceph.is_full(pool), "the quota")
    image_id = service.create()
    assert refusal(service.upload(image_id, DATA)) == (413, "store.full")
    assert service.status(image_id) == "queued"
    assert len(images_in(ceph, pool)) == 1
    ceph.set_quota(pool, 0)
    wait_until(lambda: not ceph.is_full(pool), "the end of the quota")
    assert service.upload(image_id, DATA).status == 204
    assert download(service, image_id).body == DATA


def test_a_service_that_dies_while_an_image_is_written(start: Start, ceph: Ceph, pool: str) -> None:
    service = start(SOON)
    with service.connect() as wire:
        image_id = begin_upload(service, wire, 40)
        wait_until(lambda: images_in(ceph, pool), "the image")
        service.server.kill()
    assert image_id not in images_in(ceph, pool)
    service = start(SOON)
    wait_until(lambda: images_in(ceph, pool) == [], "the sweep", FORGOTTEN)
    assert service.status(image_id) == "queued"
    wait_until(lambda: service.upload(image_id, DATA).status == 204, "an upload", FORGOTTEN)
    wait_until(lambda: download(service, image_id).body == DATA, "all of it", FORGOTTEN)


def test_a_service_that_starts_and_works_while_the_osd_hangs(
    start: Start, hurt: Ceph, pool: str
) -> None:
    first = start(SOON)
    kept, deleted = first.active(DATA), first.active(b"data")
    first.server.stop()
    hurt.signal("osd", signal.SIGSTOP)
    service = start(SOON)
    assert service.status(kept) == "active"
    service.delete(deleted)
    image_id = service.create()
    assert refusal(service.upload(image_id, b"data")) == (503, "service.unavailable")
    hurt.resume_osd()
    wait_until(lambda: images_in(hurt, pool) == [kept], "the deletion", FORGOTTEN)
    wait_until(lambda: download(service, kept).body == DATA, "all of it", FORGOTTEN)
