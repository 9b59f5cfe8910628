"""Whatever the ends and whatever the way: what goes in comes out."""

import os
import random
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.transfer.engine import (
    SMALL,
    Extent,
    FileSink,
    How,
    Moved,
    Stream,
    counters,
    pump,
    pump_all,
)
from tests.contract.transfer.ends import (
    SINKS,
    SOURCES,
    everything,
    file_with,
    meanwhile,
    opened,
    tcp_pair,
)

SIZES = [0, 1, 4095, 4096, 65537, (1 << 20) + 1, (5 << 20) + 12345]
CONTENT = random.Random(2012).randbytes(max(SIZES))

SOCKETS = {"tcp", "polled", "unix", "endless"}
FILES = {"file", "middle"}


def expected_ways(source: str, sink: str) -> set[How]:
    """What carries more than a few bytes between such ends where the kernel can do it all."""
    if source in {"bytes", "object"} or sink == "object":
        return {How.COPY}
    if source in FILES and sink in SOCKETS:
        return {How.SENDFILE}
    if source in FILES and sink in FILES:
        return {How.COPY_FILE_RANGE, How.REFLINK}
    return {How.SPLICE}


def moved_between(source: str, sink: str, content: bytes) -> tuple[Moved, bytes]:
    with ExitStack() as ends:
        into, arrived = ends.enter_context(SINKS[sink]())
        moved = pump(ends.enter_context(SOURCES[source](content)), into)
    return moved, arrived.content


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("source", SOURCES)
def test_all_bytes_arrive(ways: str, source: str, sink: str, size: int) -> None:
    moved, arrived = moved_between(source, sink, CONTENT[:size])
    assert arrived == CONTENT[:size]
    assert moved.bytes == size
    if size > SMALL:
        assert moved.how in (expected_ways(source, sink) if ways == "linux" else {How.COPY})


def test_a_small_file_is_read_and_sent(ways: str) -> None:
    moved, arrived = moved_between("file", "tcp", CONTENT[: SMALL - 1])
    assert arrived == CONTENT[: SMALL - 1]
    assert moved == Moved(SMALL - 1, 2, How.COPY)


@given(
    offset=st.integers(0, 200_000),
    length=st.integers(0, 200_000),
    at=st.integers(0, 10_000),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_part_of_a_file_to_anywhere_in_a_file(
    ways: str, offset: int, length: int, at: int
) -> None:
    source, sink = file_with(CONTENT[:400_000]), file_with(b"x" * at)
    with opened(source, sink):
        moved = pump(Extent(source, offset, length), FileSink(sink, at))
        assert everything(sink) == b"x" * at + CONTENT[offset : offset + length]
    assert moved.bytes == length


@given(
    offset=st.integers(0, 200_000),
    length=st.integers(0, 200_000),
    pieces=st.integers(1, 5),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_part_of_a_file_through_a_socket_in_pieces(
    ways: str, offset: int, length: int, pieces: int
) -> None:
    source, sink = file_with(CONTENT[:400_000]), file_with(b"")
    ours, theirs = tcp_pair()
    sizes = [length // pieces] * pieces + [length % pieces]
    with opened(source, sink), ours, theirs:
        with meanwhile(lambda: pump(Extent(source, offset, length), Stream(ours.fileno()))):
            moved = pump_all((Stream(theirs.fileno(), n) for n in sizes), FileSink(sink))
        assert everything(sink) == CONTENT[offset : offset + length]
    assert moved.bytes == length


def test_pieces_of_many_kinds_make_one_body(ways: str) -> None:
    parts = [CONTENT[:7], CONTENT[7:300_000], b"", CONTENT[300_000:2_000_000]]
    seen: list[int] = []
    with ExitStack() as ends:
        into, arrived = ends.enter_context(SINKS["file"]())
        kinds = ("bytes", "tcp", "bytes", "file")
        sources = [
            ends.enter_context(SOURCES[kind](part)) for kind, part in zip(kinds, parts, strict=True)
        ]
        moved = pump_all(sources, into, progress=seen.append)
    assert arrived.content == CONTENT[:2_000_000]
    assert moved.bytes == 2_000_000
    assert seen == sorted(seen)
    assert seen[-1] == 2_000_000


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("source", SOURCES)
def test_progress_follows_to_the_last_byte(ways: str, source: str, sink: str) -> None:
    seen: list[int] = []
    content = CONTENT[: 3 << 20]
    with ExitStack() as ends:
        into, arrived = ends.enter_context(SINKS[sink]())
        pump(ends.enter_context(SOURCES[source](content)), into, progress=seen.append)
    assert arrived.content == content
    assert seen == sorted(seen)
    assert seen[-1] == len(content)


def test_a_shared_descriptor_keeps_its_position(ways: str) -> None:
    fd = file_with(CONTENT)
    ours, theirs = tcp_pair()
    sink = file_with(b"")
    with opened(fd, sink), ours, theirs:
        extent = Extent(fd, 1000, 3 << 20)
        with meanwhile(lambda: pump(Stream(theirs.fileno(), 3 << 20), FileSink(sink))):
            pump(extent, Stream(ours.fileno()))
        assert os.lseek(fd, 0, os.SEEK_CUR) == 1000
        pump(extent, FileSink(sink, 3 << 20))
        assert os.lseek(fd, 0, os.SEEK_CUR) == 1000
        assert os.lseek(sink, 0, os.SEEK_CUR) == 0
        assert everything(sink) == CONTENT[1000 : 1000 + (3 << 20)] * 2


def test_an_appended_file_gets_the_bytes_at_its_end(ways: str) -> None:
    """The kernel splices into no such file, and finds out when the bytes are in the pipe."""
    path = f"/proc/self/fd/{(fd := file_with(b'start '))}"
    with opened(fd), opened(appending := os.open(path, os.O_RDWR | os.O_APPEND)):
        for source in ("tcp", "pipe", "file"):
            with SOURCES[source](CONTENT[: 3 << 20]) as content:
                pump(content, FileSink(appending, os.fstat(fd).st_size))
        assert everything(fd) == b"start " + CONTENT[: 3 << 20] * 3
    moved, _ = moved_between("tcp", "file", CONTENT[: 1 << 20])
    assert moved.how is (How.SPLICE if ways == "linux" else How.COPY), "one descriptor's trait"


def test_what_was_moved_is_counted(ways: str) -> None:
    before = counters()
    moved, _ = moved_between("file", "tcp", CONTENT[: 1 << 20])
    after = counters()
    assert after.bytes[moved.how] - before.bytes.get(moved.how, 0) == 1 << 20
    assert after.transfers[moved.how] - before.transfers.get(moved.how, 0) == 1
    assert after.fallbacks == before.fallbacks
