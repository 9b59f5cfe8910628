"""The raw tests: what one end does with a connection, in calls of a given size.

| test          | data goes   | by                                      |
|---------------|-------------|-----------------------------------------|
| TCP_STREAM    | to the far  | send, from memory                       |
| TCP_MAERTS    | to this end | the same, by the far end                |
| TCP_SENDFILE  | to the far  | sendfile, from a file                   |
| TCP_SPLICE    | to the far  | splice, from a file through a pipe      |
| TCP_ZEROCOPY  | to the far  | send with MSG_ZEROCOPY, from memory     |
| TCP_RR        | both ways   | a request and its response, one by one  |

Loops are plain on purpose: what they cost beside the system calls would be measured, too.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headrace.bench.spec import Spec
from headrace.errors import ClientError, Error
from headrace.transfer import linux
from headrace.transfer.port import WRITABLE, Port, Run

STALL = 3.0
"""Seconds for which the other end may take or give nothing."""

ENDLESS = 1 << 62

# Between two looks at the clock: a few calls, and no more than a slow link moves in a moment.
_TURN = 1 << 20

# linux/socket.h, asm-generic/socket.h; CPython does not name them.
_SO_ZEROCOPY = 60
_MSG_ZEROCOPY = 0x4000000

_STALLED = (errno.EAGAIN, errno.ETIMEDOUT)


@dataclass(frozen=True)
class Moved:
    """Bytes (and transactions of TCP_RR), and the calls that moved them."""

    bytes: int
    calls: int
    transactions: int = 0


class Clock:
    """Says when a measurement is over."""

    def __init__(self, spec: Spec) -> None:
        self.end = float("inf") if spec.seconds is None else time.monotonic() + spec.seconds
        self.left = ENDLESS if spec.nbytes is None else spec.nbytes


def prepare(sock: socket.socket, buffer: int | None, spec: Spec) -> None:
    """Set the socket up before it connects or listens, which is when TCP looks at its buffers."""
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    if spec.nodelay:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if spec.congestion is not None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, spec.congestion.encode())
        except OSError as error:
            raise ClientError(
                reason=f"congestion control {spec.congestion}: {error.strerror}"
            ) from error


def limit(sock: socket.socket) -> None:
    """Have the kernel end a call that moves nothing for STALL seconds; no poll before each."""
    sock.setblocking(True)
    patience = struct.pack("ll", int(STALL), int(STALL % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)


def congestion(sock: socket.socket) -> str:
    """The congestion control that the socket's connection has."""
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode("ascii", "replace")


def buffers(sock: socket.socket) -> tuple[int, int]:
    """Bytes of the socket's send and receive buffers, as the system has them now."""
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
    )


# --- sending


def send_memory(sock: socket.socket, size: int, spec: Spec) -> Moved:
    """Send from one buffer, again and again."""
    clock = Clock(spec)
    block = memoryview(bytearray(os.urandom(min(size, _TURN)) * -(-size // _TURN))[:size])
    send, now, end, left = sock.send, time.monotonic, clock.end, clock.left
    calls = 0
    while left >= size and now() < end:
        left -= send(block)
        calls += 1
    if 0 < left < size and now() < end:
        sock.sendall(block[:left])
        left, calls = 0, calls + 1
    return Moved(clock.left - left, calls)


def send_file(sock: socket.socket, size: int, spec: Spec, file: int) -> Moved:
    """Send a file from its start, again and again, by sendfile."""
    return _file_loop(sock, size, spec, file, linux.send_file)


def splice_file(sock: socket.socket, size: int, spec: Spec, file: int) -> Moved:
    """The same by splice, through a pipe."""
    return _file_loop(sock, size, spec, file, linux.splice_file)


def _file_loop(
    sock: socket.socket,
    size: int,
    spec: Spec,
    file: int,
    send: Callable[[Run, int, int, int, Port], None],
) -> Moved:
    clock = Clock(spec)
    length = os.fstat(file).st_size
    if not length:
        raise ClientError(reason="the file to send is empty")
    port = Port(sock.fileno(), WRITABLE, seekable=False, stall=STALL)
    run = Run(None, size)
    turn = max(size, _TURN)
    offset = 0
    while run.moved < clock.left and time.monotonic() < clock.end:
        count = min(turn, length - offset, clock.left - run.moved)
        before = run.moved
        try:
            send(run, file, offset, count, port)
        except linux.Refused as refusal:
            raise ClientError(reason=f"{spec.test} cannot send this file: {refusal}") from refusal
        if run.moved - before != count:
            raise ClientError(reason="the file to send was truncated meanwhile")
        offset = (offset + count) % length
    return Moved(run.moved, run.calls)


def send_zerocopy(sock: socket.socket, size: int, spec: Spec) -> Moved:
    """Send from one buffer without copying it, where the kernel can; it says when it is done."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ZEROCOPY, 1)
    except OSError as error:
        raise ClientError(reason=f"this kernel has no MSG_ZEROCOPY: {error.strerror}") from error
    clock = Clock(spec)
    block = memoryview(bytearray(size))
    calls = moved = 0
    while moved < clock.left and time.monotonic() < clock.end:
        try:
            moved += sock.send(block[: clock.left - moved], _MSG_ZEROCOPY)
            calls += 1
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            _await_notice(sock)  # too much is still on its way
        if calls % 16 == 0:
            _take_notices(sock)
    return Moved(moved, calls)


def _take_notices(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recvmsg(0, 128, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)


def _await_notice(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, 0)  # errors are always told
    poll.poll(STALL * 1000)
    _take_notices(sock)


# --- receiving


def receive(sock: socket.socket, size: int, sink: str | None) -> Moved:
    """Receive until the end: into one buffer, or into the file ``sink``."""
    buffer = memoryview(bytearray(size))
    take = sock.recv_into
    moved = calls = 0
    file = None if sink is None else _open_sink(sink)
    try:
        while count := take(buffer):
            moved += count
            calls += 1
            if file is not None:
                _store(file, buffer[:count], sink)
    except BaseException:
        if sink is not None and os.path.isfile(sink):
            os.unlink(sink)  # half of it is nothing to keep
        raise
    finally:
        if file is not None:
            os.close(file)
    return Moved(moved, calls)


def _open_sink(sink: str) -> int:
    try:
        return os.open(sink, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise ClientError(reason=f"{sink}: {error.strerror}") from error


def _store(file: int, data: memoryview, sink: str | None) -> None:
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError as error:
        raise ClientError(reason=f"{sink}: {error.strerror}") from error


# --- requests and responses


def ask(sock: socket.socket, spec: Spec) -> Moved:
    """Send a request, wait for its response, and so on."""
    clock = Clock(spec)
    request, response = bytes(spec.request), memoryview(bytearray(spec.response))
    done = 0
    while done < clock.left and time.monotonic() < clock.end:
        sock.sendall(request)
        if not _take_all(sock, response):
            raise ClientError(reason="the far end stopped answering")
        done += 1
    return Moved(done * (spec.request + spec.response), 2 * done, done)


def answer(sock: socket.socket, spec: Spec) -> Moved:
    """Answer requests until there are no more."""
    request, response = memoryview(bytearray(spec.request)), bytes(spec.response)
    done = 0
    while _take_all(sock, request):
        sock.sendall(response)
        done += 1
    return Moved(done * (spec.request + spec.response), 2 * done, done)


def _take_all(sock: socket.socket, buffer: memoryview) -> bool:
    """Fill the buffer; False at the end of the connection."""
    have = 0
    while have < len(buffer):
        count = sock.recv_into(buffer[have:])
        if not count:
            return False
        have += count
    return True


@contextlib.contextmanager
def met(who: str) -> Iterator[None]:
    """Turn what the data connection meets into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in _STALLED or isinstance(error, TimeoutError):
            raise ClientError(reason=f"{who} moves nothing for {STALL:g} s") from error
        raise ClientError(reason=f"{who}: {error.strerror or error}") from error
    except ClientError:
        raise
    except Error as error:
        raise ClientError(reason=f"{who}: {error}") from error
