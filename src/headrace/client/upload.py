"""Sending an image's data: the descriptor decides the way, no byte is sent that is not wanted."""

import contextlib
import fcntl
import http.client
import os
import select
import socket
import ssl
import stat
import struct
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Self
from urllib.parse import quote

from headrace.client.connection import JSON, Connection, error_of
from headrace.errors import ClientError, PeerGone, PeerStalled, Unauthenticated
from headrace.transfer.engine import Moved, Progress, Sender, Stream, pump, pump_all
from headrace.transfer.extent import Extent

OCTETS = "application/octet-stream"
SIZE = "x-openstack-image-size"
STORE = "x-image-meta-store"
PIPE_SIZE = 1 << 20  # what an unprivileged process may ask for (fs.pipe-max-size)
BLOCK = 1 << 20
BACKOFF_S = (0.2, 0.5, 1.0, 2.0)
# After the last byte the service still hashes and syncs what it has; 20 MB/s is a slow disk.
SETTLING_BYTES_PER_S = 20e6


class Kind(StrEnum):
    """What a body's descriptor is, as far as the way out depends on it."""

    FILE = "file"
    PIPE = "pipe"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Body:
    """Image data to be sent: what is left in ``fd``, after ``head``, bytes already taken from it.

    ``size`` is the whole of it in bytes, None if only its end will tell.  The descriptor stays the
    caller's.
    """

    fd: int
    kind: Kind
    offset: int = 0
    size: int | None = None
    head: bytes = b""

    @classmethod
    def of(cls, fd: int, *, size: int | None = None, head: bytes = b"") -> Self:
        """The body ``fd`` gives from its current position to its end.

        ClientError for a file that does not know its end, as those of /proc.
        """
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            offset = os.lseek(fd, 0, os.SEEK_CUR)
            try:
                # st_size of a block device is 0; its end is not.
                end = os.lseek(fd, 0, os.SEEK_END)
            except OSError as error:
                raise ClientError(reason="the data is in a file without a size") from error
            os.lseek(fd, offset, os.SEEK_SET)
            return cls(fd, Kind.FILE, offset, max(end - offset, 0))
        return cls(fd, Kind.PIPE if stat.S_ISFIFO(mode) else Kind.OTHER, 0, size, head)


def upload(
    connection: Connection,
    image_id: str,
    body: Body,
    *,
    store: str | None = None,
    part: str = "file",
    progress: Progress | None = None,
) -> Moved:
    """Send ``body`` as the data of the image and wait until the service has it; how it went.

    ``store`` is the id of the one that is to have it, None for the service's default.  ``part`` is
    the image's part that takes it: file, or stage.

    Tried again, a bounded number of times, only when nothing can be lost, and the body is a file:
    the connection was refused or reset before a byte of the body was on its way.  Once more, too,
    with another token, if its token has ended meanwhile; what is no file must not have begun then.
    """
    path = f"/v2/images/{quote(image_id, safe='')}/{part}"
    delays = list(BACKOFF_S if body.kind is Kind.FILE else ())
    attempt = partial(_attempt, connection, path, _headers(body, store), body, progress)
    while True:
        try:
            return connection.with_token(attempt) if body.kind is Kind.FILE else attempt()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if not delays or not isinstance(error, ConnectionError):
                raise connection.failed(error) from error
        time.sleep(delays.pop(0))


def _attempt(
    connection: Connection,
    path: str,
    headers: dict[str, str],
    body: Body,
    progress: Progress | None,
) -> Moved:
    """One upload; a ConnectionError escapes only if not a byte of the body was sent."""
    announce = partial(_announce, connection, path, headers)
    if body.kind is Kind.FILE:  # all of it can be done again
        announce()
    else:
        connection.with_token(announce)
    try:
        moved = _send(connection, body, progress)
    except (PeerGone, PeerStalled) as cut:
        with contextlib.closing(connection):
            _raise_answer(connection)
        if not cut.fields.get("moved"):
            raise ConnectionResetError(str(cut)) from cut
        raise
    except OSError as error:
        connection.close()
        raise ClientError(reason=f"the data cannot be read: {error.strerror or error}") from error
    except BaseException:
        connection.close()  # what was announced can no longer be kept
        raise
    patience = connection.timeout + moved.bytes / SETTLING_BYTES_PER_S
    try:
        with connection.answer(timeout=patience) as response:
            response.read()
    except Unauthenticated:
        connection.close()  # which its server may do as well: a body goes out again on a new one
        raise
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise connection.failed(error, waited=patience) from error
    return moved


def _announce(connection: Connection, path: str, headers: dict[str, str]) -> None:
    """Send the head; raises the service's refusal, if it has one before the body."""
    connection.send_head("PUT", path, headers)
    if "Expect" in headers:
        refusal = connection.continued()
        if refusal is not None:
            with contextlib.closing(connection):
                raise error_of(refusal)


def _headers(body: Body, store: str | None) -> dict[str, str]:
    headers = {"Accept": JSON, "Content-Type": OCTETS}
    if store is not None:
        headers[STORE] = store
    if body.size is not None:
        headers[SIZE] = str(body.size)
    if body.kind is Kind.FILE:
        headers["Content-Length"] = str(body.size)
    else:
        headers["Transfer-Encoding"] = "chunked"
    if body.size != 0:
        headers["Expect"] = "100-continue"
    return headers


def _raise_answer(connection: Connection) -> None:
    """Raise the error the service gave before it stopped reading, if it gave one."""
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        connection.answer(timeout=1.0),
    ):
        return


def _send(connection: Connection, body: Body, progress: Progress | None) -> Moved:
    sock = connection.socket
    # OpenSSL alone can write to an encrypted connection.
    sink = Sender(sock) if connection.encrypted else Stream(sock.fileno(), stall=connection.timeout)
    if body.kind is Kind.FILE:
        # The extent owns its descriptor; the body's stays the caller's.
        with contextlib.closing(Extent(os.dup(body.fd), body.offset, body.size or 0)) as extent:
            return pump(extent, sink, progress=progress)
    if body.kind is Kind.PIPE and not connection.encrypted:
        pieces = _lying_in_pipe(body, sock)
    else:
        pieces = _read_blocks(body)
    return pump_all(_framed(sock, pieces), sink, progress=progress)


def _framed(sock: socket.socket, pieces: Iterator[bytes | Stream]) -> Iterator[bytes | Stream]:
    """Make each piece a chunk (RFC 9112 §7.1): the framing goes out as the next piece is asked for.

    A line that precedes a piece waits for it in the kernel, to leave in the same segment.
    """
    more = 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_MORE
    line = b"%x\r\n"
    sent = 0
    try:
        for piece in pieces:
            size = len(piece) if isinstance(piece, bytes) else piece.length or 0
            sock.sendall(line % size, more)
            yield piece
            sent += size
            line = b"\r\n%x\r\n"
        sock.sendall(line % 0 + b"\r\n")
    except TimeoutError as error:
        raise PeerStalled(seconds=sock.gettimeout(), moved=sent) from error
    except ConnectionError as error:
        raise PeerGone(moved=sent) from error


def _lying_in_pipe(body: Body, sock: socket.socket) -> Iterator[bytes | Stream]:
    """What lies in the pipe at a time, until its end."""
    with contextlib.suppress(OSError):  # over the user's pipe-user-pages-soft: it stays as it is
        fcntl.fcntl(body.fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    sent = len(body.head)
    if body.head:
        yield body.head
    while size := _wait(body.fd, sock, sent):
        yield Stream(body.fd, length=size)
        sent += size


def _read_blocks(body: Body) -> Iterator[bytes]:
    """What can be read at a time, until the end: of terminals and sockets, and of all for TLS."""
    if body.head:
        yield body.head
    while block := os.read(body.fd, BLOCK):
        yield block


def _wait(pipe: int, sock: socket.socket, moved: int) -> int:
    """Wait until the pipe holds something; how many bytes, 0 at its end.

    A producer may take its time.  If the service answers meanwhile, it wants no more of the body.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(sock, select.POLLIN | select.POLLRDHUP)
    while True:
        events = dict(poll.poll())
        if sock.fileno() in events:
            raise PeerGone(moved=moved)
        waiting = in_pipe(pipe)
        if waiting or events.get(pipe, 0) & select.POLLHUP:
            # The last writer may have written between the count and the hang-up.
            return waiting or in_pipe(pipe)


def in_pipe(fd: int) -> int:
    """How many bytes lie unread in the pipe."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))
    return int(waiting)
