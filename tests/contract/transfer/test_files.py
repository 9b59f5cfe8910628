"""Files as they are: sparse, huge, sharing blocks."""

import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.transfer.engine import Extent, FileSink, How, Moved, Stream, pump
from tests.contract.transfer.ends import (
    HANG,
    SOURCES,
    everything,
    file_with,
    meanwhile,
    opened,
    tcp_pair,
)
from tests.needs import require, require_command, require_root

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# What lies where the counters of the kernel and of C end: MAX_RW_COUNT, int, unsigned.
HUGE = 4 * GIB + 5 * MIB
ISLANDS = {
    at: os.urandom(8 * KIB) for at in (0, 2 * GIB - 5 * KIB, 4 * GIB - 4 * KIB, HUGE - 8 * KIB)
}


def in_memory(size: int, islands: dict[int, bytes]) -> int:
    """A sparse file whose holes take no page cache when they are read."""
    return made_sparse(os.memfd_create("sparse"), size, islands)


def sparse(size: int, islands: dict[int, bytes]) -> int:
    return made_sparse(file_with(b""), size, islands)


def made_sparse(fd: int, size: int, islands: dict[int, bytes]) -> int:
    os.truncate(fd, size)
    for at, data in islands.items():
        os.pwrite(fd, data, at)
    return fd


def islands(fd: int) -> dict[int, bytes]:
    """What is not zero in a file, by position, blockwise."""
    found = {}
    for at in ISLANDS:
        found[at] = os.pread(fd, 8 * KIB, at)
    return found


def occupied(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def receive(sock: socket.socket) -> tuple[int, dict[int, bytes]]:
    """How much comes, and what of it is not zero by position."""
    found: dict[int, bytes] = {}
    position = 0
    buffer = memoryview(bytearray(MIB))
    zeros = bytes(MIB)
    while count := sock.recv_into(buffer):
        if not zeros.startswith(buffer[:count]):
            found[position] = bytes(buffer[:count])
        position += count
    return position, found


def flattened(found: dict[int, bytes], at: int, size: int) -> bytes:
    """The ``size`` bytes from ``at`` on of what was received."""
    whole = bytearray(size)
    for position, data in found.items():
        start, end = max(position, at), min(position + len(data), at + size)
        if start < end:
            whole[start - at : end - at] = data[start - position : end - position]
    return bytes(whole)


@pytest.mark.slow
def test_a_huge_file_into_a_socket(ways: str) -> None:
    ours, theirs = tcp_pair()
    got: list[tuple[int, dict[int, bytes]]] = []
    with (
        opened(fd := in_memory(HUGE, ISLANDS)),
        theirs,
        meanwhile(lambda: got.append(receive(theirs))),
        ours,
    ):
        moved = pump(Extent(fd, 0, HUGE), Stream(ours.fileno(), stall=HANG))
    [(size, found)] = got
    assert (moved.bytes, size) == (HUGE, HUGE)
    assert {at: flattened(found, at, 8 * KIB) for at in ISLANDS} == ISLANDS
    if ways == "linux":
        assert moved.calls >= 3, "one call moves less than 2 GiB"


def test_the_last_bytes_of_a_huge_file(ways: str) -> None:
    ours, theirs = tcp_pair()
    got: list[tuple[int, dict[int, bytes]]] = []
    at = 4 * GIB - 4 * KIB
    with (
        opened(fd := in_memory(HUGE, ISLANDS)),
        theirs,
        meanwhile(lambda: got.append(receive(theirs))),
        ours,
    ):
        pump(Extent(fd, at, HUGE - at), Stream(ours.fileno(), stall=HANG))
    [(size, found)] = got
    assert size == HUGE - at
    assert flattened(found, 0, 8 * KIB) == ISLANDS[at]
    assert flattened(found, size - 8 * KIB, 8 * KIB) == ISLANDS[HUGE - 8 * KIB]


@pytest.mark.parametrize("source", SOURCES)
def test_a_place_beyond_4_gib_in_a_file(ways: str, source: str) -> None:
    content = os.urandom(3 * MIB)
    with opened(fd := file_with(b"")), SOURCES[source](content) as into:
        pump(into, FileSink(fd, HUGE))
        assert os.pread(fd, 4 * MIB, HUGE) == content
        assert os.fstat(fd).st_size == HUGE + 3 * MIB


def test_holes_stay_holes(ways: str) -> None:
    progress: list[int] = []
    with opened(fd := sparse(HUGE, ISLANDS), copy := file_with(b"")):
        moved = pump(Extent(fd, 0, HUGE), FileSink(copy), progress=progress.append)
        assert moved.bytes == HUGE
        assert os.fstat(copy).st_size == HUGE
        assert islands(copy) == ISLANDS
        assert occupied(copy) <= occupied(fd) + MIB
    assert progress == sorted(progress)
    assert progress[-1] == HUGE


@pytest.mark.parametrize(
    "layout",
    list(itertools.product("-#", repeat=3)),
    ids="".join,
)
def test_holes_anywhere(ways: str, layout: tuple[str, ...]) -> None:
    data = {index * MIB: os.urandom(MIB) for index, mark in enumerate(layout) if mark == "#"}
    offset, length, at = 100, 3 * MIB - 300, 5000
    with opened(fd := sparse(3 * MIB, data), copy := file_with(b"")):
        pump(Extent(fd, offset, length), FileSink(copy, at))
        assert os.lseek(fd, 0, os.SEEK_CUR) == offset, "where the extent's descriptor stands"
        assert everything(copy) == bytes(at) + everything(fd)[offset : offset + length]
        assert occupied(copy) <= len(data) * (MIB + 8 * KIB) + 64 * KIB


def test_what_a_file_has_does_not_show_through_a_hole(ways: str) -> None:
    with opened(fd := sparse(MIB, {}), used := file_with(b"x" * 2 * MIB)):
        pump(Extent(fd, 0, MIB), FileSink(used, MIB // 2))
        assert everything(used) == b"x" * (MIB // 2) + bytes(MIB) + b"x" * (MIB // 2)


def test_a_hole_is_written_out_where_all_goes_to_the_end(ways: str, tmp_path: Path) -> None:
    data = os.urandom(MIB)
    sink = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    with opened(fd := sparse(3 * MIB, {MIB: data}), sink):
        pump(Extent(fd, 0, 3 * MIB), FileSink(sink))
        assert everything(sink) == bytes(MIB) + data + bytes(MIB)


@pytest.fixture
def sharing_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that can share blocks between files."""
    require_root()
    mkfs = require_command("mkfs.xfs")
    image, directory = tmp_path / "disk", tmp_path / "mounted"
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    subprocess.run([mkfs, "-q", str(image)], check=True)
    mount = ["mount", "-o", "loop", str(image), str(directory)]
    require(subprocess.run(mount, capture_output=True).returncode == 0, "may not mount xfs")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_files_share_their_blocks_where_they_can(ways: str, sharing_disk: Path) -> None:
    content = os.urandom(32 * MIB + 100)
    with opened(fd := file_with(content, sharing_disk), copy := file_with(b"", sharing_disk)):
        moved = pump(Extent(fd, 0, len(content)), FileSink(copy))
        assert everything(copy) == content
        assert everything(fd) == content
    reflinked = Moved(len(content), 1, How.REFLINK)
    assert (moved == reflinked) is (ways == "linux")


def test_a_part_that_cannot_be_shared_is_copied(ways: str, sharing_disk: Path) -> None:
    content = os.urandom(MIB)
    with opened(fd := file_with(content, sharing_disk), copy := file_with(b"", sharing_disk)):
        moved = pump(Extent(fd, 10, MIB - 10), FileSink(copy))
        assert everything(copy) == content[10:]
    assert moved.how is (How.COPY_FILE_RANGE if ways == "linux" else How.COPY)
