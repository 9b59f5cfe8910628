"""Clients of one process: each fetches the image once, and drops in the kernel what it gets.

Through TLS it has to take it, to decrypt it.
"""

import contextlib
import errno
import http.client
import io
import math
import os
import resource
import select
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from headrace.bench import raw
from headrace.bench.spec import Spec
from headrace.bench.transfers import UNHURRIED, Subject, call_size
from headrace.client import Connection
from headrace.client.connection import HEAD_LIMIT
from headrace.client.images import image_path
from headrace.errors import ClientError
from headrace.transfer.loopback import unpace

_CHUNK_LINE = 64  # bytes


@dataclass(frozen=True)
class Seen:
    """What these clients have seen, in bytes and in seconds from the word to go.

    ``firsts`` has one value for each that got any byte, ``lasts`` for each that got all; of the
    rest one has ``failure``, unless the time was up.
    """

    bytes: int
    calls: int
    seconds: float
    firsts: list[float]
    lasts: list[float]
    failure: str | None
    mss: int
    congestion: str
    buffers: tuple[int, int, int, int]


class Crowd:
    """``count`` clients, who have asked for nothing yet; raises what the service refuses with."""

    def __init__(self, connection: Connection, spec: Spec, subject: Subject, count: int) -> None:
        connection.request("GET", "/v2/images", query={"limit": "1"})
        connection.open()
        sock = connection.socket
        self._family, self._address = sock.family, sock.getpeername()
        connection.close()
        self._host = connection.endpoint.host
        self._tls = connection.tls_context() if connection.encrypted else None
        self._head = _head(connection, subject)
        self._spec = spec
        self._size = subject.size
        self._count = count
        # Without TLS nothing is ever written there: no page of it becomes real.
        self._waste = memoryview(bytearray(call_size(spec)))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def fetch(self, seconds: float | None) -> Seen:
        """All fetch from this moment on, until all have it or the time is up."""
        began = time.monotonic()
        end = math.inf if seconds is None else began + seconds
        clients = [self._client() for _ in range(self._count)]
        failure = self._serve(clients, end)
        took = time.monotonic() - began
        sock = clients[0].sock
        seen = Seen(
            bytes=sum(each.taken for each in clients),
            calls=sum(each.calls for each in clients),
            seconds=took,
            firsts=[each.first - began for each in clients if each.first],
            lasts=[each.last - began for each in clients if each.last],
            failure=failure,
            mss=sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG),
            congestion=raw.congestion(sock),
            buffers=(*self._buffers, *raw.buffers(sock)),
        )
        for each in clients:
            each.sock.close()
        return seen

    def _serve(self, clients: list["_Client"], end: float) -> str | None:
        """Have all do what they can until ``end``; why one of them could not."""
        waiting = {client.fd: client for client in clients}
        failure: str | None = None
        parent, heard = os.getppid(), time.monotonic()
        with select.epoll() as poll:
            for fd in waiting:
                poll.register(fd, select.EPOLLOUT)
            while waiting and (now := time.monotonic()) < end:
                ready = poll.poll(min(1.0, end - now))
                if ready:
                    heard = now
                elif now - heard > UNHURRIED or os.getppid() != parent:
                    return f"no byte came for {UNHURRIED:g} s"
                for fd, _ in ready:
                    try:
                        if waiting[fd].turn(poll, self._waste):
                            continue
                    except BlockingIOError:  # woken for nothing
                        continue
                    except (OSError, ValueError, http.client.HTTPException, ClientError) as error:
                        failure = _reason(error)
                    poll.unregister(fd)
                    waiting.pop(fd).leave()
        return failure

    def _client(self) -> "_Client":
        sock = self._socket()
        if self._tls is None:
            return _Client(sock, self._head, self._size)
        return _TlsClient(sock, self._head, self._size, self._tls, self._host)

    def _socket(self) -> socket.socket:
        """A socket that begins to connect: whoever waits for others to connect reads nothing."""
        try:
            sock = socket.socket(self._family, socket.SOCK_STREAM)
        except OSError as error:  # too many open files
            raise ClientError(reason=f"no socket for each client: {error.strerror}") from error
        raw.prepare(sock, self._spec.local_buffer, self._spec)
        if self._spec.congestion is None:
            unpace(sock, str(self._address[0]))
        self._buffers = raw.buffers(sock)
        sock.setblocking(False)
        failed = sock.connect_ex(self._address)
        if failed not in (0, errno.EINPROGRESS):
            raise ClientError(reason=os.strerror(failed))
        return sock


class _Client:
    """One download, whose framing is peeked at and taken off alone: all else is dropped."""

    __slots__ = (
        "_chunked", "_head", "_left", "_partial", "_wanted", "_way_in", "calls", "fd", "first",
        "last", "sock", "taken",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, head: bytes, wanted: int) -> None:
        self.sock = sock
        self._way_in: socket.socket | _Encrypted = sock
        self.fd = sock.fileno()
        self._head = head
        self._wanted = wanted
        self._left: int | None = None  # of all data, or of the chunk; unknown before the answer
        self._chunked = False
        self._partial = b""  # of a line that is not all here
        self.taken = 0
        self.calls = 0
        self.first = self.last = 0.0

    def turn(self, poll: select.epoll, waste: memoryview) -> bool:
        """Do what can be done now; False when all is here."""
        if self._head:
            self._check_connected()
            self.sock.sendall(self._head)
            self._head = b""
            poll.modify(self.fd, select.EPOLLIN)
            return True
        if self._left is None:
            self._begin()
            return True
        if not self._left:
            return self._next_chunk()
        count = self._way_in.recv_into(waste, min(self._left, len(waste)), socket.MSG_TRUNC)
        self.calls += 1
        if not count:
            raise ClientError(reason="the connection was closed in the middle of an image")
        if not self.taken:
            self.first = time.monotonic()
        self.taken += count
        self._left -= count
        if self._left or self._chunked:
            return True
        return self._end()

    def _check_connected(self) -> None:
        failed = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))

    def leave(self) -> None:
        """Have the service see that this one is gone; its socket can still be asked."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def _begin(self) -> None:
        """Read the answer's head, once all of it is there."""
        head = self._line(HEAD_LIMIT, b"\r\n\r\n")
        if head is None:
            return
        fields = _fields(head)
        self._chunked = fields["Transfer-Encoding"] == "chunked"
        # Glance's cache says no length while it is filled: then the connection's end is the end.
        length = fields.get("Content-Length", str(self._wanted))
        if not self._chunked and length != str(self._wanted):
            raise ClientError(reason=f"{length} bytes come instead of {self._wanted}")
        self._left = 0 if self._chunked else self._wanted

    def _next_chunk(self) -> bool:
        """Read the line before a chunk (RFC 9112 section 7.1), with the end of the chunk before."""
        line = self._line(_CHUNK_LINE, b"\r\n", skip=2 if self.taken else 0)
        if line is None:
            return True
        self._left = int(line.partition(b";")[0], 16)
        return bool(self._left) or self._end()

    def _line(self, most: int, end: bytes, skip: int = 0) -> bytes | None:
        """Take what stands before ``end``, and that, and ``skip`` bytes before; None when it is not
        all there."""
        new = self._way_in.recv(most, socket.MSG_PEEK)
        data = self._partial + new
        text, found, _ = data[skip:].partition(end)
        if found:
            self._way_in.recv(skip + len(text) + len(end) - len(self._partial))
            self._partial = b""
            return text
        if not new or len(data) >= most:
            raise ClientError(reason="the connection was closed without an answer, or in it")
        self._partial = data
        self._way_in.recv(len(new))
        return None

    def _end(self) -> bool:
        if self.taken != self._wanted:
            raise ClientError(reason=f"{self.taken} bytes came instead of {self._wanted}")
        self.last = time.monotonic()
        return False


class _Encrypted:
    """A socket through TLS, which can be peeked at as a plain one can."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._peeked = b""

    def has_more(self) -> bool:
        """Whether there is something of which epoll will not tell."""
        return bool(self._peeked) or self._sock.pending() > 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self._peeked:
            with _would_block():
                self._peeked = self._sock.recv(size)
        data = self._peeked[:size]
        if not flags & socket.MSG_PEEK:
            self._peeked = self._peeked[len(data) :]
        return data

    def recv_into(self, buffer: memoryview, size: int, flags: int = 0) -> int:
        if self._peeked:
            return len(self.recv(size))
        with _would_block():
            return self._sock.recv_into(buffer, size)


class _TlsClient(_Client):
    """One whose connection begins with a handshake."""

    __slots__ = ("_encrypted", "_host", "_shaken", "_tls")

    def __init__(
        self, sock: socket.socket, head: bytes, wanted: int, tls: ssl.SSLContext, host: str
    ) -> None:
        super().__init__(sock, head, wanted)
        self._tls = tls
        self._host = host
        self._encrypted: _Encrypted | None = None
        self._shaken = False

    def turn(self, poll: select.epoll, waste: memoryview) -> bool:
        if self._encrypted is None:
            self._encrypted = self._begin_tls()
        if not (self._shaken or self._shake(poll)):
            return True
        while super().turn(poll, waste):
            if not self._encrypted.has_more():
                return True
        return False

    def _begin_tls(self) -> _Encrypted:
        self._check_connected()
        self.sock = sock = self._tls.wrap_socket(
            self.sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        self._way_in = encrypted = _Encrypted(sock)
        return encrypted

    def _shake(self, poll: select.epoll) -> bool:
        """Go on with the handshake; whether it is done."""
        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            poll.modify(self.fd, select.EPOLLIN)
        except ssl.SSLWantWriteError:
            poll.modify(self.fd, select.EPOLLOUT)
        else:
            self._shaken = True
        return self._shaken


@contextlib.contextmanager
def _would_block() -> Iterator[None]:
    """Have TLS say as a socket does that nothing is there."""
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise BlockingIOError from None


def _head(connection: Connection, subject: Subject) -> bytes:
    endpoint = connection.endpoint
    lines = [
        f"GET {endpoint.prefix}{image_path(subject.image_id or '')}/file HTTP/1.1",
        f"Host: {urlsplit(endpoint.url).netloc}",
        "Accept: application/octet-stream",
        "Connection: close",
        *(f"{name}: {value}" for name, value in connection.headers().items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _fields(head: bytes) -> http.client.HTTPMessage:
    """The fields of an answer's head; raises ClientError if there is no data in the answer."""
    line, _, fields = head.partition(b"\r\n")
    if not line.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")):
        raise ClientError(reason=f"the answer is {line[:80].decode('latin-1')}")
    return http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
