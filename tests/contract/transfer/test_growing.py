"""A file sent while threads and processes fill it: what arrives is what lands, byte for byte."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.transfer.engine import SMALL, Extent, How, Moved, Sink, counters, pump, pump_all
from headrace.transfer.growing import Growing
from tests.contract.transfer.ends import HANG, SINKS, meanwhile
from tests.fills import Fill
from tools.serving import environment

ROOT = Path(__file__).parents[3]
SIZE = (5 << 20) + 12345
CONTENT = random.Random(2012).randbytes(SIZE)
BLOCK = 300_007


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "entry"


@contextlib.contextmanager
def growing_at(path: Path, size: int = SIZE) -> Iterator[Growing]:
    growing = Growing(os.open(path, os.O_RDONLY), size, str(path), stall=HANG)
    with contextlib.closing(growing):
        yield growing


def pumped(path: Path, sink: str, size: int = SIZE) -> tuple[Moved, bytes]:
    with SINKS[sink]() as (into, arrived), growing_at(path, size) as growing:
        moved = pump(growing, into)
        assert growing.sent == moved.bytes
        assert growing.way == moved.how
    return moved, arrived.content


def way_to(sink: str, ways: str) -> set[How]:
    """What carries a file of some size into a sink."""
    if ways == "portable" or sink == "object":
        return {How.COPY}
    if sink in {"file", "middle"}:
        return {How.COPY_FILE_RANGE, How.REFLINK}
    return {How.SPLICE} if sink == "pipe" else {How.SENDFILE}


@pytest.mark.parametrize("sink", SINKS)
def test_what_a_thread_fills(ways: str, path: Path, sink: str) -> None:
    fill = Fill(path)

    def go_on() -> None:
        fill.land_slowly(CONTENT, BLOCK, 0.005)
        fill.verify()

    with meanwhile(go_on):
        moved, arrived = pumped(path, sink)
    assert arrived == CONTENT
    assert moved.bytes == SIZE
    assert moved.how in way_to(sink, ways)


@pytest.mark.parametrize("sink", ["tcp", "file"])
def test_what_a_process_fills(ways: str, path: Path, tmp_path: Path, sink: str) -> None:
    (tmp_path / "content").write_bytes(CONTENT)
    with filling(path, tmp_path / "content", "verify"):
        moved, arrived = pumped(path, sink)
    assert arrived == CONTENT
    assert moved.how in way_to(sink, ways)


@contextlib.contextmanager
def filling(path: Path, content: Path, end: str) -> Iterator[None]:
    """A process that fills the file meanwhile."""
    with process_filling(path, content, BLOCK, 0.005, end) as process:
        yield
        assert process.wait(HANG) == 0


@contextlib.contextmanager
def process_filling(
    path: Path, content: Path, block: int, pause: float, end: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that has begun to."""
    words = [sys.executable, "-m", "tests.fills", path, content, str(block), str(pause), end]
    env = environment({"PYTHONPATH": f"{ROOT}/src"})
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield process


@pytest.mark.parametrize("size", [1, 4096, SMALL + 1])
def test_what_lands_byte_by_byte_goes_the_way_of_the_whole(
    ways: str, path: Path, size: int
) -> None:
    """What is small is copied; a small part of what is not is not."""
    fill = Fill(path)
    content = CONTENT[:size]
    before = counters()

    def go_on() -> None:
        for start in range(0, size, 6001):
            fill.land(content[start : start + 6001])
            time.sleep(0.01)
        fill.verify()

    with meanwhile(go_on):
        moved, arrived = pumped(path, "tcp", size)
    assert arrived == content
    carried = How.COPY if size < SMALL or ways == "portable" else How.SENDFILE
    assert moved.how is carried
    assert counters().bytes[carried] - before.bytes.get(carried, 0) == size
    assert counters().fallbacks == before.fallbacks


@pytest.mark.parametrize(("offset", "length"), [(0, 1 << 20), (3_000_001, 77), (4097, SIZE - 4097)])
def test_a_range_ends_with_what_it_needs(ways: str, path: Path, offset: int, length: int) -> None:
    """Nothing of it waits for what comes behind, nor for the verification."""
    fill = Fill(path)
    with SINKS["tcp"]() as (into, arrived), growing_at(path) as growing, fill:
        growing.narrow(offset, length)
        with meanwhile(lambda: fill.land_slowly(CONTENT[: offset + length], BLOCK, 0.002)):
            assert pump(growing, into).bytes == length
    assert arrived.content == CONTENT[offset : offset + length]


def test_a_whole_one_is_as_any_extent(ways: str, path: Path) -> None:
    fill = Fill(path)
    fill.land(CONTENT)
    fill.verify()
    with SINKS["tcp"]() as (into, arrived), growing_at(path) as growing:
        moved = pump(growing, into)
    with SINKS["tcp"]() as (into, _), contextlib.closing(Extent(growing_fd(path), 0, SIZE)) as one:
        assert pump(one, into).how == moved.how
    assert arrived.content == CONTENT


def growing_fd(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize("sink", ["tcp", "file", "object"])
def test_of_a_bad_fill_not_all_arrives(ways: str, path: Path, sink: str) -> None:
    fill = Fill(path)

    def go_on() -> None:
        fill.land_slowly(CONTENT, BLOCK, 0.002)
        time.sleep(0.05)
        fill.fail()

    with SINKS[sink]() as (into, arrived), growing_at(path) as growing:
        with meanwhile(go_on), pytest.raises(errors.FillFailed) as caught:
            pump(growing, into)
        assert caught.value.fields["moved"] == growing.sent == SIZE - 1
    assert arrived.content == CONTENT[:-1]


def test_a_file_cut_short_when_whole(ways: str, path: Path) -> None:
    fill = Fill(path)
    fill.land(CONTENT)
    fill.verify()
    with SINKS["tcp"]() as (into, _), growing_at(path) as growing:
        assert growing.available() == SIZE
        os.truncate(path, 1 << 20)
        with pytest.raises(errors.FileTruncated) as caught:
            pump(growing, into)
    assert caught.value.fields == {"missing": SIZE - (1 << 20), "moved": 1 << 20}


def test_one_too_large_is_refused_before_it_has_landed(ways: str, path: Path) -> None:
    with (
        SINKS["tcp"]() as (into, arrived),
        Fill(path),
        growing_at(path) as growing,
        pytest.raises(errors.ImageTooLarge),
    ):
        pump(growing, into, limit=SIZE - 1)
    assert arrived.content == b""


def test_it_is_a_piece_of_a_body_as_others_are(ways: str, path: Path) -> None:
    fill = Fill(path)
    seen: list[int] = []

    def go_on() -> None:
        fill.land_slowly(CONTENT, BLOCK, 0.002)
        fill.verify()

    with SINKS["file"]() as (into, arrived), growing_at(path) as growing, meanwhile(go_on):
        moved = pump_all([b"before", growing, b"after"], into, progress=seen.append)
    assert arrived.content == b"before" + CONTENT + b"after"
    assert moved.bytes == seen[-1] == SIZE + 11
    assert seen == sorted(seen)


def test_holes_stay_holes(ways: str, path: Path) -> None:
    sparse = Fill(path)
    sparse.land(CONTENT[:BLOCK])
    os.ftruncate(sparse.fd, 40 << 20)

    def go_on() -> None:
        time.sleep(0.05)
        sparse.land(CONTENT[:BLOCK])
        sparse.verify()

    size = (40 << 20) + BLOCK
    with SINKS["file"]() as (into, arrived), growing_at(path, size) as growing, meanwhile(go_on):
        pump(growing, into)
        assert blocks_of(into) < 8 << 20
    assert arrived.content == CONTENT[:BLOCK] + bytes((40 << 20) - BLOCK) + CONTENT[:BLOCK]


def blocks_of(sink: Sink) -> int:
    """Bytes of disk that a file takes."""
    return os.fstat(sink.fd).st_blocks * 512  # type: ignore[union-attr]


@pytest.mark.parametrize("at", [0, 2])
def test_who_is_killed_is_replaced(ways: str, path: Path, tmp_path: Path, at: int) -> None:
    """What was under way goes on with what the next one fills."""
    (tmp_path / "content").write_bytes(CONTENT)
    successor: list[Fill] = []

    def revive() -> None:
        if not successor:
            successor.append(Fill(path))
            successor[0].land(CONTENT[successor[0].landed :])
            successor[0].verify()

    with process_filling(path, tmp_path / "content", 1_000_000, 0.5, "fail") as process:
        while os.stat(path).st_size < at * 1_000_000:
            time.sleep(0.01)
        growing = Growing(os.open(path, os.O_RDONLY), SIZE, stall=HANG, revive=revive)
        with SINKS["tcp"]() as (into, arrived), contextlib.closing(growing):
            process.kill()
            pump(growing, into)
    assert arrived.content == CONTENT
    assert len(successor) == 1
