"""Growing: a file that is sent while another thread or process still fills it.

A fill is known by its file alone, whatever process looks.  It lands from the start on, so that the
file's size is how much has landed; the mode tells how it stands, and whoever fills holds an
exclusive flock on it.
"""

import fcntl
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from enum import Enum, auto

from headrace.errors import FillFailed
from headrace.transfer.extent import Extent

LOOK = 0.005
"""Seconds between two looks at a file of which more is wanted."""

WHOLE = sys.maxsize
"""How far a file is that has been filled and verified."""

_PROBE = 0.1  # seconds between two looks at whether anybody fills

Revive = Callable[[], None]


class Standing(Enum):
    """How a fill stands, as its file's mode has it."""

    UNDER_WAY = auto()  # the owner may write
    FAILED = auto()  # the owner may do nothing
    VERIFIED = auto()  # the owner may only read

    @classmethod
    def of(cls, mode: int) -> "Standing":
        """That of a file with such an ``st_mode``."""
        if mode & stat.S_IWUSR:
            return cls.UNDER_WAY
        return cls.VERIFIED if mode & stat.S_IRUSR else cls.FAILED


class Growing(Extent):
    """The file open as ``fd``, which is to have ``length`` bytes and is still being filled.

    ``fd`` was opened for this alone: on a duplicate of the descriptor that holds the lock, looking
    for the lock would lose it.

    Of the whole file the last byte is withheld until the fill has been verified, so that nobody
    takes a bad one for the image; of a range nothing is.  Not to be left to a host.

    ``stall`` is for how many seconds nothing may land.  ``revive()`` is called when whoever filled
    the file is gone before it was done, until somebody else does; it has that begun, and returns at
    once: who looks may be serving others.

    All that looks at the file raises FillFailed: when the fill failed or stands still.
    """

    __slots__ = ("_grown", "_landed", "_probed", "_revive", "_revived", "_size", "_stall", "grows")

    def __init__(
        self, fd: int, length: int, path: str = "", *, stall: float, revive: Revive | None = None
    ) -> None:
        super().__init__(fd, 0, length, path)
        self.grows = True
        self._size = length
        self._landed = 0
        self._stall = stall
        self._revive = revive
        self._revived = False
        self._grown = self._probed = time.monotonic()

    def look(self) -> int:
        """How many bytes of the file have landed, WHOLE once they are verified.

        One system call, and none when that was seen before; then ``grows`` is False.
        """
        if not self.grows:
            return WHOLE
        status = os.fstat(self.fileno())
        standing, landed = Standing.of(status.st_mode), status.st_size
        if standing is Standing.FAILED:
            raise self._failed("it was given up")
        if landed < (self._landed if standing is Standing.UNDER_WAY else self._size):
            raise self._failed(f"its file has only {landed} bytes")
        if standing is Standing.VERIFIED:
            self.grows = False
            return WHOLE
        if landed > self._landed:
            self._landed = landed
            self._revived = False
            self._grown = time.monotonic()
        else:
            self._stand_still(time.monotonic())
        return landed

    def reach(self, landed: int) -> int:
        """Where in the file ends what may be sent of the extent, when so many bytes have landed."""
        end = self.offset + self.length
        if landed == WHOLE:
            return end
        if self.length == self._size:
            end -= 1
        return max(self.offset, min(landed, end))

    def available(self) -> int:
        """How many bytes of the extent may be sent by now."""
        return self.reach(self.look()) - self.offset

    def wait(self, beyond: int, timeout: float | None = None) -> int:
        """Wait until more than ``beyond`` bytes may be sent, or for so many seconds; how many."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (available := self.available()) <= beyond < self.length:
            if deadline is not None and time.monotonic() >= deadline:
                break
            time.sleep(LOOK)
        return available

    def landings(self) -> Iterator[Extent]:
        """What has landed, part by part, until that is all: Extents of this one's descriptor.

        Each is to be used before the next is asked for, and none to be closed.
        """
        part = Extent(self.fileno(), 0, 0)
        done = 0
        while done < self.length:
            available = self.wait(done)
            part.offset, part.length = self.offset + done, available - done
            yield part
            done = available

    def read(self, size: int = -1) -> bytes:
        """As an Extent's, but waits for something to land; for all of it without a ``size``."""
        left = self.length - self._position
        wanted = left if size < 0 else min(size, left)
        if not wanted:
            return b""
        available = self.wait(self.length - 1 if size < 0 else self._position)
        return super().read(min(wanted, available - self._position))

    def _stand_still(self, now: float) -> None:
        """Nothing has landed since the last look: is anybody at work?"""
        if self._revive is not None and now - self._probed >= _PROBE:
            self._probed = now
            if _is_unattended(self.fd):
                if not self._revived:  # it has its time from now on, once
                    self._revived, self._grown = True, now
                self._revive()
        if now - self._grown >= self._stall:
            raise self._failed(f"nothing landed for {self._stall:g} s")

    def _failed(self, reason: str) -> FillFailed:
        return FillFailed(reason=reason, moved=self.sent)


def _is_unattended(fd: int) -> bool:
    """Whether nobody holds the lock of who fills a file.

    It is shared for a moment to find out: who wants it meanwhile has to wait or try again.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held; or no locks here, of which nothing follows
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True
