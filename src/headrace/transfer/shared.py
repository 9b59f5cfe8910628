"""One descriptor a file, however many send from it: ten thousand downloads of one image need one.

For what reads by offset only; a file is known by its device and inode, so a file that took its name
is another.
"""

import os
import threading

from headrace.transfer.extent import Extent


class Descriptors:
    """Descriptors that extents share, each closed with the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[tuple[int, int], int] = {}
        self._users: dict[int, int] = {}
        self._keys: dict[int, tuple[int, int]] = {}

    def share(self, extent: Extent) -> None:
        """Have the extent use the descriptor that others use already, or let them use its own."""
        status = os.fstat(extent.fd)
        key = status.st_dev, status.st_ino
        with self._lock:
            fd = self._files.setdefault(key, extent.fd)
            self._keys[fd] = key
            self._users[fd] = self._users.get(fd, 0) + 1
        extent.borrow(fd, self._release)

    def users(self, extent: Extent) -> int:
        """How many extents use the descriptor of this one, which shares it."""
        return self._users[extent.fd]

    def _release(self, fd: int) -> None:
        with self._lock:
            self._users[fd] -= 1
            if self._users[fd]:
                return
            del self._users[fd], self._files[self._keys.pop(fd)]
        os.close(fd)
