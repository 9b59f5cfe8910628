"""pump(source, sink): the one place where a way of moving bytes is chosen.

By what the descriptors are:

    from \\ to          socket            pipe      file                          object
    file               sendfile          splice    reflink, copy_file_range      copy
    socket             splice, splice    splice    splice, splice                copy
    pipe               splice            splice    splice                        copy
    bytes, object      copy              copy      copy                          copy

"splice, splice" goes through a pipe of our own.  Where a way is refused before its first byte, the
bytes are copied instead; this is counted, and remembered for such a pair of descriptors.
"""

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headrace import errors
from headrace.transfer import linux, portable, record
from headrace.transfer.extent import Extent
from headrace.transfer.growing import Growing
from headrace.transfer.port import (
    READABLE,
    WRITABLE,
    Kind,
    Port,
    Run,
    appends,
    borrowed_socket,
    translated,
)
from headrace.transfer.portable import Readable, Writable
from headrace.transfer.record import SMALL, Counters, How, counters, enable, enabled
from headrace.transfer.selftest import self_test

__all__ = [
    "SMALL",
    "Counters",
    "Extent",
    "FileSink",
    "How",
    "Moved",
    "Progress",
    "Readable",
    "Reader",
    "Sender",
    "Sink",
    "Source",
    "Stream",
    "Writable",
    "counters",
    "cut",
    "enable",
    "enabled",
    "pump",
    "pump_all",
    "self_test",
]

# Most that one system call moves while somebody watches; measured no dearer than 2 GiB at once.
_STEP = 8 << 20


@dataclass(frozen=True, slots=True)
class Moved:
    """What a pump did: bytes moved, system calls that carried them, and how (most of them)."""

    bytes: int
    calls: int
    how: How


@dataclass(frozen=True, slots=True)
class Stream:
    """A socket or pipe whose bytes pass in order, as a source or as a sink.

    ``length`` is how many bytes to take from it as a source (None: until its end); as a sink it is
    ignored.  ``stall`` is for how many seconds it may move nothing before PeerStalled is raised
    (None: for ever).  It may take twice as long to show; and a pipe as a sink of the copying loop
    has no limit, since writing to it cannot be bounded without changing it for others.

    On a blocking socket the limit is left behind as SO_RCVTIMEO or SO_SNDTIMEO: what uses it next
    may see BlockingIOError.
    """

    fd: int
    length: int | None = None
    stall: float | None = None


@dataclass(frozen=True, slots=True)
class FileSink:
    """The regular file open as ``fd``, written from ``offset`` on (at its end if O_APPEND)."""

    fd: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Reader:
    """``length`` bytes (None: until the end) of a Readable: always the copying loop."""

    readable: Readable
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Sender:
    """A Writable as a sink: always the copying loop."""

    writable: Writable


Source = Extent | Stream | Reader | bytes
Sink = Stream | FileSink | Sender
Progress = Callable[[int], None]


def pump(
    source: Source,
    sink: Sink,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Moved:
    """Move all of ``source`` into ``sink`` by the cheapest way both ends allow.

    An Extent is moved whole, from its offset, and stays open; its ``sent`` tells how far it came,
    also after an error.  What a Growing has not yet is waited for.  Holes stay holes from file to
    file, where the sink has nothing yet.

    ``progress(total)`` is called after each system call that moved something, with the bytes moved
    so far; with it, a call moves at most 8 MiB.

    Raises, all but ImageTooLarge with ``moved`` among their fields:
    ImageTooLarge: the source has more than ``limit`` bytes, none of which beyond it was written.
    PeerGone: a peer closed, or a Stream or Reader ended before its length.
    PeerStalled: a Stream moved nothing for its ``stall``.
    FileTruncated: an Extent's file is shorter than the Extent; what is missing is never made up.
    FillFailed: what fills a Growing's file failed.
    StoreFull, StoreUnwritable: what writing to a file met.
    TransferError: any other error of the operating system.
    """
    return pump_all((source,), sink, limit=limit, progress=progress)


def pump_all(
    sources: Iterable[Source],
    sink: Sink,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Moved:
    """Pump the pieces of one body (chunks of a chunked request, say) one after another.

    As pump; ``limit``, ``progress`` and the errors speak of the body, and each source is used up
    before the next is asked for.
    """
    with _Body(sink, limit, progress) as body:
        for source in sources:
            body.take(source)
    return body.moved()


def cut(stream: Stream) -> None:
    """End a socket's connection under whoever else uses it: its peer sees the end, and it fails."""
    with contextlib.suppress(OSError), borrowed_socket(stream.fd) as sock:
        sock.shutdown(socket.SHUT_RDWR)


def _length(source: Source) -> int | None:
    return len(source) if isinstance(source, bytes) else source.length


class _Body:
    """Pieces on their way into one sink."""

    def __init__(self, sink: Sink, limit: int | None, progress: Progress | None) -> None:
        self._sink = sink
        self._limit = limit
        self._run = Run(progress, linux.MAX_COUNT if progress is None else _STEP)
        self._moved: Counter[How] = Counter()
        self._how = How.COPY
        self._port = _sink_port(sink)
        self._last: tuple[Stream, Port] | None = None
        # Of the piece under way.
        self._small = self._fell = False

    def __enter__(self) -> "_Body":
        return self

    def __exit__(self, *_: object) -> None:
        record.count(self._moved)

    def moved(self) -> Moved:
        return Moved(self._run.moved, self._run.calls, record.chief(self._moved))

    def take(self, source: Source) -> None:
        """Move one piece."""
        run = self._run
        before = run.moved
        length = _length(source)
        room = None if self._limit is None else self._limit - before
        if room is not None and length is not None and length > room:
            raise errors.ImageTooLarge(cap=self._limit)
        self._small = length is not None and length < SMALL
        self._fell = False
        self._how = How.COPY
        try:
            port = self._source_port(source)
            if isinstance(source, Growing):
                self._follow(source, port)
            else:
                self._move(source, port, room if length is None else length)
            if length is None and run.moved - before == room and self._has_more(source, port):
                raise errors.ImageTooLarge(cap=self._limit)
        except OSError as error:
            raise translated(error, run.moved) from error
        finally:
            if isinstance(source, Extent):
                source.sent = max(source.sent, run.moved - before)
                source.way = self._how
        if length is not None and length > run.moved - before:
            raise self._cut_short(source, length - (run.moved - before))

    def _cut_short(self, source: Source, missing: int) -> errors.TransferError:
        if isinstance(source, Extent):
            return errors.FileTruncated(missing=missing, moved=self._run.moved)
        return errors.PeerGone(moved=self._run.moved)

    def _source_port(self, source: Source) -> Port | None:
        if isinstance(source, Extent):
            return Port(source.fileno(), READABLE, seekable=True)
        if not isinstance(source, Stream):
            return None
        if self._last is not None:
            stream, port = self._last
            if (stream.fd, stream.stall) == (source.fd, source.stall):
                return port  # the next chunk on the same connection
        port = Port(source.fd, READABLE, seekable=False, stall=source.stall)
        self._last = source, port
        return port

    def _follow(self, source: Growing, port: Port | None) -> None:
        """Move of a file that grows what has landed, again and again."""
        before = self._run.moved
        for part in source.landings():
            self._move(part, port, part.length)
            source.sent = max(source.sent, self._run.moved - before)
            if self._run.moved - before < part.offset + part.length - source.offset:
                return  # cut short underneath

    def _move(self, source: Source, port: Port | None, length: int | None) -> None:
        """Move ``length`` bytes of a piece (None: all)."""
        run = self._run
        before = run.moved
        run.begin()
        try:
            if length == 0:
                return
            if port is None or self._port is None:
                self._copy(source, port, length, b"")
            else:
                self._carry(source, port, self._port, length)
        finally:
            self._moved[self._how] += run.moved - before

    def _carry(self, source: Source, port: Port, sink: Port, length: int | None) -> None:
        """Move them by the first way that is not refused."""
        before = self._run.moved
        fallen: tuple[How, linux.Refused] | None = None
        for way in _ways(port, sink, self._small):
            refused = self._attempt(way, source, port, sink, length)
            if refused is None:
                return
            fallen = way, refused
        self._how = How.COPY
        if fallen is None:
            self._copy(source, port, length, b"")
            return
        way, refused = fallen
        if not self._fell:
            self._fell = True
            record.count_fallback(way, refused.reason)
        self._run.moved = before  # a hole may have been skipped
        self._copy(source, port, length, refused.held)
        if refused.lasting:  # copying went well, so it is the way that is at fault
            record.refuse(way, port.device, sink.device, refused.reason)

    def _attempt(
        self, way: How, source: Source, port: Port, sink: Port, length: int | None
    ) -> linux.Refused | None:
        """Move them by one way, or return why it cannot be."""
        known = record.refusal(way, port.device, sink.device)
        if known is not None:
            return linux.Refused(known, lasting=False)
        self._how = way
        try:
            self._go(way, source, port, sink, length)
        except linux.Refused as refused:
            return refused
        return None

    def _go(self, way: How, source: Source, port: Port, sink: Port, length: int | None) -> None:
        run = self._run
        at = self._at()
        offset = at if sink.kind is Kind.FILE else None
        if isinstance(source, Extent):
            if way is How.SENDFILE:
                linux.send_file(run, port.fd, source.offset, source.length, sink)
            elif way is How.REFLINK:
                linux.reflink(run, port.fd, source.offset, source.length, sink.fd, at)
            elif way is How.COPY_FILE_RANGE:
                self._by_spans(source, sink.fd, linux.copy_range)
            else:
                linux.splice_direct(run, port, source.offset, source.length, sink, None)
        elif Kind.PIPE in (port.kind, sink.kind):
            linux.splice_direct(run, port, None, length, sink, offset)
        else:
            linux.splice_through(run, port, length, sink, offset)

    def _copy(self, source: Source, port: Port | None, length: int | None, held: bytes) -> None:
        run = self._run
        if isinstance(source, Extent) and self._port is not None and self._port.kind is Kind.FILE:
            self._by_spans(source, self._port.fd, portable.copy_range)
            return
        write = self._writer()
        if isinstance(source, bytes):
            write(memoryview(source))
            return
        if held:
            write(memoryview(held))
        portable.copy(
            run, self._reader(source, port), write, None if length is None else length - len(held)
        )

    def _by_spans(self, source: Extent, sink: int, copy: portable.CopyRange) -> None:
        """Copy from file to file what is data; what is a hole stays one."""
        run = self._run
        start, at = source.offset, self._at()
        base = run.moved - start  # run.moved, when all before an offset has moved, is base + offset
        for offset, length in _spans(source, sink, at):
            if base + offset > run.moved:
                run.add(base + offset - run.moved, calls=0)
            copy(run, source.fd, offset, length, sink, at + offset - start)
            if run.moved < base + offset + length:
                return  # cut short underneath
        end = min(start + source.length, os.fstat(source.fd).st_size)
        if run.moved < base + end:
            run.add(base + end - run.moved, calls=0)
            os.ftruncate(sink, at + end - start)

    def _at(self) -> int:
        """Where in the file the next byte belongs; meaningless for other sinks."""
        return self._sink.offset + self._run.moved if isinstance(self._sink, FileSink) else 0

    def _reader(self, source: Source, port: Port | None) -> portable.Read:
        if isinstance(source, Reader):
            return portable.peer_reader(source.readable, self._run)
        assert port is not None, "an Extent and a Stream have one"
        if isinstance(source, Extent):
            return portable.file_reader(port.fd, source.offset)
        return portable.stream_reader(port, self._run)

    def _has_more(self, source: Source, port: Port | None) -> bool:
        return self._reader(source, port)(memoryview(bytearray(1))) > 0

    def _writer(self) -> portable.Write:
        if isinstance(self._sink, Sender):
            return portable.peer_writer(self._sink.writable, self._run)
        assert self._port is not None, "a FileSink and a Stream have one"
        if isinstance(self._sink, FileSink):
            return portable.file_writer(self._port.fd, self._at(), self._run)
        return portable.stream_writer(self._port, self._run)


def _sink_port(sink: Sink) -> Port | None:
    if isinstance(sink, FileSink):
        return Port(sink.fd, WRITABLE, seekable=True)
    if isinstance(sink, Stream):
        return Port(sink.fd, WRITABLE, seekable=False, stall=sink.stall)
    return None


def _ways(source: Port, sink: Port, small: bool) -> tuple[How, ...]:
    """The ways between two descriptors for what is small or not, best first; none: copy."""
    if not record.enabled() or Kind.OTHER in (source.kind, sink.kind):
        return ()
    if source.kind is not Kind.FILE or sink.kind is Kind.PIPE:
        return (How.SPLICE,)
    if sink.kind is Kind.FILE:
        same = source.device == sink.device
        return (How.REFLINK, How.COPY_FILE_RANGE) if same else (How.COPY_FILE_RANGE,)
    return () if small else (How.SENDFILE,)


def _spans(source: Extent, sink: int, at: int) -> Iterable[tuple[int, int]]:
    """What has to be copied of an extent for its holes to be holes in ``sink`` from ``at`` on.

    All of it, where what the sink has there already would show through, or where it takes the next
    bytes at its end whatever their offset.
    """
    if os.fstat(sink).st_size > at or appends(sink):
        return [(source.offset, source.length)]
    return portable.data_spans(source.fd, source.offset, source.length)
