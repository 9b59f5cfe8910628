"""Extent: a part of a file with a file's face."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.transfer.extent import Extent

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def extent(tmp_path: Path) -> Iterator[Extent]:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    extent = Extent(os.open(path, os.O_RDONLY), 100, 500)
    yield extent
    extent.close()


def test_it_reads_as_a_file_of_its_own(extent: Extent) -> None:
    assert extent.read(10) == CONTENT[100:110]
    assert extent.tell() == 110
    assert extent.read() == CONTENT[110:600]
    assert extent.read(1) == b""


@pytest.mark.parametrize(
    ("position", "whence", "then"),
    [
        (107, os.SEEK_SET, 107),
        (-1, os.SEEK_END, 599),
        (5, os.SEEK_CUR, 115),
        (9999, os.SEEK_SET, 600),
        (0, os.SEEK_SET, 100),
    ],
)
def test_it_seeks_within_itself(extent: Extent, position: int, whence: int, then: int) -> None:
    extent.read(10)
    assert extent.seek(position, whence) == extent.tell() == then
    assert extent.read(3) == CONTENT[then : min(then + 3, 600)]


def test_the_descriptor_stands_where_it_starts(extent: Extent) -> None:
    extent.read(50)
    assert os.lseek(extent.fileno(), 0, os.SEEK_CUR) == 100
    extent.narrow(20, 30)
    assert os.lseek(extent.fileno(), 0, os.SEEK_CUR) == 120


def test_it_can_be_narrowed(extent: Extent) -> None:
    extent.narrow(20, 300)
    extent.narrow(1, 2)
    assert (extent.offset, extent.length) == (121, 2)
    assert extent.read() == CONTENT[121:123]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 501), (500, 1), (0, -1)])
def test_it_cannot_be_widened(extent: Extent, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        extent.narrow(offset, length)


@pytest.mark.parametrize(("read", "told"), [(500, (500, True)), (499, (499, False))])
def test_observers_hear_once_how_it_ended(
    extent: Extent, read: int, told: tuple[int, bool]
) -> None:
    heard: list[tuple[int, bool | None]] = []
    extent.on_close(lambda sent, ok: heard.append((sent, ok)))
    extent.read(read)
    extent.close()
    extent.close()
    assert heard == [told]


def test_a_closed_one_cannot_be_used(extent: Extent) -> None:
    fd = extent.fileno()
    extent.close()
    assert extent.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(ValueError, match="closed"):
        extent.read(1)


@pytest.mark.parametrize("size", [600, 1024])
def test_what_was_left_to_a_host_is_known_to_nobody(tmp_path: Path, size: int) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    extent = Extent(os.open(path, os.O_RDONLY), 100, 500)
    heard: list[tuple[int, bool | None]] = []
    extent.on_close(lambda sent, ok: heard.append((sent, ok)))
    extent.leave_to_host()
    os.truncate(path, size)
    extent.close()
    assert heard == [(0, None)]


def test_a_file_that_was_cut_short_under_a_host(tmp_path: Path) -> None:
    """Hosts take the end of the file for the end of the answer."""
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    extent = Extent(os.open(path, os.O_RDONLY), 100, 500)
    fd = extent.fileno()
    extent.leave_to_host()
    os.truncate(path, 599)
    with pytest.raises(errors.FileTruncated) as caught:
        extent.close()
    assert caught.value.fields == {"missing": 1, "moved": 499}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    extent.close()
