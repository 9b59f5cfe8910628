"""Uploads that do not end well leave nothing, and their image takes another one."""

import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.deploy.wire import Wire
from tests.faults.conftest import Start
from tests.faults.service import BLOCK, Service, leases, wait_until

OCTETS = "Content-Type: application/octet-stream"
SIZE = 8 * BLOCK
BLOCKS = [os.urandom(BLOCK) for _ in range(SIZE // BLOCK)]
DATA = b"".join(BLOCKS)
SHA512 = hashlib.sha512(DATA).hexdigest()
FRAMINGS = pytest.mark.parametrize("framing", ["plain", "chunked"])


def begin(wire: Wire, image_id: str, framing: str, *fields: str) -> None:
    length = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {SIZE}"
    wire.send(wire.head("PUT", f"/v2/images/{image_id}/file", OCTETS, length, *fields))


def piece(block: bytes, framing: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block) if framing == "chunked" else block


def end(framing: str) -> bytes:
    return b"0\r\n\r\n" if framing == "chunked" else b""


@pytest.fixture
def started(service: Service, framing: str) -> Iterator[tuple[Wire, str]]:
    """An upload of which three of eight blocks have been sent and claimed."""
    image_id = service.create()
    with service.connect() as wire:
        begin(wire, image_id, framing)
        for block in BLOCKS[:3]:
            wire.send(piece(block, framing))
        wait_until(lambda: service.status(image_id) == "saving", "the claim")
        yield wire, image_id


def finish(wire: Wire, framing: str) -> int:
    for block in BLOCKS[3:]:
        wire.send(piece(block, framing))
    wire.send(end(framing))
    return wire.answer("PUT").status


@FRAMINGS
@pytest.mark.parametrize("way", ["close", "reset", "half"])
def test_the_client_goes_away(
    service: Service, started: tuple[Wire, str], framing: str, way: str
) -> None:
    wire, image_id = started
    with service.one_complaint(image_id, "closed the connection"):
        if way == "reset":
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if way == "half":
            wire.sock.shutdown(socket.SHUT_WR)
        else:
            wire.sock.close()
        wait_until(lambda: service.status(image_id) == "queued", "the release")
    service.check_released(image_id)


@FRAMINGS
def test_the_client_stalls(start: Start, framing: str) -> None:
    service = start(env={"OS_HEADRACE__STALL_TIMEOUT": "1"})
    image_id = service.create()
    with service.connect() as wire, service.one_complaint(image_id, "nothing for 1"):
        begin(wire, image_id, framing)
        wire.send(piece(BLOCKS[0], framing), piece(BLOCKS[1], framing)[: BLOCK // 2])
        answer = wire.answer("PUT")
        assert (answer.status, answer.closes) == (408, True)
        assert answer.headers["x-headrace-error"] == "transfer.peer_stalled"
    service.check_released(image_id)


@FRAMINGS
def test_a_slow_client_does_not_stall(start: Start, framing: str) -> None:
    service = start(env={"OS_HEADRACE__STALL_TIMEOUT": "1"})
    image_id = service.create()
    with service.connect() as wire:
        begin(wire, image_id, framing)
        stream = b"".join(piece(block, framing) for block in BLOCKS) + end(framing)
        step = len(stream) // 6 + 1
        for offset in range(0, len(stream), step):
            wire.send(stream[offset : offset + step])
            threading.Event().wait(0.4)
        assert wire.answer("PUT").status == 204
    service.check_store()


@FRAMINGS
def test_the_image_is_deleted_meanwhile(
    service: Service, started: tuple[Wire, str], framing: str
) -> None:
    wire, image_id = started
    with service.one_complaint(image_id):
        service.delete(image_id)
        assert finish(wire, framing) == 410
    assert image_id not in service.images()
    assert image_id not in service.files()
    assert leases(service.server) == []
    wait_until(lambda: not service.holds("(deleted)"), "closing the unnamed file")


@FRAMINGS
def test_a_second_upload_is_refused(
    service: Service, started: tuple[Wire, str], framing: str
) -> None:
    wire, image_id = started
    refused = service.upload(image_id, b"other")
    assert (refused.status, refused.headers["x-headrace-error"]) == (409, "image.status_conflict")
    assert finish(wire, framing) == 204
    assert service.upload(image_id, b"other").status == 409
    assert service.request("GET", f"/v2/images/{image_id}/file").body == DATA
    service.check_store({image_id})


def test_of_many_uploads_at_once_one_wins(start: Start) -> None:
    service = start("--workers", "2")
    for _ in range(5):
        image_id = service.create()
        bodies = [os.urandom(BLOCK) for _ in range(6)]
        statuses: dict[int, int] = {}
        together = threading.Barrier(len(bodies))

        def upload(number: int, image_id: str = image_id, bodies: list[bytes] = bodies) -> None:
            together.wait()  # noqa: B023
            statuses[number] = service.upload(image_id, bodies[number]).status  # noqa: B023

        threads = [threading.Thread(target=upload, args=[number]) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses.values()) == [204, 409, 409, 409, 409, 409]
        (winner,) = (number for number, status in statuses.items() if status == 204)
        assert service.request("GET", f"/v2/images/{image_id}/file").body == bodies[winner]
    service.check_store()
    assert leases(service.server) == []


def test_more_than_the_cap(start: Start) -> None:
    """OSSA-2014-028: the cap holds for a body that does not say how long it is, too."""
    service = start(env={"OS_DEFAULT__IMAGE_SIZE_CAP": str(3 * BLOCK)})
    image_id = service.create()
    with service.connect() as wire:
        begin(wire, image_id, "plain")
        answer = wire.answer("PUT")
        assert (answer.status, answer.closes) == (413, True)
        assert answer.headers["x-headrace-error"] == "upload.image_too_large"
    service.check_released(image_id)

    image_id = service.create()
    with service.connect() as wire, service.one_complaint(image_id):
        begin(wire, image_id, "chunked")
        for block in BLOCKS[:4]:
            wire.send(piece(block, "chunked"))
        answer = wire.answer("PUT")
        assert (answer.status, answer.closes) == (413, True)
    service.check_released(image_id)

    exact = service.create()
    with service.connect() as wire:
        begin(wire, exact, "chunked")
        wire.send(*(piece(block, "chunked") for block in BLOCKS[:3]), end("chunked"))
        assert wire.answer("PUT").status == 204
    service.check_store()


@pytest.mark.parametrize("announced", [SIZE - 1, SIZE + 1, 0])
@FRAMINGS
def test_announced_with_another_size(service: Service, framing: str, announced: int) -> None:
    image_id = service.create()
    with service.connect() as wire:
        begin(wire, image_id, framing, f"x-openstack-image-size: {announced}")
        if framing == "chunked":
            wire.send(*(piece(block, framing) for block in BLOCKS), end(framing))
        answer = wire.answer("PUT")
        assert answer.status == 400
        assert answer.headers["x-headrace-error"] == "upload.size_mismatch"
    service.check_released(image_id)


@pytest.mark.parametrize(
    "junk", [b"z\r\n", b"-1\r\n", b"0x10\r\n", b"10\n", b"ffffffffffffffffff\r\n", b"\r\n"]
)
def test_broken_framing(service: Service, junk: bytes) -> None:
    image_id = service.create()
    with service.connect() as wire, service.one_complaint(image_id):
        begin(wire, image_id, "chunked")
        wire.send(piece(BLOCKS[0], "chunked"), junk, b"DELETE /v2/images HTTP/1.1\r\n\r\n")
        answer = wire.answer("PUT")
        assert (answer.status, answer.closes) == (400, True)
        assert answer.headers["x-headrace-error"] == "upload.incomplete"
        assert wire.at_end()
    service.check_released(image_id)


def test_a_connection_goes_on_after_an_upload(service: Service) -> None:
    """Neither framing leaves anything on the connection, whatever arrives with its end."""
    ids = [service.create() for _ in range(4)]
    with service.connect() as wire:
        for number, image_id in enumerate(ids):
            framing = ("plain", "chunked")[number % 2]
            begin(wire, image_id, framing)
            show = wire.head("GET", f"/v2/images/{image_id}")
            wire.send(*(piece(block, framing) for block in BLOCKS), end(framing), show)
            assert wire.answer("PUT").status == 204
            assert wire.answer().json["status"] == "active"
    service.check_store(ids)
    assert {image["os_hash_value"] for image in map(service.show, ids)} == {SHA512}
