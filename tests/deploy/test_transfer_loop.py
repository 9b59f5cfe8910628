"""Downloads that wait for their clients: what they hold, what they hold up, how they end."""

import contextlib
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headrace.bench import cache
from headrace.errors import ClientError
from tests.deploy.embedded import Embedded, embedded, wait_until
from tests.deploy.wire import Wire
from tests.needs import require, require_strace
from tools import strace

SIZE = 24 << 20
MIB = 1 << 20


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def directory(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "image").write_bytes(data)
    (tmp_path / "other").write_bytes(data[::-1])
    return tmp_path


@contextlib.contextmanager
def waiting(server: Embedded, count: int, target: str = "/file/image") -> Iterator[list[Wire]]:
    """Downloads that have begun and are not read."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(server.connect(receive_buffer=65536)) for _ in range(count)]
        for wire in wires:
            wire.send(wire.head("GET", target))
        for wire in wires:
            wire.wait_for_head()
        yield wires


def links(server: Embedded, path: Path) -> int:
    """How many descriptors of the worker are open on the file."""
    (worker,) = psutil.Process(server.pid).children()
    found = 0
    for fd in Path(f"/proc/{worker.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(fd) in (str(path), f"{path} (deleted)")
    return found


# What they hold


def test_they_take_no_threads(directory: Path, data: bytes) -> None:
    with (
        embedded(directory, "threads=2") as server,
        waiting(server, 40) as wires,
    ):
        for _ in range(3):
            assert server.ask("GET", "/process")
        threads = psutil.Process(server.pid).children()[0].num_threads()
        assert threads < 15
        assert all(wire.answer().body == data for wire in wires)


def test_they_share_one_descriptor(directory: Path, data: bytes) -> None:
    image = directory / "image"
    with embedded(directory) as server:
        with waiting(server, 30) as wires:
            wait_until(lambda: links(server, image) == 1)
            assert wires[0].answer().body == data
            assert links(server, image) == 1
        wait_until(lambda: links(server, image) == 0)


def test_a_file_that_took_a_name_is_another(directory: Path, data: bytes) -> None:
    """What was begun is finished with the bytes it began with."""
    with embedded(directory) as server, waiting(server, 2) as old:
        (directory / "other").replace(directory / "image")
        with waiting(server, 2) as new:
            assert all(wire.answer().body == data[::-1] for wire in new)
        assert all(wire.answer().body == data for wire in old)


def test_a_range_is_one_of_its_own(directory: Path, data: bytes) -> None:
    with (
        embedded(directory) as server,
        waiting(server, 1) as whole,
        waiting(server, 1, "/file/image?offset=5000001&length=17000000") as part,
    ):
        assert part[0].answer().body == data[5_000_001:22_000_001]
        assert whole[0].answer().body == data


# What comes after them


def test_their_connections_take_further_requests(directory: Path, data: bytes) -> None:
    with embedded(directory) as server, waiting(server, 3) as wires:
        for wire in wires:
            assert wire.answer().body == data
            assert (
                wire.request("GET", "/file/image?offset=7&length=9000000").body
                == (data[7:9_000_007])
            )
            assert wire.request("GET", "/process").status == 200


def test_a_request_sent_meanwhile_is_answered_afterwards(directory: Path, data: bytes) -> None:
    with embedded(directory) as server, server.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", "/file/image"), wire.head("GET", "/file/other"))
        time.sleep(0.3)
        wire.send(wire.head("GET", "/process"))
        assert wire.answer().body == data
        assert wire.answer().body == data[::-1]
        assert wire.answer().status == 200


def test_what_is_to_be_closed_is_closed(directory: Path, data: bytes) -> None:
    with embedded(directory) as server, server.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", "/file/image", "Connection: close"))
        time.sleep(0.3)
        wire.send(wire.head("GET", "/process"))  # which must not cost the end of the first
        assert wire.answer().body == data
        assert wire.at_end()


# How they end


def test_a_client_that_leaves_is_noticed(directory: Path) -> None:
    image = directory / "image"
    with embedded(directory) as server:
        with waiting(server, 5):
            wait_until(lambda: links(server, image) == 1)
        wait_until(lambda: links(server, image) == 0)
        wait_until(lambda: server.log.count("GET /file/image: answer cut short") == 5)
        assert len([event for event in server.events if event.endswith("False")]) == 5


def test_a_client_that_resets_is_noticed(directory: Path) -> None:
    with embedded(directory) as server, waiting(server, 1) as wires:
        wires[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wires[0].sock.close()
        server.wait_for_log("GET /file/image: answer cut short")


def trickle(wire: Wire, rate: int, seconds: float) -> bytes:
    """Read at so many bytes a second for a while."""
    started, got = time.monotonic(), b""
    while (passed := time.monotonic() - started) < seconds:
        if len(got) < rate * passed:
            got += wire.sock.recv(min(16384, rate))
        else:
            time.sleep(0.01)
    return got


def test_who_takes_too_little_is_given_up(directory: Path) -> None:
    """Something in every window, but less than the least: an idle time-out would never end."""
    with embedded(directory, "stall_timeout=1", "minimum_rate=1000000") as server:
        with waiting(server, 1) as wires, contextlib.suppress(ConnectionError):
            trickle(wires[0], 200_000, 5.0)
        server.wait_for_log("the peer took less than 1000000 bytes a second for 1")


def test_who_takes_enough_is_not(directory: Path, data: bytes) -> None:
    with (
        embedded(directory, "stall_timeout=1", "minimum_rate=100000") as server,
        waiting(server, 1) as wires,
    ):
        wire = wires[0]
        head, _, begun = wire.buffered().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        got = begun + trickle(wire, 1_000_000, 4.0)
        while len(got) < SIZE:
            got += wire.sock.recv(MIB)
        assert got == data


def test_a_truncated_file_ends_its_download_alone(directory: Path, data: bytes) -> None:
    with (
        embedded(directory) as server,
        waiting(server, 1) as short,
        waiting(server, 1, "/file/other") as whole,
    ):
        os.truncate(directory / "image", 10 * MIB)
        answer = short[0].answer()
        assert not answer.whole
        assert data.startswith(answer.body)
        assert whole[0].answer().body == data[::-1]
        server.wait_for_log("the file ended")


def test_sigterm_lets_them_finish_and_says_how_many(directory: Path, data: bytes) -> None:
    with embedded(directory) as server, waiting(server, 3) as wires:
        os.kill(server.pid, signal.SIGTERM)
        server.wait_for_log("stopping: 3 requests in flight")
        assert all(wire.answer().body == data for wire in wires)
        assert server.process.wait(30) == 0


def test_the_drain_timeout_cuts_them(directory: Path) -> None:
    with embedded(directory, "drain_timeout=0.5") as server, waiting(server, 3) as wires:
        os.kill(server.pid, signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert not any(wire.answer().whole for wire in wires)
        assert "stopping: cut 3 requests short" in server.log


# Ways and paces


def test_they_leave_by_sendfile(directory: Path, data: bytes) -> None:
    """By strace's word: nothing but the heads is copied."""
    trace = directory / "trace"
    tracer = strace.command(require_strace(), trace)
    with embedded(directory, under=tracer) as server:
        with waiting(server, 3) as wires:
            assert all(wire.answer().body == data for wire in wires)
        assert server.stop() == 0
    carried = strace.on_sockets(trace).bytes
    assert carried["sendfile"] == 3 * SIZE
    assert carried.total() - carried["sendfile"] < 64 * 1024


def test_where_sendfile_is_refused_they_are_copied(directory: Path, data: bytes) -> None:
    tracer = [require_strace(), "-f", "-qq", "-o", os.devnull, "-e", "trace=sendfile"]
    with (
        embedded(directory, under=[*tracer, "-e", "inject=sendfile:error=EINVAL"]) as server,
        waiting(server, 2) as wires,
    ):
        assert all(wire.answer().body == data for wire in wires)


@pytest.mark.parametrize("limit", ["rate=8000000", "total_rate=16000000"])
def test_they_can_be_paced(directory: Path, data: bytes, limit: str) -> None:
    """Two of them, each at 8 MB/s, but for what the first turn and the kernel's buffers hold."""
    with embedded(directory, limit, "turn=262144") as server, waiting(server, 2) as wires:
        started = time.monotonic()
        got = [b"", b""]
        for wire in wires:
            wire.sock.setblocking(False)
        while time.monotonic() - started < 1.5:
            for number, wire in enumerate(wires):
                with contextlib.suppress(BlockingIOError):
                    got[number] += wire.sock.recv(MIB)
            time.sleep(0.005)
        for each in got:
            assert 3_000_000 < len(each) < 8_000_000 * 1.5 + 4_000_000
        for wire in wires:
            wire.sock.setblocking(True)
        assert server.ask("GET", "/process")


# Files that are not in memory


def drop(path: Path) -> None:
    """Skip where the tests' directory is in memory, or where the file system does not say."""
    with path.open("rb") as file:
        try:
            cache.drop(file.fileno(), path.name)
        except ClientError as error:
            require(False, f"needs a directory on a disk: {error}")


def slow_disk(trace: Path) -> list[str]:
    """strace's words to have every touch of a page that is to be read in take half a second.

    That is the only use of pread64 on an image here: the loop and sendfile have none.
    """
    tracer = [require_strace(), "-f", "-qq", "-y", "-o", str(trace), "-e", "trace=pread64"]
    return [*tracer, "-e", "inject=pread64:delay_enter=500000"]


@pytest.fixture(params=[True, False], ids=["cachestat", "samples"])
def kernel(request: pytest.FixtureRequest) -> list[str]:
    """What to run a program under for a kernel that says what is in memory, or does not."""
    return [] if request.param else [sys.executable, "-m", "tests.deploy.without", "cachestat"]


def test_a_cold_file_is_read_in(directory: Path, data: bytes) -> None:
    with embedded(directory, f"read_ahead={MIB}") as server:
        drop(directory / "image")
        with server.connect() as wire:
            assert wire.request("GET", "/file/image").body == data


def test_a_cold_file_holds_up_nobody(directory: Path, data: bytes, kernel: list[str]) -> None:
    trace = directory / "trace"
    with embedded(directory, f"read_ahead={MIB}", under=[*slow_disk(trace), *kernel]) as server:
        with server.connect() as wire:
            assert wire.request("GET", "/file/other").body == data[::-1]  # now it is hot
        drop(directory / "image")
        with server.connect() as cold:
            cold.send(cold.head("GET", "/file/image"))
            cold.read_head()
            with server.connect() as hot:
                assert hot.request("GET", "/file/other").body == data[::-1]
            # Eight touches of 128 KiB come before its first byte, half a second each.
            assert cold.buffered() == b""
            assert not select.select([cold.sock], [], [], 0)[0]
        server.wait_for_log("GET /file/image: answer cut short")
        assert server.ask("GET", "/process")
    touched = [line for line in trace.read_text().splitlines() if "/image>" in line]
    assert any("pread64" in line for line in touched)
    assert not [line for line in trace.read_text().splitlines() if "/other>" in line]


def share(path: Path) -> float:
    """How much of a file is in memory."""
    with path.open("rb") as file:
        found = cache.resident(file.fileno())
    assert found is not None
    return found


def test_a_cold_file_leaves_memory_behind_its_download(directory: Path, data: bytes) -> None:
    with embedded(directory, f"read_ahead={MIB}", f"drop_behind={SIZE}") as server:
        drop(directory / "image")
        for _ in range(2):
            # What waits in a client's receive buffer on the same machine is still the file's pages.
            with server.connect(receive_buffer=MIB) as wire:
                assert wire.request("GET", "/file/image").body == data
            wait_until(lambda: share(directory / "image") < 0.25)


@pytest.mark.parametrize("least", [0, SIZE + 1])
def test_a_file_that_is_not_so_large_stays_in_memory(directory: Path, least: int) -> None:
    with embedded(directory, f"read_ahead={MIB}", f"drop_behind={least}") as server:
        drop(directory / "image")
        with server.connect() as wire:
            wire.request("GET", "/file/image")
        assert share(directory / "image") > 0.9


def test_what_was_in_memory_before_stays_there(directory: Path) -> None:
    with embedded(directory, f"drop_behind={MIB}") as server:
        (directory / "image").read_bytes()
        with server.connect() as wire:
            wire.request("GET", "/file/image")
        assert share(directory / "image") > 0.9


def test_a_file_that_others_fetch_stays_in_memory(directory: Path, data: bytes) -> None:
    with embedded(directory, f"read_ahead={MIB}", f"drop_behind={MIB}") as server:
        drop(directory / "image")
        with waiting(server, 3) as wires:
            assert wires[0].answer().body == data
            assert share(directory / "image") > 0.8
            assert wires[1].answer().body == data


def test_a_file_is_read_in_as_far_as_its_client_gets(directory: Path) -> None:
    """Window after window, each ahead of its turn."""
    trace = directory / "trace"
    tracer = [require_strace(), "-f", "-qq", "-y", "-o", str(trace), "-e", "trace=pread64"]
    with embedded(directory, f"read_ahead={MIB}", f"turn={MIB}", under=tracer) as server:
        drop(directory / "image")
        with server.connect() as wire:
            assert len(wire.request("GET", "/file/image").body) == SIZE
        assert server.stop() == 0
    touched = re.findall(r"pread64\(\d+<[^>]*/image>.*, (\d+)\) = 1", trace.read_text())
    assert int(touched[0]) == 0
    assert [int(each) for each in touched] == sorted(int(each) for each in touched)
