"""Entries that a server in front was just told of, and is about to open by their names."""

import os
import threading
import time

from headrace.cache import entry

_TO_OPEN = 10.0  # seconds: it opens a file as soon as it has our answer


class Handed:
    """Keeps each such entry from being removed, by its lock, for so many seconds.

    It has been opened by then, and the server's own descriptor keeps it.
    """

    def __init__(self, seconds: float = _TO_OPEN) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, int]] = {}

    def add(self, image_id: str, fd: int) -> None:
        """Keep the image's entry, whose lock ``fd`` has; that stays the caller's."""
        own = os.dup(fd)  # the lock is that of both
        with self._lock:
            _, before = self._kept.pop(image_id, (0.0, -1))
            self._kept[image_id] = (time.monotonic() + self._seconds, own)
        if before >= 0:
            entry.close(before)
        self.let_go()

    def let_go(self, *, everything: bool = False) -> None:
        """Keep those no longer whose time is over."""
        now = time.monotonic()
        with self._lock:
            over = [each for each, (due, _) in self._kept.items() if everything or due <= now]
            ended = [self._kept.pop(each)[1] for each in over]
        for fd in ended:
            entry.close(fd)
