"""The copying loop: what every other way is tested against, and what is left when none is fit."""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from headrace.transfer.port import Kind, Port, Run, translated_peer

# It stays in a core's L2 cache together with the pages it is copied from and to.  Measured on
# loopback with 1 GiB: 0.69 µs/KB received into a file (1 MiB: 0.83), 0.21 sent from one (0.27).
BUFFER = 256 << 10

Read = Callable[[memoryview], int]
Write = Callable[[memoryview], None]
CopyRange = Callable[[Run, int, int, int, int, int], None]
"""run, source, offset, length, sink, offset in the sink: from file to file."""


class Readable(Protocol):
    """A source without a descriptor of its own (TLS, wsgi.input)."""

    def readinto(self, buffer: memoryview, /) -> int: ...


class Writable(Protocol):
    """A sink without a descriptor of its own (TLS)."""

    def sendall(self, data: memoryview, /) -> None: ...


# Buffers wait here for the next transfer: a fresh one costs a page fault per 4 KiB.
_spare: deque[bytearray] = deque(maxlen=8)


def copy(run: Run, read: Read, write: Write, length: int | None) -> None:
    """Copy ``length`` bytes (None: all) from ``read`` to ``write``; stops early where they end."""
    if length is not None and length < BUFFER:
        _copy(run, read, write, length, memoryview(bytearray(length)))
        return
    try:
        spare = _spare.pop()
    except IndexError:
        spare = bytearray(BUFFER)
    try:
        _copy(run, read, write, length, memoryview(spare))
    finally:
        _spare.append(spare)


def _copy(run: Run, read: Read, write: Write, length: int | None, buffer: memoryview) -> None:
    left = length
    while left is None or left > 0:
        count = read(buffer if left is None else buffer[:left])
        if count == 0:
            return
        run.calls += 1
        write(buffer[:count])
        if left is not None:
            left -= count


def send_some(out: int, fd: int, offset: int, count: int) -> int:
    """Send up to ``count`` bytes from ``offset`` of a file; how many, 0 at the file's end.

    Raises BlockingIOError when a non-blocking socket has no room.
    """
    data = os.pread(fd, min(count, BUFFER), offset)
    return os.write(out, data) if data else 0


def copy_range(
    run: Run, source: int, offset: int, length: int, sink: int, sink_offset: int
) -> None:
    """Copy from file to file."""
    copy(run, file_reader(source, offset), file_writer(sink, sink_offset, run), length)


def file_reader(fd: int, offset: int) -> Read:
    """Reads the file from ``offset`` on; never moves the position of ``fd``."""

    def read(buffer: memoryview) -> int:
        nonlocal offset
        count = os.preadv(fd, [buffer], offset)
        offset += count
        return count

    return read


def stream_reader(port: Port, run: Run) -> Read:
    """Reads what has arrived in a socket or pipe, waiting for something."""

    def read(buffer: memoryview) -> int:
        if port.stall is not None and port.kind is not Kind.SOCKET:
            port.wait_ready(run)  # a blocking pipe or terminal has no time limit of its own
        while True:
            try:
                return os.readv(port.fd, [buffer])
            except BlockingIOError:
                port.wait(run)

    return read


def peer_reader(readable: Readable, run: Run) -> Read:
    """Reads from an object."""

    def read(buffer: memoryview) -> int:
        try:
            return readable.readinto(buffer)
        except OSError as error:
            raise translated_peer(error, run.moved) from error

    return read


def file_writer(fd: int, offset: int, run: Run) -> Write:
    """Writes the file from ``offset`` on; never moves the position of ``fd``."""

    def write(data: memoryview) -> None:
        nonlocal offset
        while data:
            count = os.pwrite(fd, data, offset)
            offset += count
            data = data[count:]
            run.add(count)

    return write


def stream_writer(port: Port, run: Run) -> Write:
    """Writes to a socket or pipe, waiting for room."""

    def write(data: memoryview) -> None:
        while data:
            try:
                count = os.write(port.fd, data)
            except BlockingIOError:
                port.wait(run)
                continue
            data = data[count:]
            run.add(count)

    return write


def peer_writer(writable: Writable, run: Run) -> Write:
    """Writes to an object."""

    def write(data: memoryview) -> None:
        try:
            writable.sendall(data)
        except OSError as error:
            raise translated_peer(error, run.moved) from error
        run.add(len(data))

    return write


def data_spans(fd: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Where within ``length`` bytes from ``offset`` a file has data: (offset, length) pairs.

    SEEK_DATA moves the position of ``fd``; it is put back when the iterator ends.
    """
    status = os.fstat(fd)
    whole = not stat.S_ISREG(status.st_mode) or status.st_blocks * 512 >= status.st_size
    if whole or not hasattr(os, "SEEK_DATA"):
        yield offset, length
        return
    end = offset + length
    position = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        while offset < end:
            try:
                start = os.lseek(fd, offset, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole up to the end of the file
                return
            if start >= end:
                return
            offset = min(os.lseek(fd, start, os.SEEK_HOLE), end)
            yield start, offset - start
    finally:
        os.lseek(fd, position, os.SEEK_SET)
