"""Extent: the one value in which metadata and bytes meet."""

import contextlib
import os
from collections.abc import Callable

from headrace import errors

OnClose = Callable[[int, bool | None], None]
Release = Callable[[int], None]


class Extent:
    """``length`` bytes of the regular file open as ``fd``, from ``offset``.

    It owns the descriptor; ``path`` is the file's name, for a front end that opens it itself.  Any
    layer may pass it on, ``narrow`` it and subscribe to its end with ``on_close``; only transfer/
    opens it up, and notes in ``sent`` how far it came and in ``way`` how.  It has a file's face
    (``fileno``, ``read``, ``tell``, ``seek``, ``close``) so that a host's ``wsgi.file_wrapper``
    takes it as it is; the descriptor's own position is kept at ``offset``, where such hosts start.
    """

    __slots__ = (
        "_left", "_observers", "_position", "_release", "fd", "length", "offset", "path", "sent",
        "way",
    )  # fmt: skip

    def __init__(self, fd: int, offset: int, length: int, path: str = "") -> None:
        self.fd = fd
        self.offset = offset
        self.length = length
        self.path = path
        self.sent = 0
        self.way = "copy"
        self._left = False
        self._position = 0
        self._observers: list[OnClose] = []
        self._release: Release = os.close
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
        """Have ``observer(bytes_sent, ok)`` called once, when the extent is closed.

        ``ok`` is whether all of it was sent, None when that was left to a host.
        """
        self._observers.append(observer)

    def leave_to_host(self, way: str = "host") -> None:
        """Note that a host sends the bytes itself, which never says how many they were.

        ``close`` then finds out whether the file was cut short underneath.
        """
        self._left = True
        self.way = way

    def borrow(self, fd: int, release: Release) -> None:
        """Use ``fd``, open on the same file or the very one, in place of the descriptor it owns.

        ``release(fd)`` is called when it is closed; the position of ``fd`` is not the extent's.
        """
        if fd != self.fd:
            self._release(self.fd)
        self.fd, self._release = fd, release

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
        """The position in the file: mod_wsgi starts from it as others do from the descriptor's."""
        return self.offset + self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, which stays within the extent; returns it, as ``tell`` does."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self.offset + self.length}
        wanted = base[whence] + position
        self._position = min(max(wanted - self.offset, 0), self.length)
        return self.tell()

    def close(self) -> None:
        """Close the descriptor and tell the observers; harmless when closed already.

        Raises FileTruncated when the bytes were left to a host and are not all there: hosts that
        meet the end of the file take it for the end of the answer, and would go on with the next.
        """
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        missing = self._missing(fd) if self._left else 0
        with contextlib.suppress(OSError):
            self._release(fd)
        ok = None if self._left else self.sent == self.length
        for observer in self._observers:
            observer(self.sent, ok)
        if missing:
            raise errors.FileTruncated(missing=missing, moved=self.length - missing)

    def _missing(self, fd: int) -> int:
        try:
            return max(self.offset + self.length - os.fstat(fd).st_size, 0)
        except OSError:  # of a file server: nothing is known
            return 0
