"""Downloads from the embedded server, seen on the wire."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.embedded import Embedded, embedded, wait_until
from tests.needs import require_strace
from tools.strace import command, on_sockets

SIZE = 5_000_003
GIB = 1 << 30


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> Iterator[Embedded]:
    directory = tmp_path_factory.mktemp("download")
    (directory / "image").write_bytes(data)
    (directory / "small").write_bytes(data[:1000])
    (directory / "empty").touch()
    with (directory / "sparse").open("wb") as sparse:
        sparse.truncate(5 * GIB)
        sparse.seek(3 * GIB)
        sparse.write(data)
    with embedded(directory, "stall_timeout=2", "threads=8") as running:
        yield running


@pytest.mark.parametrize(("name", "length"), [("image", SIZE), ("small", 1000), ("empty", 0)])
def test_whole(server: Embedded, data: bytes, name: str, length: int) -> None:
    with server.connect() as wire:
        answer = wire.request("GET", f"/file/{name}")
    assert (answer.status, answer.body) == (200, data[:length])


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 1), (1, 20_000), (4_999_999, 4), (100, 0), (77, 4_000_000)]
)
def test_range(server: Embedded, data: bytes, offset: int, length: int) -> None:
    with server.connect() as wire:
        answer = wire.request("GET", f"/file/image?offset={offset}&length={length}")
    assert answer.body == data[offset : offset + length]


def test_range_beyond_2_gib(server: Embedded, data: bytes) -> None:
    with server.connect() as wire:
        answer = wire.request("GET", f"/file/sparse?offset={3 * GIB - 10}&length={SIZE}")
    assert answer.body == bytes(10) + data[:-10]


def test_more_than_one_system_call_can_send(server: Embedded, data: bytes) -> None:
    offset = 3 * GIB // 4
    length = 3 * GIB + SIZE - offset  # one call moves less than 2 GiB
    with server.connect() as wire:
        wire.send(
            wire.head("GET", f"/file/sparse?offset={offset}&length={length}", "Connection: close")
        )
        assert wire.read_head().headers["content-length"] == str(length)
        left = length - SIZE - len(wire.buffered())
        waste = bytearray(1 << 20)
        while left:  # dropped in the kernel: nothing is learnt from so many zeros
            left -= wire.sock.recv_into(waste, min(left, len(waste)), socket.MSG_TRUNC)
        tail = b"".join(iter(lambda: wire.sock.recv(1 << 20), b""))
    assert tail == data


def test_head_sends_no_body(server: Embedded, data: bytes) -> None:
    with server.connect() as wire:
        answer = wire.request("HEAD", "/file/image")
        assert answer.headers["content-length"] == str(SIZE)
        assert wire.request("GET", "/file/small").body == data[:1000]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body(server: Embedded, data: bytes, status: str) -> None:
    with server.connect() as wire:
        answer = wire.request("GET", f"/file/image?status={status.replace(' ', '+')}")
        assert answer.status == int(status[:3])
        assert wire.request("GET", "/file/small").body == data[:1000]


def test_keep_alive(server: Embedded, data: bytes) -> None:
    with server.connect() as wire:
        for _ in range(20):
            answer = wire.request("GET", "/file/image?offset=5&length=100000")
            assert answer.body == data[5:100005]
            assert answer.headers["connection"] == "keep-alive"


def test_pipelined_requests(server: Embedded, data: bytes) -> None:
    targets = ["/file/image", "/file/small", "/file/empty", "/file/image?offset=1&length=50000"]
    with server.connect() as wire:
        wire.send(*(wire.head("GET", target) for target in targets))
        bodies = [wire.answer().body for _ in targets]
    assert bodies == [data, data[:1000], b"", data[1:50001]]


def test_every_descriptor_is_closed(server: Embedded) -> None:
    before = server.descriptors()
    for target in ("/file/image", "/file/small", "/file/empty", "/wrong/image"):
        for method in ("GET", "HEAD"):
            with server.connect() as wire:
                wire.request(method, target)
    with server.connect(receive_buffer=4096) as wire:
        wire.send(wire.head("GET", "/file/image"))
        wire.read_head()
    server.wait_for_log("GET /file/image: answer cut short")
    wait_until(lambda: server.descriptors() <= before)


def test_client_that_leaves(server: Embedded) -> None:
    with server.connect(receive_buffer=4096) as wire:
        wire.send(wire.head("GET", f"/file/sparse?offset=0&length={GIB}"))
        wire.read_head()
    server.wait_for_log("GET /file/sparse: answer cut short")
    (sent,) = [int(event.split()[1]) for event in server.events if event.endswith("False")][-1:]
    assert 0 < sent < GIB


def test_slow_client_is_served(server: Embedded, data: bytes) -> None:
    """It takes longer than the stall limit in all, but moves within every such period."""
    with server.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", "/file/image", "Connection: close"))
        wire.read_head()
        received = wire.buffered()
        started = time.monotonic()
        while block := wire.sock.recv(200_000):
            received += block
            if time.monotonic() - started < 3:
                time.sleep(0.1)
    assert received == data


def test_client_that_takes_nothing_is_given_up(server: Embedded) -> None:
    with server.connect(receive_buffer=4096) as wire:
        wire.send(wire.head("GET", f"/file/sparse?offset=0&length={GIB}"))
        wire.read_head()
        server.wait_for_log("answer cut short")
        server.wait_for_log("the peer moved nothing for 2")


def test_truncated_file_is_neither_padded_nor_completed(server: Embedded, data: bytes) -> None:
    with server.connect() as wire:
        answer = wire.request("GET", f"/file/image?size={SIZE + 100_000}")
        assert (answer.whole, answer.body) == (False, data)
        assert wire.at_end()
    server.wait_for_log("the file ended 100000 bytes early")


def test_small_truncated_file_is_an_error_in_time(server: Embedded) -> None:
    with server.connect() as wire:
        answer = wire.request("GET", "/file/small?size=2000")
    assert answer.status == 500


def test_length_that_contradicts_the_headers_is_refused(server: Embedded) -> None:
    with server.connect() as wire:
        assert wire.request("GET", "/wrong/image").status == 500


@pytest.mark.parametrize("target", ["/break", "/short"])
def test_incomplete_answer_is_not_filled_up(server: Embedded, target: str) -> None:
    with server.connect() as wire:
        wire.send(wire.head("GET", target), wire.head("GET", "/file/small"))
        answer = wire.answer()
        assert (answer.whole, answer.body) == (False, b"hello")
    assert server.log.count(f"GET {target}: answer cut short") == 1


def test_accepted_sockets_do_not_delay(server: Embedded) -> None:
    assert server.ask("GET", "/process")["nodelay"]


@pytest.mark.parametrize(("switch", "by_sendfile"), [("on", True), ("off", False)])
def test_what_carries_the_bytes(
    tmp_path: Path, data: bytes, switch: str, by_sendfile: bool
) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "image").write_bytes(data)
    strace = command(require_strace(), trace)
    with embedded(tmp_path, under=strace, env={"HEADRACE_SENDFILE": switch}) as server:
        with server.connect() as wire:
            assert wire.request("GET", "/file/image").body == data
        assert server.stop() == 0
    carried = on_sockets(trace).bytes
    assert carried["sendfile"] == (SIZE if by_sendfile else 0)
    assert (carried["sendto"] + carried["write"] > SIZE) is not by_sendfile
