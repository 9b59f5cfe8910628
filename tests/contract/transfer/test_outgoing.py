"""A file sent a turn at a time, and descriptors that are shared."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import FileTruncated, PeerGone
from headrace.transfer import engine, linux
from headrace.transfer.extent import Extent
from headrace.transfer.outgoing import Outgoing
from headrace.transfer.record import How
from headrace.transfer.shared import Descriptors
from tests.needs import require

SIZE = 3_000_001
MIB = 1 << 20


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def path(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "file").write_bytes(data)
    return tmp_path / "file"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The sending end, which does not block, and the receiving one."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as receiver,
        listener.accept()[0] as sender,
    ):
        sender.setblocking(False)
        receiver.settimeout(30)
        yield sender, receiver


def take(receiver: socket.socket, count: int) -> bytes:
    """So many bytes."""
    got = b""
    while len(got) < count:
        got += receiver.recv(count - len(got))
    return got


def extent_of(path: Path, offset: int = 0, length: int = SIZE) -> Extent:
    extent = Extent(os.open(path, os.O_RDONLY), 0, SIZE)
    extent.narrow(offset, length)
    return extent


@pytest.mark.parametrize("zero_copy", [True, False])
@pytest.mark.parametrize(("offset", "length"), [(0, SIZE), (4097, 2_000_000), (5, 70_000), (9, 3)])
def test_all_of_it_arrives_in_turns(
    path: Path,
    data: bytes,
    pair: tuple[socket.socket, socket.socket],
    zero_copy: bool,
    offset: int,
    length: int,
) -> None:
    sender, receiver = pair
    engine.enable(zero_copy)
    try:
        before = engine.counters()
        extent = extent_of(path, offset, length)
        outgoing = Outgoing(extent, sender.fileno())
        got = b""
        while outgoing.left:
            moved = outgoing.turn(100_000)
            assert 0 <= moved <= 100_000
            got += take(receiver, moved)
            assert (outgoing.offset, extent.sent) == (offset + len(got), len(got))
        outgoing.finish()
        extent.close()
    finally:
        engine.enable(True)
    assert got == data[offset : offset + length]
    way = How.SENDFILE if zero_copy and length >= engine.SMALL else How.COPY
    assert engine.counters().bytes[way] - before.bytes.get(way, 0) == length


def test_a_socket_without_room_takes_nothing(
    path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    sender, _ = pair
    with path.open("ab") as file:
        file.truncate(1 << 30)
    extent = Extent(os.open(path, os.O_RDONLY), 0, 1 << 30)
    outgoing = Outgoing(extent, sender.fileno())
    while outgoing.turn(64 * MIB):
        pass
    assert 0 < extent.sent < 1 << 30
    assert 0 <= outgoing.delivered() <= extent.sent
    extent.close()


def test_a_peer_that_is_gone(path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    receiver.close()
    outgoing = Outgoing(extent_of(path), sender.fileno())

    def send() -> None:
        while outgoing.left:
            outgoing.turn(10_000)

    with pytest.raises(PeerGone):
        send()
    outgoing.extent.close()


def test_a_file_that_is_too_short(path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    extent = extent_of(path)
    outgoing = Outgoing(extent, sender.fileno())
    os.truncate(path, 200_000)
    got = []

    def pass_on() -> None:
        while outgoing.left:
            got.append(take(receiver, outgoing.turn(50_000)))

    with pytest.raises(FileTruncated) as met:
        pass_on()
    assert len(b"".join(got)) == extent.sent == 200_000
    assert met.value.fields["missing"] == SIZE - 200_000
    extent.close()


def test_what_is_in_memory(path: Path) -> None:
    with path.open("rb") as file:
        fd = file.fileno()
        os.pread(fd, SIZE, 0)
        assert linux.resident(fd, 0, SIZE) == 1.0
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        left = linux.resident(fd, 0, SIZE)
        require(left is not None and left < 0.5, "needs a directory on a disk")
        assert left == 0.0
        linux.read_in(fd, MIB, MIB)
        assert linux.resident(fd, MIB, MIB) == 1.0
        outgoing = Outgoing(extent_of(path), fd)
        assert outgoing.cold(MIB)
        outgoing.read_in(MIB)
        assert not outgoing.cold(MIB)
        outgoing.extent.close()


def test_a_descriptor_is_shared_and_closed_with_the_last(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x" * SIZE)
    table = Descriptors()
    first, second, third = extent_of(path), extent_of(path, 5, 10), extent_of(tmp_path / "other")
    for extent in (first, second, third):
        table.share(extent)
    assert first.fd == second.fd != third.fd
    shared = first.fd
    first.close()
    assert os.pread(second.fd, 10, second.offset) == path.read_bytes()[5:15]
    second.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(shared)
    assert os.fstat(third.fd)
    third.close()


def test_another_file_of_the_same_name_is_not_shared(path: Path, tmp_path: Path) -> None:
    table = Descriptors()
    old = extent_of(path)
    table.share(old)
    (tmp_path / "new").write_bytes(b"y" * SIZE)
    (tmp_path / "new").replace(path)
    new = extent_of(path)
    table.share(new)
    assert old.fd != new.fd
    assert os.pread(new.fd, 3, 0) == b"yyy"
    old.close()
    new.close()
