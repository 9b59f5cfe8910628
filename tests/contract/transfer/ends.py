"""Sources and sinks for the tests of the transfer engine: real descriptors with a peer behind each.

A source context takes the content it shall give and yields the Source; a sink context yields the
Sink and an Arrived, which has the content once the context is left.
"""

import contextlib
import io
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from headrace.transfer.engine import Extent, FileSink, Reader, Sender, Sink, Source, Stream

HANG = 60.0  # seconds after which a test is taken to hang
BEFORE = b"before " * 1000  # what lies before the used part of a file
AFTER = b" after" * 1000


@dataclass
class Arrived:
    content: bytes = b""


@contextlib.contextmanager
def meanwhile(task: Callable[[], object]) -> Iterator[None]:
    """Run ``task`` in a thread, and raise what it raised at the end."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            task()
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(HANG)
    assert not thread.is_alive(), "the peer hangs"
    if failed:
        raise failed[0]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def polled_pair() -> tuple[socket.socket, socket.socket]:
    """TCP, this side non-blocking."""
    ours, theirs = tcp_pair()
    ours.setblocking(False)
    return ours, theirs


PAIRS = {"tcp": tcp_pair, "polled": polled_pair, "unix": unix_pair}


def file_with(content: bytes, directory: str | Path | None = None) -> int:
    """The descriptor of a file without a name, at its start."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(content)
        file.flush()
        file.seek(0)
        return os.dup(file.fileno())


def everything(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size + 1, 0)


@contextlib.contextmanager
def opened(*fds: int) -> Iterator[None]:
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


# Sources


@contextlib.contextmanager
def from_file(content: bytes) -> Iterator[Source]:
    with contextlib.closing(Extent(file_with(content), 0, len(content))) as extent:
        yield extent


@contextlib.contextmanager
def from_middle(content: bytes) -> Iterator[Source]:
    fd = file_with(BEFORE + content + AFTER)
    with contextlib.closing(Extent(fd, len(BEFORE), len(content))) as extent:
        yield extent


def from_socket(pair: str, known: bool = True) -> Callable[[bytes], AbstractContextManager[Source]]:
    @contextlib.contextmanager
    def source(content: bytes) -> Iterator[Source]:
        ours, theirs = PAIRS[pair]()

        def feed() -> None:
            theirs.sendall(content)
            theirs.shutdown(socket.SHUT_WR)

        with ours, theirs, meanwhile(feed):
            yield Stream(ours.fileno(), len(content) if known else None, HANG)

    return source


@contextlib.contextmanager
def from_pipe(content: bytes) -> Iterator[Source]:
    outlet, inlet = os.pipe()

    def feed() -> None:
        with open(inlet, "wb", buffering=0) as pipe:
            left = memoryview(content)
            while left:
                left = left[pipe.write(left) :]

    with opened(outlet), meanwhile(feed):
        yield Stream(outlet, len(content), HANG)


@contextlib.contextmanager
def from_bytes(content: bytes) -> Iterator[Source]:
    yield content


@contextlib.contextmanager
def from_object(content: bytes) -> Iterator[Source]:
    yield Reader(io.BytesIO(content), len(content))


SOURCES: dict[str, Callable[[bytes], AbstractContextManager[Source]]] = {
    "file": from_file,
    "middle": from_middle,
    "tcp": from_socket("tcp"),
    "polled": from_socket("polled"),
    "endless": from_socket("tcp", known=False),
    "unix": from_socket("unix"),
    "pipe": from_pipe,
    "bytes": from_bytes,
    "object": from_object,
}


def use_up(source: Source) -> None:
    """Take what a source still has, so that its peer can finish."""
    if isinstance(source, Stream):
        os.set_blocking(source.fd, True)
        while os.read(source.fd, 1 << 20):
            pass


# Sinks


@contextlib.contextmanager
def to_file() -> Iterator[tuple[Sink, Arrived]]:
    arrived = Arrived()
    fd = file_with(b"")
    with opened(fd):
        yield FileSink(fd), arrived
        arrived.content = everything(fd)


@contextlib.contextmanager
def to_middle() -> Iterator[tuple[Sink, Arrived]]:
    """Behind something that is there already, which must stay."""
    arrived = Arrived()
    fd = file_with(BEFORE)
    with opened(fd):
        yield FileSink(fd, len(BEFORE)), arrived
        content = everything(fd)
        assert content.startswith(BEFORE)
        arrived.content = content.removeprefix(BEFORE)


def to_socket(pair: str) -> Callable[[], AbstractContextManager[tuple[Sink, Arrived]]]:
    @contextlib.contextmanager
    def sink() -> Iterator[tuple[Sink, Arrived]]:
        arrived = Arrived()
        ours, theirs = PAIRS[pair]()

        def drain() -> None:
            arrived.content = b"".join(iter(lambda: theirs.recv(1 << 20), b""))

        with theirs, meanwhile(drain), ours:
            yield Stream(ours.fileno(), stall=HANG), arrived

    return sink


@contextlib.contextmanager
def to_pipe() -> Iterator[tuple[Sink, Arrived]]:
    arrived = Arrived()
    outlet, inlet = os.pipe()

    def drain() -> None:
        with open(outlet, "rb", buffering=0) as pipe:
            arrived.content = pipe.readall()

    with meanwhile(drain), opened(inlet):
        yield Stream(inlet, stall=HANG), arrived


class Collector:
    """A Writable."""

    def __init__(self) -> None:
        self.content = bytearray()

    def sendall(self, data: memoryview, /) -> None:
        self.content += data


@contextlib.contextmanager
def to_object() -> Iterator[tuple[Sink, Arrived]]:
    arrived = Arrived()
    collector = Collector()
    yield Sender(collector), arrived
    arrived.content = bytes(collector.content)


SINKS: dict[str, Callable[[], AbstractContextManager[tuple[Sink, Arrived]]]] = {
    "file": to_file,
    "middle": to_middle,
    "tcp": to_socket("tcp"),
    "polled": to_socket("polled"),
    "unix": to_socket("unix"),
    "pipe": to_pipe,
    "object": to_object,
}
