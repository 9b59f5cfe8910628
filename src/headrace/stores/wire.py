"""What stores have in common that are reached over the network: whom they trust, how requests are
cut short, answers read whole, the digest of a part.
"""

import contextlib
import hashlib
import http.client
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from threading import Condition

from headrace import errors

_BUFFER = 256 << 10
_LONGEST_ANSWER = 16 << 20  # bytes: of 10,000 names of 1024 each, or a manifest of 8 MiB
_GRACE = 5.0  # seconds


class Switch:
    """Cuts the requests that are under way through it, and those to come, once it is off."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._sockets: set[socket.socket] = set()
        self._sent: set[socket.socket] = set()
        self.off = False

    def turn_off(self) -> None:
        """Cut them, but wait some seconds for the answers to what was sent whole.

        A store may take that whether we are there or not, and would when all was removed.
        """
        with self._changed:
            self.off = True
            for sock in self._sockets - self._sent:
                cut(sock)
            self._changed.wait_for(lambda: not self._sent, _GRACE)
            for sock in self._sent:
                cut(sock)

    def check(self) -> None:
        """Raises TransferError once it is off."""
        if self.off:
            raise errors.TransferError(reason="it was given up", moved=0)

    @contextlib.contextmanager
    def through(self, sock: socket.socket) -> Iterator[Callable[[], None]]:
        """While a connection is used; what it gives is called when all of a body was sent.

        Raises TransferError once it is off.
        """
        with self._changed:
            self.check()
            self._sockets.add(sock)
        try:
            yield lambda: self._is_sent(sock)
        finally:
            with self._changed:
                self._sockets.discard(sock)
                self._sent.discard(sock)
                self._changed.notify_all()

    def _is_sent(self, sock: socket.socket) -> None:
        with self._changed:
            self._sent.add(sock)


def cut(sock: socket.socket) -> None:
    """End a connection under whoever uses it in another thread; harmless when it has ended."""
    with contextlib.suppress(OSError):
        # Not an SSLSocket's own, which would have the other thread go on without TLS.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def trust(what: str, cafile: str | None, *, insecure: bool = False) -> ssl.SSLContext:
    """The authorities of a file, or the system's; ``insecure``: everybody.

    Raises ConfigurationError, which calls whom it is for ``what``.
    """
    try:
        context = ssl.create_default_context(cafile=cafile or None)
    except OSError as error:
        raise errors.ConfigurationError(
            reason=f"{what}: certificate authorities {cafile}: {error.strerror or error}"
        ) from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def whole(response: http.client.HTTPResponse) -> bytes:
    """The body of an answer that is no data; raises OSError, HTTPException when it breaks off."""
    body = response.read(_LONGEST_ANSWER)
    if response.length:  # which http.client leaves to who asked for so many bytes
        raise http.client.IncompleteRead(body, response.length)
    return body


def digest(algorithm: str, fd: int, offset: int, length: int) -> str:
    """The digest in hex of ``length`` bytes at ``offset`` of a file that nobody writes any more.

    Raises FileTruncated.
    """
    found = hashlib.new(algorithm, usedforsecurity=False)
    buffer = memoryview(bytearray(min(_BUFFER, max(length, 1))))
    done = 0
    while done < length:
        count = os.preadv(fd, [buffer[: length - done]], offset + done)
        if count == 0:
            raise errors.FileTruncated(missing=length - done, moved=done)
        found.update(buffer[:count])
        done += count
    return found.hexdigest()
