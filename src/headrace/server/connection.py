"""One accepted connection: its reading limits and the ways it can end."""

import contextlib
import io
import math
import re
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, cast

from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn

from headrace.errors import HeaderTooLarge, PeerStalled
from headrace.transfer.loopback import unpace

# As nginx: lingering_time and lingering_timeout.
LINGER = 30.0
LINGER_IDLE = 5.0

MAX_HEAD = 64 * 1024
"""Most bytes of a request's head: two tokens of the longest kind, and as much again.

gunicorn bounds each field and their number only, which makes 1.6 MB; it copies and scans all that
it has of a head with every segment that arrives, and repeats what it refuses in answer and log.
"""

# The end of a head, or a line end of which the parser does not want to know more.
_ENOUGH = re.compile(rb"\r\n\r\n|(?<!\r)\n")
_READ = 8192  # as gunicorn reads

_RUSH_PATIENCE = 0.2  # seconds in which a fast peer has taken something

_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; CPython names it from 3.12 on


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def _limit_unsent(sock: socket.socket, size: int) -> None:
    """Have so many bytes at most wait in the kernel without being on the wire; 0: any number."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, size)


def writable_within(sock: socket.socket, seconds: float) -> bool:
    """Whether the socket has room, or gets some within ``seconds``."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


@contextlib.contextmanager
def rushing(sock: socket.socket, stall: float, unsent: int) -> Iterator[None]:
    """Have calls on the socket block, but for no longer than a fast peer lets them, and much wait
    in the kernel for it.

    Afterwards ``stall`` seconds and ``unsent`` bytes are the limits again.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_RUSH_PATIENCE))
    _limit_unsent(sock, 0)
    sock.setblocking(True)
    try:
        yield
    finally:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(stall))
        _limit_unsent(sock, unsent)


class Unreader(SocketUnreader):  # type: ignore[misc]
    """Reads from the peer; what is expected must have arrived by ``deadline``: the head of a
    request, within ``MAX_HEAD`` bytes, or a body that is read and not spliced.

    gunicorn itself lets a peer that sends either byte by byte hold a thread for ever.
    """

    patience = 0.0
    deadline: float | None = None
    left: float = 0

    def expect_head(self, seconds: float, deadline: float | None = None) -> None:
        """A head begins, or began when its end was due at ``deadline``."""
        self._expect(seconds, deadline or time.monotonic() + seconds, MAX_HEAD - self.buf.tell())

    def expect_body(self, seconds: float, deadline: float) -> None:
        """More of a body is to be there at ``deadline``, ``seconds`` after it was first asked."""
        self._expect(seconds, deadline, math.inf)

    def expect_anything(self) -> None:
        """The limit is the peer's silence alone."""
        self.deadline = None
        self.sock.setblocking(True)

    def _expect(self, seconds: float, deadline: float, most: float) -> None:
        self.patience, self.deadline, self.left = seconds, deadline, most

    def chunk(self, size_hint: int | None = None) -> bytes:
        if self.deadline is None:
            data: bytes = super().chunk(size_hint)
            return data
        left = self.deadline - time.monotonic()
        if left <= 0:  # also of a peer that never falls silent
            raise PeerStalled(seconds=self.patience, moved=0)
        if self.left <= 0:
            raise HeaderTooLarge(name="section", limit=MAX_HEAD)
        try:
            self.sock.settimeout(left)
            data = super().chunk(size_hint)
        except TimeoutError as error:
            raise PeerStalled(seconds=self.patience, moved=0) from error
        self.left -= len(data)
        return data


class Connection(TConn):  # type: ignore[misc]
    """A connection; ``stall`` is for how many seconds its peer may move nothing.

    ``unsent`` is how many bytes may wait in the kernel without being on the wire, 0 for any.
    """

    def __init__(
        self, cfg: Any, sock: socket.socket, peer: Any, server: Any, stall: float, unsent: int
    ) -> None:
        super().__init__(cfg, sock, peer, server)
        self.stall = stall
        self.for_metrics = False
        self.queued = 0.0
        # Whether the request has been read to its end.
        self.settled = False
        # When the rest of a head is due of which a part has arrived.
        self.head_due: float | None = None
        if isinstance(peer, tuple):  # not of a Unix socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            unpace(sock, peer[0])
            _limit_unsent(sock, unsent)
        # The kernel ends a blocking call on a silent peer (EAGAIN), so none needs a poll before it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(stall))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(stall))

    def init(self) -> None:
        """Get ready to read the next request's head."""
        unreader = self._unreader()
        self.settled = False
        unreader.expect_head(self.stall, self.head_due)
        self.head_due = None

    def receive_head(self) -> bool:
        """Take what has arrived of the next head, without waiting for more; whether there is
        something to do: all of it, more than there may be of it, or the end of the connection.

        So that a head which arrives byte by byte, or never, needs no thread until it is there.
        """
        unreader = self._unreader()
        held = unreader.buf.getvalue()
        if len(held) >= MAX_HEAD or _ENOUGH.search(held):
            return True
        data: bytes | None
        try:
            data = self.sock.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            data = None
        except OSError:
            return True
        if data:
            unreader.buf.seek(0, io.SEEK_END)
            unreader.buf.write(data)
            if data.endswith(b"\r\n\r\n"):  # nearly always; a search costs more
                return True
            if len(held) + len(data) >= MAX_HEAD or _ENOUGH.search(held[-3:] + data):
                return True
        if (data or held) and self.head_due is None:
            self.head_due = time.monotonic() + self.stall
        return data == b""

    def _unreader(self) -> Unreader:
        if not self.initialized:
            super().init()
            self.parser.unreader = Unreader(self.sock)
        return cast(Unreader, self.parser.unreader)

    def end_of_head(self) -> None:
        """From here on the limit is the peer's silence alone."""
        self._unreader().expect_anything()

    def unread(self) -> bool:
        """Whether something has arrived that nobody will read, a pipelined request say."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def linger(self, seconds: float) -> None:
        """Say goodbye, then discard what the peer still sends, until it is done or time is up.

        Closing at once would answer those bytes by a reset, on which the peer's kernel may throw
        away the response it has not read yet (RFC 9112 section 9.6).
        """
        waste = bytearray(64 * 1024)
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self.sock.settimeout(min(left, LINGER_IDLE))
                # MSG_TRUNC on TCP drops the bytes in the kernel instead of copying them.
                if not self.sock.recv_into(waste, len(waste), socket.MSG_TRUNC):
                    break

    def speaks_within(self, seconds: float) -> bool:
        """Whether a next request is there, or arrives within ``seconds``."""
        if self.parser.unreader.buf.getvalue():
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def reset(self) -> None:
        """Have ``close`` drop what the peer did not take, instead of keeping it in the kernel."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def cut(self) -> None:
        """End the connection under whoever is using it: reads see its end, writes fail."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self, graceful: bool = False) -> None:
        """Close the socket; lingering was for the request's thread, not for the main one."""
        with contextlib.suppress(OSError):
            self.sock.close()
