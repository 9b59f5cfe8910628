"""Hashes computed behind a writer."""

import hashlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread, active_count

import pytest

from headrace import errors
from headrace.transfer import digest
from headrace.transfer.digest import Follower
from headrace.transfer.engine import FileSink, pump_all

MIB = 1 << 20
CONTENT = random.Random(42).randbytes(5 * MIB + 321)
ALGORITHMS = ["md5", "sha256", "sha512"]


def expected(content: bytes) -> dict[str, str]:
    return {name: hashlib.new(name, content).hexdigest() for name in ALGORITHMS}


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("step", [1, 1000, 256 << 10, MIB, 3 * MIB])
def test_a_file_is_hashed_while_it_is_written(fd: int, step: int) -> None:
    content = CONTENT if step > 1 else CONTENT[:3000]
    follower = Follower(fd, ALGORITHMS)
    for at in range(0, len(content), step):
        landed = at + os.pwrite(fd, content[at : at + step], at)
        follower.advance(landed)
    assert follower.finish(len(content)) == expected(content)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, len(CONTENT)])
@pytest.mark.parametrize("algorithms", [ALGORITHMS, ["sha512"], []])
def test_a_file_that_is_there_already(fd: int, size: int, algorithms: list[str]) -> None:
    os.pwrite(fd, CONTENT, 0)
    digests = Follower(fd, algorithms).finish(size)
    assert digests == {name: expected(CONTENT[:size])[name] for name in algorithms}


def test_it_fits_a_pump(fd: int) -> None:
    follower = Follower(fd, ALGORITHMS)
    pieces = [CONTENT[at : at + MIB] for at in range(0, len(CONTENT), MIB)]
    moved = pump_all(pieces, FileSink(fd), progress=follower.advance)
    assert follower.finish(moved.bytes) == expected(CONTENT)
    assert os.lseek(fd, 0, os.SEEK_CUR) == 0


def test_many_at_once(tmp_path: Path) -> None:
    results: list[dict[str, str]] = []

    def upload(index: int) -> None:
        fd = os.open(tmp_path / str(index), os.O_RDWR | os.O_CREAT)
        follower = Follower(fd, ALGORITHMS)
        for at in range(0, len(CONTENT), MIB):
            follower.advance(at + os.pwrite(fd, CONTENT[at : at + MIB], at))
        results.append(follower.finish(len(CONTENT)))
        os.close(fd)

    uploads = [Thread(target=upload, args=(index,)) for index in range(8)]
    for thread in uploads:
        thread.start()
    for thread in uploads:
        thread.join(60)
    assert results == [expected(CONTENT)] * 8


def test_digests_may_be_asked_for_again(fd: int) -> None:
    os.pwrite(fd, CONTENT, 0)
    follower = Follower(fd, ALGORITHMS)
    assert follower.finish(len(CONTENT)) == follower.finish(len(CONTENT)) == expected(CONTENT)


@pytest.mark.parametrize("written", [0, 1000, 3 * MIB])
def test_a_shorter_file_is_no_digest(fd: int, written: int) -> None:
    os.pwrite(fd, CONTENT[:written], 0)
    follower = Follower(fd, ALGORITHMS)
    follower.advance(written)
    with pytest.raises(errors.FileTruncated) as caught:
        follower.finish(len(CONTENT))
    assert caught.value.fields == {"missing": len(CONTENT) - written, "moved": written}


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "image", os.O_WRONLY | os.O_CREAT)
    os.pwrite(fd, CONTENT, 0)
    follower = Follower(fd, ALGORITHMS)
    follower.advance(len(CONTENT))
    with pytest.raises(errors.TransferError):
        follower.finish(len(CONTENT))
    os.close(fd)


@pytest.mark.parametrize("landed", [0, 3 * MIB])
@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_a_thread_without_memory_is_no_digest(
    fd: int, landed: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_BUFFER", 1 << 55)  # more than there can be
    os.pwrite(fd, CONTENT, 0)
    follower = Follower(fd, ALGORITHMS)
    follower.advance(min(landed, size))
    with pytest.raises(errors.TransferError, match="MemoryError"):
        follower.finish(size)
    follower.stop()


def test_a_digest_of_less_is_not_given_for_more(fd: int) -> None:
    os.pwrite(fd, CONTENT, 0)
    follower = Follower(fd, ["md5"])
    follower.finish(3 * MIB)
    with pytest.raises(errors.TransferError, match="of 3145728 bytes, not of 3145729"):
        follower.finish(3 * MIB + 1)


def test_an_unknown_algorithm_is_told_at_once(fd: int) -> None:
    with pytest.raises(ValueError, match="md6"):
        Follower(fd, ["md6"])


@pytest.mark.parametrize("landed", [0, 10, 3 * MIB])
def test_it_can_be_stopped_at_any_time(fd: int, landed: int) -> None:
    before = active_count()
    os.pwrite(fd, CONTENT, 0)
    follower = Follower(fd, ALGORITHMS)
    follower.advance(landed)
    follower.stop()
    follower.stop()
    assert active_count() == before
    follower.advance(len(CONTENT))
    assert active_count() == before
    with pytest.raises(RuntimeError, match="stopped"):
        follower.finish(len(CONTENT))


def test_stopping_does_not_wait_for_what_has_landed(fd: int) -> None:
    before = active_count()
    size = 32 << 30  # some 15 s of hashing at least
    os.ftruncate(fd, size)
    follower = Follower(fd, ["sha256"])
    follower.advance(size)
    follower.stop()
    assert active_count() == before


def test_it_can_be_stopped_when_finished(fd: int) -> None:
    os.pwrite(fd, CONTENT, 0)
    follower = Follower(fd, ALGORITHMS)
    assert follower.finish(len(CONTENT)) == expected(CONTENT)
    follower.stop()


def bytes_read() -> int:
    """What this process has read by system calls."""
    counters = Path("/proc/self/io").read_text().split()
    return int(counters[counters.index("rchar:") + 1])


def test_it_keeps_up_with_the_writer(fd: int) -> None:
    """What has landed is read before the end is known, and not again: it may vanish."""
    follower = Follower(fd, ["sha256"])
    os.pwrite(fd, CONTENT, 0)
    before = bytes_read()
    follower.advance(len(CONTENT))
    deadline = time.monotonic() + 60
    while bytes_read() < before + len(CONTENT) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.ftruncate(fd, 0)
    assert follower.finish(len(CONTENT))["sha256"] == expected(CONTENT)["sha256"]
