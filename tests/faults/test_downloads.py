"""Downloads that cannot end well end visibly, and hold nothing afterwards."""

import os

import pytest

from tests.deploy.wire import Wire
from tests.faults.conftest import Start
from tests.faults.service import BLOCK, Service, wait_until

SIZE = 32 * BLOCK
DATA = os.urandom(SIZE)


@pytest.fixture
def image(service: Service) -> str:
    return service.active(DATA)


def begin(wire: Wire, image_id: str, *fields: str) -> None:
    wire.send(wire.head("GET", f"/v2/images/{image_id}/file", *fields))


def slow(service: Service) -> Wire:
    """A client that does not take more than it asks for: the server waits for it."""
    return service.connect(receive_buffer=64 << 10)


def test_the_file_is_truncated_meanwhile(service: Service, image: str) -> None:
    """What is missing is never made up, and the connection cannot be used on (K4, K5)."""
    with slow(service) as wire, service.one_complaint("cut short", "early"):
        begin(wire, image)
        wire.sock.recv(1000)
        os.truncate(service.server.image_dir / image, 8 * BLOCK)
        received = 1000
        while block := wire.sock.recv(BLOCK):
            received += len(block)
        assert received < SIZE
    assert service.request("GET", "/healthcheck").status == 200
    service.delete(image)


def test_the_file_is_gone(service: Service, image: str) -> None:
    os.unlink(service.server.image_dir / image)
    with service.one_complaint(image, "missing"):
        assert service.request("GET", f"/v2/images/{image}/file").status == 204
    with service.one_complaint(image, "missing"):
        answer = service.request("GET", f"/v2/images/{image}/file", "Range: bytes=0-9")
        assert (answer.status, answer.body) == (204, b"")
    service.delete(image)


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, 0])
def test_the_file_has_another_size(service: Service, image: str, size: int) -> None:
    os.truncate(service.server.image_dir / image, size)
    with service.one_complaint(image, str(size)):
        answer = service.request("GET", f"/v2/images/{image}/file")
        assert (answer.status, answer.headers["x-headrace-error"]) == (500, "store.corrupt")
        assert str(service.server.image_dir).encode() not in answer.body
    service.delete(image)


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_something_else_lies_there(service: Service, image: str, kind: str) -> None:
    """Only a regular file is ever served, wherever a link may point."""
    path = service.server.image_dir / image
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(service.server.state_dir / "headrace.db")
    else:
        os.mkfifo(path)
    with service.one_complaint(image, "missing"):
        assert service.request("GET", f"/v2/images/{image}/file").status == 204
    path.rmdir() if kind == "directory" else path.unlink()
    service.delete(image)


@pytest.mark.parametrize("fields", [(), ("Range: bytes=1000-",)], ids=["whole", "range"])
def test_the_client_goes_away(service: Service, image: str, fields: tuple[str, ...]) -> None:
    """Its descriptors are free at once, not when some time-out has run out."""
    service.request("GET", "/healthcheck")
    before = service.descriptors()
    with service.one_complaint("cut short"), slow(service) as wire:
        begin(wire, image, *fields)
        wire.sock.recv(1000)
        assert service.holds(image)
    wait_until(lambda: service.descriptors() <= before, "closing")
    assert not service.holds(image)
    service.delete(image)


def test_many_clients_go_away(service: Service, image: str) -> None:
    before = service.descriptors()
    wires = [slow(service) for _ in range(40)]
    for wire in wires:
        begin(wire, image)
        wire.sock.recv(1000)
    for wire in wires:
        wire.sock.close()
    wait_until(lambda: service.descriptors() <= before, "closing")
    assert service.request("GET", f"/v2/images/{image}/file").body == DATA
    service.delete(image)


def test_the_client_stalls(start: Start) -> None:
    service = start(env={"OS_HEADRACE__STALL_TIMEOUT": "1"})
    image = service.active(DATA)
    before = service.descriptors()
    with slow(service) as wire, service.one_complaint("cut short", "nothing for 1"):
        begin(wire, image)
        wait_until(lambda: not service.holds(image), "giving up")
        wait_until(lambda: service.descriptors() <= before, "closing")
    assert service.request("GET", f"/v2/images/{image}/file").body == DATA


def test_the_image_is_deleted_meanwhile(service: Service, image: str) -> None:
    """Who has begun gets all of it; the room is free when the last one is done."""
    with slow(service) as wire:
        begin(wire, image)
        wire.sock.recv(1)
        service.delete(image)
        assert image not in service.files()
        assert service.request("GET", f"/v2/images/{image}/file").status == 404
        received = 1
        while received < SIZE:
            block = wire.sock.recv(BLOCK)
            assert block
            received += len(block)
    wait_until(lambda: not service.holds("(deleted)"), "closing")


def test_a_connection_goes_on_after_a_download(service: Service, image: str) -> None:
    """Every kind of answer leaves the connection at the start of the next one."""
    path = f"/v2/images/{image}/file"
    with service.connect() as wire:
        for _ in range(2):
            assert wire.request("GET", path).body == DATA
            assert wire.request("GET", path, "Range: bytes=5-8").body == DATA[5:9]
            assert wire.request("GET", path, f"Range: bytes={SIZE}-").status == 416
            assert wire.request("GET", path, "Range: bytes=1-2,4-5").status == 400
            assert wire.request("HEAD", path).status == 405
            assert wire.request("GET", f"/v2/images/{image}").json["size"] == SIZE
            assert wire.request("GET", path, f"Range: bytes=-{BLOCK}").body == DATA[-BLOCK:]
        # Asked for all at once, answered in order.
        wire.send(*(wire.head("GET", path, f"Range: bytes={n}-{n}") for n in range(20)))
        assert b"".join(wire.answer().body for _ in range(20)) == DATA[:20]
    service.delete(image)
