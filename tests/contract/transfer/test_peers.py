"""Peers as they are: slow, interrupted, stalled, gone."""

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from headrace import errors
from headrace.transfer.engine import Extent, FileSink, Stream, pump
from tests.contract.transfer.ends import (
    HANG,
    PAIRS,
    everything,
    file_with,
    meanwhile,
    opened,
)

MIB = 1 << 20
CONTENT = os.urandom(4 * MIB)
STALL = 0.5

pairs = pytest.mark.parametrize("pair", PAIRS)


def shrink(*socks: socket.socket) -> None:
    """Give sockets small buffers, for short counts and EAGAIN all the way."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_000)


def sip(sock: socket.socket, size: int = 1000) -> bytes:
    """All that a socket gives, in small reads with pauses."""
    content = bytearray()
    while data := sock.recv(size):
        content += data
        if len(content) % 7 == 0:
            time.sleep(0.0005)
    return bytes(content)


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """Signals every 2 ms, handled in Python."""
    heard: list[int] = []
    former = signal.signal(signal.SIGALRM, lambda number, _: heard.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    yield heard
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


@pairs
def test_a_slow_reader_and_signals(ways: str, pair: str, alarms: list[int]) -> None:
    content = CONTENT[:300_000]
    ours, theirs = PAIRS[pair]()
    shrink(ours, theirs)
    read: list[bytes] = []
    with (
        theirs,
        opened(fd := file_with(content)),
        meanwhile(lambda: read.append(sip(theirs))),
        ours,
    ):
        moved = pump(Extent(fd, 0, len(content)), Stream(ours.fileno(), stall=HANG))
    assert read == [content]
    assert moved.bytes == len(content)
    assert alarms


@pairs
def test_a_slow_writer_and_signals(ways: str, pair: str, alarms: list[int]) -> None:
    content = CONTENT[:300_000]
    ours, theirs = PAIRS[pair]()
    shrink(ours, theirs)

    def drip() -> None:
        for start in range(0, len(content), 3000):
            theirs.sendall(content[start : start + 3000])
            time.sleep(0.001)

    with ours, theirs, opened(fd := file_with(b"")):
        with meanwhile(drip):
            moved = pump(Stream(ours.fileno(), len(content), HANG), FileSink(fd))
        assert everything(fd) == content
    assert moved.bytes == len(content)
    assert alarms


@pairs
def test_a_big_body_by_a_writer_slower_than_a_batch(ways: str, pair: str) -> None:
    """Less than what the reader would like to be woken for arrives within the stall limit."""
    content = CONTENT[: 2 * MIB]
    ours, theirs = PAIRS[pair]()

    def drip() -> None:
        theirs.sendall(content[:MIB])
        for start in range(MIB, 2 * MIB, MIB // 16):
            time.sleep(STALL / 10)
            theirs.sendall(content[start : start + MIB // 16])

    with ours, theirs, opened(fd := file_with(b"")):
        with meanwhile(drip):
            pump(Stream(ours.fileno(), len(content), STALL), FileSink(fd))
        assert everything(fd) == content
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


@pairs
def test_a_reader_that_stalls(ways: str, pair: str) -> None:
    ours, theirs = PAIRS[pair]()
    shrink(ours, theirs)
    with ours, theirs, opened(fd := file_with(CONTENT)):
        extent = Extent(fd, 0, len(CONTENT))
        with pytest.raises(errors.PeerStalled) as caught:
            pump(extent, Stream(ours.fileno(), stall=STALL))
    assert caught.value.fields == {"seconds": STALL, "moved": extent.sent}
    assert 0 < extent.sent < len(CONTENT)


@pairs
@pytest.mark.parametrize("announced", [300_000, 4 * MIB, None])
def test_a_writer_that_stalls(ways: str, pair: str, announced: int | None) -> None:
    """What it sent before has landed, however little."""
    ours, theirs = PAIRS[pair]()
    with ours, theirs, opened(fd := file_with(b"")):
        with (
            meanwhile(lambda: theirs.sendall(CONTENT[:200_000])),
            pytest.raises(errors.PeerStalled) as caught,
        ):
            pump(Stream(ours.fileno(), announced, STALL), FileSink(fd))
        assert caught.value.fields == {"seconds": STALL, "moved": 200_000}
        assert everything(fd) == CONTENT[:200_000]


@pytest.mark.parametrize("end", ["socket", "file"])
def test_a_pipe_that_stalls(ways: str, end: str) -> None:
    outlet, inlet = os.pipe()
    ours, theirs = PAIRS["tcp"]()
    with opened(outlet, inlet, fd := file_with(b"")), ours, theirs:
        os.write(inlet, CONTENT[:10_000])
        sink = FileSink(fd) if end == "file" else Stream(ours.fileno(), stall=HANG)
        with pytest.raises(errors.PeerStalled) as caught:
            pump(Stream(outlet, 20_000, STALL), sink)
    assert caught.value.fields == {"seconds": STALL, "moved": 10_000}


def test_a_full_pipe_that_nobody_reads() -> None:
    """On splice only: a blocking write to a pipe cannot be bounded."""
    outlet, inlet = os.pipe()
    ours, theirs = PAIRS["tcp"]()
    with opened(outlet, inlet, fd := file_with(CONTENT)), ours, theirs:
        with pytest.raises(errors.PeerStalled):
            pump(Extent(fd, 0, len(CONTENT)), Stream(inlet, stall=STALL))
        with meanwhile(lambda: theirs.sendall(CONTENT[:10_000])), pytest.raises(errors.PeerStalled):
            pump(Stream(ours.fileno(), 10_000, HANG), Stream(inlet, stall=STALL))


@pairs
def test_a_reader_behind_a_pipe_that_stalls(ways: str, pair: str) -> None:
    outlet, inlet = os.pipe()
    ours, theirs = PAIRS[pair]()
    shrink(ours, theirs)

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), open(inlet, "wb") as pipe:
            pipe.write(CONTENT)

    with meanwhile(feed), ours, theirs, opened(outlet), pytest.raises(errors.PeerStalled):
        pump(Stream(outlet, stall=HANG), Stream(ours.fileno(), stall=STALL))


@pairs
def test_a_writer_before_a_pipe_that_stalls(ways: str, pair: str) -> None:
    outlet, inlet = os.pipe()
    ours, theirs = PAIRS[pair]()
    with ours, theirs, opened(outlet, inlet):
        theirs.sendall(CONTENT[:10_000])
        with pytest.raises(errors.PeerStalled) as caught:
            pump(Stream(ours.fileno(), 20_000, STALL), Stream(inlet, stall=HANG))
        assert os.read(outlet, 20_000) == CONTENT[:10_000]
    assert caught.value.fields == {"seconds": STALL, "moved": 10_000}


@pairs
@pytest.mark.parametrize("reset", [False, True])
def test_a_reader_that_goes_away(ways: str, pair: str, reset: bool) -> None:
    ours, theirs = PAIRS[pair]()

    def leave() -> None:
        theirs.recv(100_000, socket.MSG_WAITALL)
        if reset:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()

    content = CONTENT * 8
    with ours, opened(fd := file_with(content)), meanwhile(leave):
        extent = Extent(fd, 0, len(content))
        with pytest.raises(errors.PeerGone) as caught:
            pump(extent, Stream(ours.fileno(), stall=HANG))
    assert caught.value.fields == {"moved": extent.sent}
    assert 100_000 <= extent.sent < len(content)


@pairs
def test_a_writer_that_resets(ways: str, pair: str) -> None:
    ours, theirs = PAIRS[pair]()

    def leave() -> None:
        theirs.sendall(CONTENT[:100_000])
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()

    with ours, opened(fd := file_with(b"")):
        with meanwhile(leave), pytest.raises(errors.PeerGone) as caught:
            pump(Stream(ours.fileno(), len(CONTENT), HANG), FileSink(fd))
        assert everything(fd) == CONTENT[: int(str(caught.value.fields["moved"]))]


def test_a_reader_of_a_pipe_that_goes_away(ways: str) -> None:
    outlet, inlet = os.pipe()
    os.close(outlet)
    with opened(inlet, fd := file_with(CONTENT)), pytest.raises(errors.PeerGone):
        pump(Extent(fd, 0, len(CONTENT)), Stream(inlet))
