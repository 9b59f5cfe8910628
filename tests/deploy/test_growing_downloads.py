"""Downloads of files that are still being filled, on the embedded server."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contract.transfer.ends import meanwhile
from tests.deploy.embedded import Embedded, embedded, wait_until
from tests.deploy.test_transfer_loop import links
from tests.deploy.wire import Answer, Wire
from tests.fills import Fill
from tests.needs import require_strace
from tools import strace

MIB = 1 << 20
SIZE = 12 * MIB + 345
TARGET = f"/growing/entry?size={SIZE}"
RANGE = (5_000_001, 3_000_000)
CLIENTS = 20


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def directory(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "content").write_bytes(data)
    return tmp_path


@pytest.fixture
def fill(directory: Path) -> Iterator[Fill]:
    with Fill(directory / "entry") as fill:
        yield fill


@contextlib.contextmanager
def begun(server: Embedded, targets: Sequence[str], **how: int) -> Iterator[list[Wire]]:
    """Downloads of which the head is here."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(server.connect(**how)) for _ in targets]
        for wire, target in zip(wires, targets, strict=True):
            wire.send(wire.head("GET", target))
        for wire in wires:
            wire.wait_for_head()
        yield wires


def answers(wires: Sequence[Wire]) -> list[Answer]:
    """All of them, each read by a thread."""
    with ThreadPoolExecutor(len(wires)) as threads:
        return list(threads.map(Wire.answer, wires))


def slowly(fill: Fill, data: bytes, end: Callable[[], None]) -> Callable[[], None]:
    """Fills the rest, a piece every few milliseconds."""

    def go_on() -> None:
        fill.land_slowly(data[fill.landed :], 500_009, 0.01)
        end()

    return go_on


def test_many_are_served_from_what_lands(directory: Path, data: bytes, fill: Fill) -> None:
    """Whole ones and ranges, begun before anything has landed; one descriptor and no threads."""
    offset, length = RANGE
    part = f"{TARGET}&offset={offset}&length={length}"
    with (
        embedded(directory, "threads=2") as server,
        begun(server, [TARGET, part] * CLIENTS) as wires,
    ):
        wait_until(lambda: links(server, directory / "entry") == 1)
        assert server.ask("GET", "/process")
        with meanwhile(slowly(fill, data, fill.verify)):
            found = answers(wires)
        assert all(answer.body == data for answer in found[::2])
        assert all(answer.body == data[offset : offset + length] for answer in found[1::2])
        wait_until(lambda: links(server, directory / "entry") == 0)
        assert "cut short" not in server.log
        for wire in wires[:2]:
            assert wire.request("GET", TARGET).body == data, "the connection is kept"


def test_the_last_byte_waits_for_the_verification(directory: Path, data: bytes, fill: Fill) -> None:
    with embedded(directory) as server, begun(server, [TARGET]) as (wire,):
        fill.land(data)
        head, _, got = wire.buffered().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        while len(got) < SIZE - 1:
            got += wire.sock.recv(MIB)
        wire.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.sock.recv(1)
        wire.sock.settimeout(30)
        fill.verify()
        assert got + wire.sock.recv(2) == data


def test_a_bad_fill_is_answered_by_closing(directory: Path, data: bytes, fill: Fill) -> None:
    with embedded(directory) as server, begun(server, [TARGET] * 5) as wires:
        with meanwhile(slowly(fill, data, fill.fail)):
            found = answers(wires)
        assert not any(answer.whole for answer in found)
        assert all(data.startswith(answer.body) for answer in found)
        assert all(wire.at_end() for wire in wires)
        cut = "GET /growing/entry: answer cut short after"
        wait_until(lambda: server.log.count(cut) == 5)
        assert server.log.count("did not arrive from its store: it was given up") == 5
        assert "Traceback" not in server.log
        assert links(server, directory / "entry") == 0


def test_what_failed_before_the_head_is_an_answer(directory: Path, fill: Fill) -> None:
    fill.fail()
    with embedded(directory) as server, server.connect() as wire:
        wire.send(wire.head("GET", TARGET))
        assert wire.answer().status == 503


def test_a_small_one_holds_no_thread(directory: Path, data: bytes, fill: Fill) -> None:
    """Though it would leave in one piece with its head."""
    with (
        embedded(directory, "threads=1") as server,
        begun(server, ["/growing/entry?size=9000"] * 2) as wires,
    ):
        assert server.ask("GET", "/process")
        fill.land(data[:9000])
        fill.verify()
        assert [answer.body for answer in answers(wires)] == [data[:9000]] * 2


def test_waiting_is_not_the_peers_fault(directory: Path, data: bytes, fill: Fill) -> None:
    with (
        embedded(directory, "stall_timeout=1", "minimum_rate=100000") as server,
        begun(server, [TARGET]) as wires,
    ):
        fill.land(data[: 2 * MIB])

        def go_on() -> None:
            time.sleep(2.5)
            fill.land(data[2 * MIB :])
            fill.verify()

        with meanwhile(go_on):
            assert answers(wires)[0].body == data
        assert "cut short" not in server.log


def test_a_peer_that_takes_nothing_is_given_up(directory: Path, data: bytes, fill: Fill) -> None:
    with (
        embedded(directory, "stall_timeout=1") as server,
        begun(server, [TARGET], receive_buffer=65536),
    ):
        fill.land(data)
        server.wait_for_log("the peer moved nothing for 1 s")
        wait_until(lambda: links(server, directory / "entry") == 0)


def test_a_fill_that_stands_still_is_given_up(directory: Path, data: bytes, fill: Fill) -> None:
    with embedded(directory) as server, begun(server, [f"{TARGET}&stall=0.5"]) as wires:
        fill.land(data[:MIB])
        (answer,) = answers(wires)
        assert (answer.whole, answer.body) == (False, data[:MIB])
        server.wait_for_log("nothing landed for 0.5 s")


def test_it_holds_up_nobody(directory: Path, data: bytes, fill: Fill) -> None:
    with embedded(directory, "threads=1") as server, begun(server, [TARGET] * 3):
        fill.land(data[:MIB])
        with server.connect(receive_buffer=65536) as wire:
            wire.send(wire.head("GET", "/file/content"))
            wire.wait_for_head()
            time.sleep(0.2)
            assert wire.answer().body == data


def test_who_leaves_meanwhile_is_noticed(directory: Path, data: bytes, fill: Fill) -> None:
    """At once if it resets, else with the next bytes; the others get theirs."""
    with embedded(directory) as server, begun(server, [TARGET] * 3) as wires:
        wires[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wires[0].sock.close()
        server.wait_for_log("GET /growing/entry: answer cut short after 0 bytes")
        wires[1].sock.close()
        with meanwhile(slowly(fill, data, fill.verify)):
            assert wires[2].answer().body == data
        wait_until(lambda: server.log.count("answer cut short") == 2)
        wait_until(lambda: links(server, directory / "entry") == 0)


def test_who_fills_and_dies_is_replaced(directory: Path, data: bytes, fill: Fill) -> None:
    with embedded(directory) as server, begun(server, [f"{TARGET}&content=content"] * 5) as wires:
        fill.land(data[: 3 * MIB])
        fill.abandon()
        assert all(answer.body == data for answer in answers(wires))
        assert server.events.count("revived") == 1


@pytest.mark.parametrize(
    "options",
    [
        ("turn=65536", "rate=40000000"),
        (f"read_ahead={MIB}", f"drop_behind={MIB}"),
        ("turn=65536", "total_rate=80000000", f"drop_behind={MIB}", "unsent=0"),
    ],
    ids=["paced", "dropped behind", "both"],
)
def test_whatever_the_loop_is_told(
    directory: Path, data: bytes, fill: Fill, options: tuple[str, ...]
) -> None:
    with embedded(directory, *options) as server, begun(server, [TARGET] * 3) as wires:
        fill.land(data[: 4 * MIB])
        os.fsync(fill.fd)
        os.posix_fadvise(fill.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        with meanwhile(slowly(fill, data, fill.verify)):
            assert all(answer.body == data for answer in answers(wires))


def test_it_leaves_by_sendfile_while_it_grows(directory: Path, data: bytes, fill: Fill) -> None:
    """By strace's word: nothing but the heads is copied."""
    trace = directory / "trace"
    with embedded(directory, under=strace.command(require_strace(), trace)) as server:
        with begun(server, [TARGET] * 3) as wires, meanwhile(slowly(fill, data, fill.verify)):
            assert all(answer.body == data for answer in answers(wires))
        assert server.stop() == 0
    carried = strace.on_sockets(trace)
    assert carried.bytes["sendfile"] == 3 * SIZE
    assert carried.bytes.total() - carried.bytes["sendfile"] < 64 * 1024
    assert carried.calls["sendfile"] > 3 * 10, "it grew meanwhile"


def test_one_look_serves_all(directory: Path, data: bytes, fill: Fill) -> None:
    """Waiting costs what one waiting costs: a loop looks once a turn, however many wait."""
    trace = directory / "trace"
    words = [require_strace(), "-f", "-qq", "-y", "-o", str(trace)]
    calls = "trace=fstat,newfstatat,epoll_wait,epoll_pwait"

    def counted() -> tuple[int, int]:
        """Looks at the file, and waits of which each ends a loop's turn."""
        text = trace.read_text()
        return text.count("/entry>"), text.count("epoll_wait(") + text.count("epoll_pwait(")

    with (
        embedded(directory, "threads=2", under=[*words, "-e", calls]) as server,
        begun(server, [TARGET] * CLIENTS),
    ):
        wait_until(lambda: links(server, directory / "entry") == 1)
        begun_looks, begun_waits = counted()
        wait_until(lambda: counted()[0] > begun_looks + 50)
        looks, waits = counted()
    assert looks - begun_looks < 2 * (waits - begun_waits)
