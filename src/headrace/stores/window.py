"""The writer of remote stores: a window of local disk that slides over the data.

What lands goes into a file without a name, as in a local store: it is spliced there, the digests
follow behind, and its head and tail can be inspected.  Threads follow, too, and give the store one
part after another.  What the store has and nobody will read again is punched out of the file, and
whoever brings more waits for that: whatever the size of the image, and whether it is known or not,
no more than the window is held.
"""

import contextlib
import errno
import logging
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from typing import Protocol

from headrace import errors
from headrace.model import MIB
from headrace.transfer.allocation import punch
from headrace.transfer.engine import FileSink

_log = logging.getLogger(__name__)

HEAD = 16 * MIB
TAIL = 2 * MIB
"""What stays until the end, for the inspection of formats; none looks for more."""

_LEAST_PUNCH = MIB
_LOOK_AGAIN = 0.05  # seconds; readers behind do not tell when they are further


class Parts(Protocol):
    """An object on its way to a remote store, in parts; each ``put`` may be in its own thread."""

    def size_of(self, number: int) -> int:
        """How many bytes part ``number`` (from 0) has; the last one may have fewer."""
        ...

    def put(self, number: int, fd: int, offset: int, length: int, last: bool) -> None:
        """Bring the store a part: ``length`` bytes at ``offset`` of the file ``fd``.

        ``last`` is whether it is the last one: the only one, if its number is 0.  An empty object
        has one empty part.  May be repeated by itself as long as it has not returned.  Raises
        StoreFull, StoreUnwritable, ServiceUnavailable.
        """
        ...

    def complete(self, size: int) -> str:
        """Make an object of ``size`` bytes of the parts, all of which are there; its location URL.

        Raises DataExists when the name is taken, and what ``put`` raises; then the object is not
        there, as far as anybody can tell.
        """
        ...

    def retract(self) -> None:
        """Remove the object that ``complete`` made, and never one of another writer."""
        ...

    def stop(self) -> None:
        """Have every ``put`` that is under way fail soon."""
        ...

    def abort(self) -> None:
        """Remove the parts, none of which is under way any more; nothing after ``complete``."""
        ...


class WindowWriter:
    """Data on its way into a remote store; see ``stores.base.Writer``.

    ``fd`` is an empty file, which becomes the writer's; ``streams`` is how many parts go at a time.
    As many parts and two more, besides HEAD and TAIL, are in the window at most.
    """

    landed = 0

    def __init__(self, parts: Parts, fd: int, *, streams: int = 2) -> None:
        self._parts = parts
        self._streams = streams
        self._file: int | None = fd
        self._read: Callable[[], int] | None = None
        self._changed = Condition()
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: list[Future[None]] = []
        self._number = 0
        self._begun = 0  # all before has been given to a thread
        self._done: dict[int, int] = {}  # where a part that is there begins: where it ends
        self._there = 0  # the store has all before
        self._punched = HEAD
        self._punches = True
        self._failure: BaseException | None = None
        self._complete = False

    @property
    def sink(self) -> FileSink:
        return FileSink(self._fd())

    @property
    def lost(self) -> range:
        """The bytes that cannot be read back any more."""
        return range(HEAD, self._punched)

    def follow(self, read: Callable[[], int]) -> None:
        self._read = read

    def advance(self, total: int) -> None:
        """Take note of what has landed; waits while the window is full.

        Raises what putting a part met.
        """
        landed = min(total, self._size())
        while (length := self._parts.size_of(self._number)) < landed - self._begun:
            self._begin(length, last=False)  # the last is known by nothing coming behind it
        room = (self._streams + 2) * length + TAIL
        with self._changed:
            while self._failure is None and landed - self._settled(landed) > room:
                self._changed.wait(_LOOK_AGAIN)
            self._raise_failure()
        self._punch(landed)

    def commit(self) -> str:
        try:
            size = self._size()
            self._finish_parts(size)
            url = self._parts.complete(size)
        except BaseException:
            self.abort()
            raise
        self._complete = True
        return url

    def retract(self) -> None:
        if self._complete:
            self._complete = False
            self._parts.retract()

    def abort(self) -> None:
        if self._file is None:
            return
        if not self._complete:
            self._fail(errors.TransferError(reason="the upload was given up", moved=self._there))
            self._parts.stop()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if not self._complete:
            # What cannot be removed now is a leftover for the sweep; the upload has failed anyway.
            with contextlib.suppress(errors.Error):
                self._parts.abort()
        file, self._file = self._file, None
        with contextlib.suppress(OSError):
            os.close(file)

    def _fd(self) -> int:
        if self._file is None:
            raise ValueError("the writer is closed")
        return self._file

    def _size(self) -> int:
        return os.fstat(self._fd()).st_size

    def _begin(self, length: int, *, last: bool) -> None:
        """Give the next part to a thread."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._streams, "part")
        number, offset = self._number, self._begun
        self._number += 1
        self._begun += length
        self._under_way = [each for each in self._under_way if not each.done()]
        self._under_way.append(self._pool.submit(self._put, number, offset, length, last))

    def _put(self, number: int, offset: int, length: int, last: bool) -> None:
        """In a thread: one part."""
        if self._failure is not None:
            return
        try:
            self._parts.put(number, self._fd(), offset, length, last)
        except BaseException as error:
            self._fail(error)
            return
        with self._changed:
            self._done[offset] = offset + length
            while (end := self._done.pop(self._there, None)) is not None:
                self._there = end
            self._changed.notify_all()

    def _finish_parts(self, size: int) -> None:
        """Begin what is left and wait for all; raises what putting one met."""
        while (length := self._parts.size_of(self._number)) < size - self._begun:
            self._begin(length, last=False)
        if size > self._begun or not self._number:
            self._begin(size - self._begun, last=True)
        for each in self._under_way:
            each.result()
        with self._changed:
            self._raise_failure()

    def _fail(self, failure: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _settled(self, landed: int) -> int:
        """How many of the first bytes the store has and nobody will read again."""
        return min(self._there, landed if self._read is None else self._read())

    def _punch(self, landed: int) -> None:
        end = min(self._settled(landed), landed - TAIL)
        if not self._punches or end - self._punched < _LEAST_PUNCH:
            return
        end -= end % _LEAST_PUNCH
        self._punches = punch(self._fd(), self._punched, end - self._punched)
        if not self._punches:
            _log.warning("an upload is held on disk whole: no holes can be made there")
            return
        self._punched = end


class AdoptedWindow(WindowWriter):
    """A whole file that is there already, and goes to the store from where it is.

    ``fd`` becomes the writer's; nothing is written to the file.
    """

    def __init__(self, parts: Parts, fd: int, *, streams: int = 2) -> None:
        super().__init__(parts, fd, streams=streams)
        self._punches = False
        self._seen = _version(fd)
        self.landed = self._size()

    def commit(self) -> str:
        if _version(self._fd()) != self._seen:
            self.abort()
            raise errors.UploadIncomplete(reason="its file was written to while it was hashed")
        return super().commit()


def new_window(directory: str) -> int:
    """The file of a window, without a name; raises StoreFull, StoreUnwritable."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            return os.dup(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.StoreFull() from error
        _log.error("no window in %s: %s", directory, error.strerror)
        raise errors.StoreUnwritable() from error


def _version(fd: int) -> tuple[int, int]:
    """What of a file changes whenever it is written."""
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns
