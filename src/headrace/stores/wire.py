"""What stores have in common that are reached over the network: whom they trust, how requests are
cut short, the digest of a part.
"""

import contextlib
import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from threading import Lock

from headrace import errors
from headrace.transfer import engine

_BUFFER = 256 << 10


class Switch:
    """Cuts the requests that are under way through it, and those to come, once it is off."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sockets: set[socket.socket] = set()
        self.off = False

    def turn_off(self) -> None:
        with self._lock:
            self.off = True
            for sock in self._sockets:
                engine.cut(engine.Stream(sock.fileno()))

    def check(self) -> None:
        """Raises TransferError once it is off."""
        if self.off:
            raise errors.TransferError(reason="it was given up", moved=0)

    @contextlib.contextmanager
    def through(self, sock: socket.socket) -> Iterator[None]:
        """While a connection is used; raises TransferError once it is off."""
        with self._lock:
            self.check()
            self._sockets.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)


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
