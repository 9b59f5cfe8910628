"""Downloads on the wire: one list of checks, every host."""

import hashlib
import os
import socket
import time

import pytest

from tests.deploy.conftest import GIB, MIB, SIZE, SPARSE, Deployed, path
from tests.deploy.wire import Answer, Wire
from tests.faults.service import wait_until

pytestmark = pytest.mark.slow

OFFLOAD_HEADERS = {"x-accel-redirect", "x-sendfile"}


def goes_on(deployed: Deployed, wire: Wire) -> None:
    """After an answer the connection takes another request, or has ended in good order."""
    try:
        answer = wire.request("GET", f"/v2/images/{deployed.whole}")
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return
    assert answer.status == 200
    assert answer.json["id"] == deployed.whole


def get(deployed: Deployed, image: str, *fields: str) -> Answer:
    """The answer to a download, whose connection then goes on; no server in front is betrayed."""
    with deployed.connect() as wire:
        answer = wire.request("GET", path(image), *fields)
        assert not OFFLOAD_HEADERS & set(answer.headers), answer.headers
        assert answer.whole
        goes_on(deployed, wire)
    return answer


def test_whole(deployed: Deployed) -> None:
    answer = get(deployed, deployed.whole)
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(deployed.data).digest()
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["content-md5"] == hashlib.md5(deployed.data).hexdigest()
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("data", [b"", b"1"], ids=["empty", "one byte"])
def test_small(deployed: Deployed, data: bytes) -> None:
    image = deployed.add(data)
    answer = get(deployed, image)
    assert (answer.status, answer.body) == (200, data)
    answer = get(deployed, image, "Range: bytes=0-0")
    assert answer.status == (206 if data else 416)


def test_head_is_not_answered_with_data(deployed: Deployed) -> None:
    with deployed.connect() as wire:
        answer = wire.request("HEAD", path(deployed.whole))
        assert answer.status == 405
        assert set(answer.headers["allow"].replace(" ", "").split(",")) >= {"GET", "PUT"}
        assert not OFFLOAD_HEADERS & set(answer.headers)
        goes_on(deployed, wire)


@pytest.mark.parametrize(
    ("asked", "first", "length"),
    [
        ("0-0", 0, 1),
        ("1-1", 1, 1),
        ("100-200099", 100, 200_000),
        ("1000000-", 1_000_000, SIZE - 1_000_000),
        ("-5", SIZE - 5, 5),
        (f"{SIZE - 1}-", SIZE - 1, 1),
        (f"{SIZE - 1}-{SIZE + 100}", SIZE - 1, 1),
        (f"0-{SIZE - 1}", 0, SIZE),
        (f"-{SIZE + 5}", 0, SIZE),
    ],
)
def test_range(deployed: Deployed, asked: str, first: int, length: int) -> None:
    answer = get(deployed, deployed.whole, f"Range: bytes={asked}")
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {first}-{first + length - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(length)
    assert answer.headers["content-md5"] == hashlib.md5(deployed.data).hexdigest()
    assert answer.body == deployed.data[first : first + length]


@pytest.mark.parametrize("mark", Deployed.marks, ids=["across 2 GiB", "across 4 GiB"])
def test_range_far_behind(deployed: Deployed, mark: int) -> None:
    last = mark + SIZE
    answer = get(deployed, deployed.sparse, f"Range: bytes={mark - 3}-{last + 2}")
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {mark - 3}-{last + 2}/{SPARSE}"
    assert answer.body == bytes(3) + deployed.data + bytes(3)
    inner = get(deployed, deployed.sparse, f"Range: bytes={mark + 2 * MIB}-{mark + 2 * MIB + 99}")
    assert inner.body == deployed.data[2 * MIB : 2 * MIB + 100]


def test_range_longer_than_2_gib(deployed: Deployed) -> None:
    """More than a C int counts; the zeros before the last mark are dropped in the kernel."""
    first = deployed.marks[1] - (2 * GIB + MIB)
    length = SPARSE - first
    with deployed.connect() as wire:
        wire.send(wire.head("GET", path(deployed.sparse), f"Range: bytes={first}-"))
        head = wire.read_head()
        assert (head.status, head.headers["content-length"]) == (206, str(length))
        left = 2 * GIB + MIB - len(wire.buffered())
        while left:
            left -= wire.sock.recv_into(bytearray(MIB), min(left, MIB), socket.MSG_TRUNC)
        body = b""
        while len(body) < SIZE:
            body += wire.sock.recv(SIZE - len(body))
    assert body == deployed.data


def test_old_clients_ask_by_content_range(deployed: Deployed) -> None:
    answer = get(deployed, deployed.whole, f"Content-Range: bytes 5-104/{SIZE}")
    assert (answer.status, answer.body) == (206, deployed.data[5:105])


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (f"bytes={SIZE}-", 416),
        ("bytes=9-8", 416),
        ("bytes=x-", 416),
        ("lines=1-2", 416),
        ("bytes=0-1,5-6", 400),
    ],
)
def test_a_range_that_cannot_be(deployed: Deployed, asked: str, status: int) -> None:
    answer = get(deployed, deployed.whole, f"Range: {asked}")
    assert answer.status == status
    assert deployed.data[:100] not in answer.body


def test_no_validator_holds(deployed: Deployed) -> None:
    """Images have none, so a range on condition of one is the whole (RFC 9110 section 13.1.5)."""
    answer = get(deployed, deployed.whole, "Range: bytes=5-9", 'If-Range: "anything"')
    assert (answer.status, answer.body) == (200, deployed.data)


@pytest.mark.parametrize(
    "condition",
    [
        'If-Match: "anything"',
        "If-None-Match: *",
        "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
        "If-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT",
    ],
)
def test_no_condition_is_judged(deployed: Deployed, condition: str) -> None:
    """By whatever host: they would be judged by validators that are not the image's."""
    answer = get(deployed, deployed.whole, condition)
    assert (answer.status, answer.body) == (200, deployed.data)


def test_what_is_refused_has_no_data(deployed: Deployed) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    answer = get(deployed, unknown)
    assert answer.status == 404
    queued = get(deployed, deployed.create())
    assert (queued.status, queued.body) == (204, b"")


def test_a_client_that_leaves(deployed: Deployed) -> None:
    for fields in ([], [f"Range: bytes={GIB}-"]):
        with deployed.connect(receive_buffer=4096) as wire:
            wire.send(wire.head("GET", path(deployed.sparse), *fields))
            wire.read_head()
    assert get(deployed, deployed.whole).body == deployed.data
    wait_until(lambda: not deployed.open_images(), "the end of every descriptor")


def test_a_slow_client(deployed: Deployed) -> None:
    """For a while it takes less than the kernel's buffers hold, then all that is left."""
    with deployed.connect(receive_buffer=16 << 10) as wire:
        wire.send(wire.head("GET", path(deployed.whole)))
        assert wire.read_head().status == 200
        body = wire.buffered()
        for _ in range(10):
            body += wire.sock.recv(8 << 10)
            time.sleep(0.05)
        while len(body) < SIZE:
            block = wire.sock.recv(MIB)
            assert block, f"cut after {len(body)} bytes: {deployed.host.logs()}"
            body += block
    assert body == deployed.data


@pytest.mark.parametrize("fields", [(), ("Range: bytes=1-",)], ids=["whole", "range"])
def test_a_file_cut_short_underneath(deployed: Deployed, fields: tuple[str, ...]) -> None:
    """Nothing is made up for what is missing, and no other answer takes its place."""
    size, left = 24 * MIB, 10 * MIB
    data = (deployed.data * (size // SIZE + 1))[:size]
    image = deployed.add(data)
    with deployed.connect(receive_buffer=4096) as wire:
        wire.send(wire.head("GET", path(image), *fields))
        head = wire.read_head()
        announced = int(head.headers["content-length"])
        os.truncate(deployed.host.image_dir / image, left)
        wire.send(wire.head("GET", f"/v2/images/{deployed.whole}"))
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        body = wire.buffered()
        try:
            while block := wire.sock.recv(MIB):
                body += block
        except ConnectionResetError:
            pass
    start = size - announced
    assert len(body) <= left - start
    assert body == data[start : start + len(body)]
    assert get(deployed, deployed.whole).body == deployed.data
    wait_until(lambda: not deployed.open_images(), "the end of every descriptor")
    deployed.ask("DELETE", f"/v2/images/{image}")
