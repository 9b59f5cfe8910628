"""Extent: the one value in which metadata and bytes meet."""

import contextlib
import os
from collections.abc import Callable

OnClose = Callable[[int, bool], None]


class Extent:
    """``length`` bytes of the regular file open as ``fd``, from ``offset``.

    It owns the descriptor.  Any layer may pass it on, ``narrow`` it and subscribe to its end with
    ``on_close``; only transfer/ opens it up.  It has a file's face (``fileno``, ``read``, ``tell``,
    ``seek``, ``close``) so that a host's ``wsgi.file_wrapper`` takes it as it is; the descriptor's
    own position is kept at ``offset``, where such hosts start.
    """

    __slots__ = ("_observers", "_position", "fd", "length", "offset", "sent")

    def __init__(self, fd: int, offset: int, length: int) -> None:
        self.fd = fd
        self.offset = offset
        self.length = length
        self.sent = 0
        self._position = 0
        self._observers: list[OnClose] = []
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)

    def narrow(self, offset: int, length: int) -> None:
        """Keep only ``length`` bytes from ``offset`` within this extent."""
        if not 0 <= offset <= offset + length <= self.length:
            raise ValueError(f"{offset}+{length} lies outside an extent of {self.length} bytes")
        self.offset += offset
        self.length = length
        self._position = 0
        os.lseek(self.fd, self.offset, os.SEEK_SET)

    def on_close(self, observer: OnClose) -> None:
        """Have ``observer(bytes_sent, ok)`` called once, when the extent is closed."""
        self._observers.append(observer)

    @property
    def closed(self) -> bool:
        return self.fd < 0

    def fileno(self) -> int:
        if self.fd < 0:
            raise ValueError("the extent is closed")
        return self.fd

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes from the current position; b"" at the extent's end."""
        left = self.length - self._position
        wanted = left if size < 0 else min(size, left)
        data = os.pread(self.fileno(), wanted, self.offset + self._position) if wanted else b""
        self._position += len(data)
        self.sent = max(self.sent, self._position)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, relative to the extent (not to the file)."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.length}[whence]
        self._position = min(max(base + position, 0), self.length)
        return self._position

    def close(self) -> None:
        """Close the descriptor and tell the observers; harmless when closed already."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        with contextlib.suppress(OSError):
            os.close(fd)
        for observer in self._observers:
            observer(self.sent, self.sent == self.length)
