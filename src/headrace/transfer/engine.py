"""pump(source, sink): the one place where a way of moving bytes is chosen."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from headrace.transfer.extent import Extent


class How(StrEnum):
    """The ways bytes can move."""

    SENDFILE = "sendfile"
    SPLICE = "splice"
    COPY_FILE_RANGE = "copy_file_range"
    REFLINK = "reflink"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Moved:
    """What a pump did: bytes moved, system calls that carried them, and how."""

    bytes: int
    calls: int
    how: How


@dataclass(frozen=True, slots=True)
class Stream:
    """A socket or pipe whose bytes pass in order, as a source or as a sink.

    ``length`` is how many bytes to take from it as a source (None: until its end); as a sink it is
    ignored.  ``stall`` is for how many seconds it may move nothing before PeerStalled is raised
    (None: for ever).
    """

    fd: int
    length: int | None = None
    stall: float | None = None


@dataclass(frozen=True, slots=True)
class FileSink:
    """The regular file open as ``fd``, written from ``offset`` on."""

    fd: int
    offset: int = 0


class Readable(Protocol):
    """A source without a descriptor of its own (TLS, wsgi.input)."""

    def readinto(self, buffer: memoryview, /) -> int: ...


class Writable(Protocol):
    """A sink without a descriptor of its own (TLS)."""

    def sendall(self, data: memoryview, /) -> None: ...


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
    """Move all of ``source`` into ``sink`` by the cheapest way both ends allow."""
    raise NotImplementedError  # being written


def pump_all(
    sources: Iterable[Source],
    sink: Sink,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Moved:
    """Pump the pieces of one body (chunks of a chunked request, say) one after another."""
    raise NotImplementedError  # being written
