"""Whether the bytes that sendfile and splice move are the right ones, tried before they matter.

There have been file systems on which they were not, without an error: OpenZFS on Linux 6.4, shared
folders of virtual machines.
"""

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from threading import Thread

from headrace import errors
from headrace.transfer import linux, record
from headrace.transfer.port import READABLE, WRITABLE, Port, Run, translated
from headrace.transfer.record import How

# Some pages more than the 64 KiB a sendfile hands over at a time, and no whole number of them.
_SIZE = (300 << 10) + 123

_STALL = 10.0

_WRONG = "wrong bytes"


def self_test(directory: str | os.PathLike[str]) -> str | None:
    """Send a file of ``directory`` by sendfile, receive one by splice, and compare.

    Returns None when all is well or zero-copy is off, else what went wrong ("sendfile: wrong
    bytes"); from then on what would be moved that way from or to its file system is copied.

    Raises StoreFull, StoreUnwritable when the test file cannot be written.
    """
    if not record.enabled():
        return None
    content = os.urandom(_SIZE)
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            file.write(content)
            faults = [_test_sendfile(file.fileno(), content)]
            file.truncate(0)
            faults.append(_test_splice(file.fileno(), content))
    except OSError as error:
        raise translated(error, 0) from error
    return ", ".join(fault for fault in faults if fault) or None


def _test_sendfile(file: int, content: bytes) -> str | None:
    ours, theirs = socket.socketpair()
    arrived = bytearray()
    sink = Port(ours.fileno(), WRITABLE, seekable=False, stall=_STALL)
    with _meanwhile(ours, theirs, lambda: _receive(theirs, arrived)):
        fault = _fault(lambda: linux.send_file(_run(), file, 0, len(content), sink))
    if fault is None and arrived != content:
        fault = _WRONG
    return _note(How.SENDFILE, _device(file), sink.device, fault)


def _test_splice(file: int, content: bytes) -> str | None:
    ours, theirs = socket.socketpair()
    source = Port(ours.fileno(), READABLE, seekable=False, stall=_STALL)
    sink = Port(file, WRITABLE, seekable=True)
    with _meanwhile(ours, theirs, lambda: theirs.sendall(content)):
        fault = _fault(lambda: linux.splice_through(_run(), source, len(content), sink, 0))
    if fault is None and os.pread(file, len(content), 0) != content:
        fault = _WRONG
    return _note(How.SPLICE, source.device, sink.device, fault)


def _run() -> Run:
    return Run(None, linux.MAX_COUNT)


def _device(fd: int) -> int:
    return os.fstat(fd).st_dev


def _fault(move: Callable[[], None]) -> str | None:
    try:
        move()
    except linux.Refused as refused:
        return refused.reason
    except (OSError, errors.TransferError) as error:
        return str(error)
    return None


def _note(how: How, source: int, sink: int, fault: str | None) -> str | None:
    """Have this way left alone between such descriptors if it has a fault."""
    if fault is None:
        return None
    record.refuse(how, source, sink, "self-test")
    record.count_fallback(how, "self-test")
    return f"{how}: {fault}"


@contextlib.contextmanager
def _meanwhile(
    ours: socket.socket, theirs: socket.socket, peer: Callable[[], None]
) -> Iterator[None]:
    """Run the peer of a socket pair in a thread, until this side closes."""

    def quietly() -> None:
        with contextlib.suppress(OSError):  # this side's trouble is the one that is told
            peer()

    thread = Thread(target=quietly, daemon=True)
    with ours, theirs:
        thread.start()
        try:
            yield
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            thread.join()


def _receive(sock: socket.socket, into: bytearray) -> None:
    while data := sock.recv(_SIZE):
        into += data
