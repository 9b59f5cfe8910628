"""What linux.py and portable.py share: an end of a transfer, and a transfer under way."""

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import termios
from collections.abc import Callable, Iterator
from enum import Enum, auto

from headrace import errors

READABLE = select.POLLIN
WRITABLE = select.POLLOUT


class Kind(Enum):
    """What a descriptor is, as far as the choice of a way goes."""

    FILE = auto()
    SOCKET = auto()
    PIPE = auto()
    OTHER = auto()


class Run:
    """A transfer under way: what has arrived in the sink, and in how many system calls.

    ``step`` bounds one system call, in bytes.  ``started`` is False until a call has moved
    something of the present piece: only until then may its way still be changed.
    """

    __slots__ = ("_mark", "_progress", "calls", "moved", "step")

    def __init__(self, progress: Callable[[int], None] | None, step: int) -> None:
        self._progress = progress
        self._mark = 0
        self.step = step
        self.moved = 0
        self.calls = 0

    def begin(self) -> None:
        """A new piece of the body starts."""
        self._mark = self.calls

    @property
    def started(self) -> bool:
        return self.calls > self._mark

    def add(self, count: int, calls: int = 1) -> None:
        """Note ``count`` bytes that arrived by ``calls`` system calls."""
        self.moved += count
        self.calls += calls
        if self._progress is not None:
            self._progress(self.moved)


class Port:
    """A descriptor at one end of a transfer, its kind, and how long it may stand still.

    ``event`` is what it is waited for: READABLE of a source, WRITABLE of a sink.  ``seekable`` says
    that it is used by offset, as a file; ``stall`` is in seconds, None for ever.
    """

    __slots__ = ("_kernel_waits", "blocking", "device", "event", "fd", "kind", "stall")

    def __init__(self, fd: int, event: int, *, seekable: bool, stall: float | None = None) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.event = event
        self.stall = stall
        self.device = status.st_dev
        self.kind = _kind(status.st_mode, seekable)
        self.blocking = self.kind is Kind.SOCKET and os.get_blocking(fd)
        self._kernel_waits = self.blocking and stall is not None
        if self.blocking and stall is not None:
            _set_time_limit(fd, event, stall)

    def wait(self, run: Run) -> None:
        """After EAGAIN: wait until there is something to read or room to write.

        Raises PeerStalled after ``stall`` seconds; at once on a blocking socket, where EAGAIN
        means that the kernel has waited that long already.
        """
        if self._kernel_waits:
            raise self.stalled(run)
        self.wait_ready(run)

    def wait_ready(self, run: Run) -> None:
        """The same where EAGAIN may have come from the other end."""
        if not self.ready(self.stall):
            raise self.stalled(run)

    def stalled(self, run: Run) -> errors.PeerStalled:
        """The error of having waited for ``stall`` seconds in vain."""
        return errors.PeerStalled(seconds=self.stall, moved=run.moved)

    def ready(self, seconds: float | None) -> bool:
        """Whether the descriptor becomes ready (or broken) within ``seconds`` (None: for ever)."""
        poll = select.poll()
        poll.register(self.fd, self.event)
        return bool(poll.poll(None if seconds is None else seconds * 1000))


def _kind(mode: int, seekable: bool) -> Kind:
    if stat.S_ISSOCK(mode):
        return Kind.SOCKET
    if stat.S_ISFIFO(mode):
        return Kind.PIPE
    if seekable and (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        return Kind.FILE
    return Kind.OTHER


def appends(fd: int) -> bool:
    """Whether every write goes to the end of the file, whatever its offset (O_APPEND)."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)


def undelivered(fd: int) -> int:
    """Bytes in a socket that its peer has not acknowledged, sent or not (tcp(7), SIOCOUTQ)."""
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(count)


@contextlib.contextmanager
def borrowed_socket(fd: int) -> Iterator[socket.socket]:
    """A socket object for a descriptor that stays its owner's."""
    borrowed = socket.socket(fileno=fd)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _set_time_limit(fd: int, event: int, seconds: float) -> None:
    """Have the kernel end a blocking call on a socket that moves nothing for ``seconds``.

    So one system call may carry as much as it can, without a poll around each.  The limit stays:
    taking it back would cost another call per transfer, and whoever uses the socket next is served
    by it too (EAGAIN instead of blocking for ever).  A timeval of zero would mean "no limit".
    """
    whole = int(seconds)
    limit = struct.pack("ll", whole, int((seconds - whole) * 1e6) or (0 if whole else 1))
    option = socket.SO_RCVTIMEO if event == READABLE else socket.SO_SNDTIMEO
    with borrowed_socket(fd) as sock:
        sock.setsockopt(socket.SOL_SOCKET, option, limit)


_PEER_GONE = {
    errno.EPIPE,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.ETIMEDOUT,  # of TCP: the peer no longer acknowledges
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
}
_STORE_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_STORE_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


def translated(error: OSError, moved: int) -> errors.Error:
    """The error of ours that an OSError from a descriptor stands for."""
    if error.errno in _PEER_GONE:
        return errors.PeerGone(moved=moved)
    if error.errno in _STORE_FULL:
        return errors.StoreFull(moved=moved)
    if error.errno in _STORE_UNWRITABLE:
        return errors.StoreUnwritable(moved=moved)
    return errors.TransferError(reason=error.strerror or str(error), moved=moved)


def translated_peer(error: OSError, moved: int) -> errors.Error:
    """The error that an OSError from a Readable or Writable stands for.

    Its errno says nothing (of an ssl.SSLError it is OpenSSL's number, of a host's wsgi.input often
    None): whatever it was, the peer can no longer be read or written.
    """
    if isinstance(error, TimeoutError) and error.errno is None:
        return errors.PeerStalled(f"the peer stalled after {moved} bytes", moved=moved)
    return errors.PeerGone(moved=moved)
