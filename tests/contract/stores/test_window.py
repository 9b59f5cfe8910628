"""What the writer of remote stores does, however its store takes the parts."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.model import MIB
from headrace.stores.filesystem import FilesystemStore, FilesystemWriter
from headrace.stores.window import HEAD, TAIL, AdoptedWindow, WindowWriter, new_window
from tests.contract.stores.parted import FileParts
from tests.contract.stores.storing import IMAGE_ID, descriptors, get, published


@pytest.fixture
def target(datadir: Path) -> Iterator[FilesystemWriter]:
    before = descriptors()
    writer = FilesystemStore("file", datadir).create(IMAGE_ID, None)
    yield writer
    writer.abort()
    assert descriptors() == before


def window(parts: FileParts, directory: Path, streams: int = 2) -> WindowWriter:
    return WindowWriter(parts, new_window(str(directory)), streams=streams)


def land(writer: WindowWriter, length: int, step: int = MIB) -> int:
    """``length`` bytes more, each MiB another; how many there are."""
    fd = writer.sink.fd
    total = os.fstat(fd).st_size
    for _ in range(0, length, step):
        os.pwrite(fd, bytes([total // MIB % 251]) * step, total)
        total += step
        writer.advance(total)
    return total


def held(writer: WindowWriter) -> int:
    """Bytes of disk that the window takes."""
    return os.fstat(writer.sink.fd).st_blocks * 512


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 199, 200, 201, 350])
def test_parts_follow_one_another_and_only_the_end_is_the_last(
    target: FilesystemWriter, tmp_path: Path, size: int
) -> None:
    parts = FileParts(target, (100, 50))
    writer = window(parts, tmp_path, streams=1)
    content = os.urandom(size)
    os.write(writer.sink.fd, content)
    writer.advance(size)
    store = FilesystemStore("file", tmp_path / "images")
    assert get(store, published(writer)) == content
    assert [part[3] for part in parts.put_parts] == [False] * (len(parts.put_parts) - 1) + [True]
    assert [part[0] for part in parts.put_parts] == list(range(len(parts.put_parts)))
    position = 0
    for number, offset, length, last in parts.put_parts:
        assert offset == position
        assert length == parts.size_of(number) or last
        assert length or not size
        position += length
    assert position == size


def test_no_more_than_a_window_is_held(target: FilesystemWriter, tmp_path: Path) -> None:
    parts = FileParts(target, (MIB,))
    writer = window(parts, tmp_path)
    most = 0
    for _ in range(16):
        land(writer, 8 * MIB)
        most = max(most, held(writer))
    # Streams and two more; a step, a punch; what the file system takes beforehand.
    assert most <= HEAD + TAIL + (2 + 2 + 1 + 1 + 4) * MIB
    assert writer.lost.start == HEAD
    assert len(writer.lost) >= 128 * MIB - HEAD - TAIL - 16 * MIB
    store = FilesystemStore("file", tmp_path / "images")
    content = get(store, published(writer))
    assert content == b"".join(bytes([number]) * MIB for number in range(128))


def test_what_is_still_to_be_read_stays(target: FilesystemWriter, tmp_path: Path) -> None:
    writer = window(FileParts(target, (MIB,)), tmp_path)
    behind = 4 * MIB
    writer.follow(lambda: os.fstat(writer.sink.fd).st_size - behind)
    for _ in range(8):
        total = land(writer, 4 * MIB)
        assert writer.lost.stop <= max(total - behind, HEAD)
    assert writer.lost
    read = os.pread(writer.sink.fd, behind, total - behind)
    assert read == b"".join(bytes([number]) * MIB for number in range(28, 32))
    writer.abort()


def test_who_brings_more_waits_for_the_readers(target: FilesystemWriter, tmp_path: Path) -> None:
    read = 0
    writer = window(FileParts(target, (MIB,)), tmp_path)
    writer.follow(lambda: read)
    thread = threading.Thread(target=land, args=(writer, 64 * MIB))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert not writer.lost
    read = 64 * MIB
    thread.join()
    writer.abort()


def test_who_brings_more_waits_for_the_store(target: FilesystemWriter, tmp_path: Path) -> None:
    parts = FileParts(target, (MIB,))
    parts.held.clear()
    writer = window(parts, tmp_path)
    totals: list[int] = []
    thread = threading.Thread(target=lambda: totals.append(land(writer, 64 * MIB)))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert held(writer) <= HEAD + TAIL + 5 * MIB
    parts.held.set()
    thread.join()
    assert totals == [64 * MIB]
    writer.abort()


@pytest.mark.parametrize(
    "failure", [errors.StoreFull(), errors.StoreUnwritable(), RuntimeError("a defect")]
)
def test_a_part_that_fails_ends_the_upload(
    target: FilesystemWriter, tmp_path: Path, failure: Exception
) -> None:
    parts = FileParts(target, (MIB,))
    writer = window(parts, tmp_path)
    land(writer, 3 * MIB)
    parts.failure = failure
    with pytest.raises(type(failure)):
        land(writer, 64 * MIB)
    with pytest.raises(type(failure)):
        writer.commit()
    assert parts.aborted


def test_the_first_part_may_be_what_fails(target: FilesystemWriter, tmp_path: Path) -> None:
    parts = FileParts(target, (MIB,))
    parts.failure = errors.StoreFull()
    writer = window(parts, tmp_path)
    os.write(writer.sink.fd, b"little")
    with pytest.raises(errors.StoreFull):
        writer.commit()
    assert parts.aborted


def test_abort_stops_what_is_under_way(target: FilesystemWriter, tmp_path: Path) -> None:
    parts = FileParts(target, (MIB,))
    parts.held.clear()
    writer = window(parts, tmp_path)
    land(writer, 4 * MIB)
    writer.abort()
    assert parts.aborted
    assert os.listdir(tmp_path / "images") == []


def test_a_file_is_adopted_as_it_is(target: FilesystemWriter, tmp_path: Path) -> None:
    path = tmp_path / "body"
    content = os.urandom(3 * MIB + 5)
    path.write_bytes(content)
    writer = AdoptedWindow(FileParts(target, (MIB,)), os.open(path, os.O_RDONLY))
    assert writer.landed == len(content)
    writer.advance(writer.landed)
    assert get(FilesystemStore("file", tmp_path / "images"), published(writer)) == content
    assert path.read_bytes() == content


def test_a_file_that_changes_meanwhile_is_refused(target: FilesystemWriter, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"first")
    writer = AdoptedWindow(FileParts(target, (MIB,)), os.open(path, os.O_RDONLY))
    path.write_bytes(b"second")
    with pytest.raises(errors.UploadIncomplete):
        writer.commit()
    assert os.listdir(tmp_path / "images") == []


def test_a_window_needs_a_directory(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreUnwritable):
        new_window(str(tmp_path / "missing"))
