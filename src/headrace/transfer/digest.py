"""Hashes of a file that is still being written, computed behind its writer.

Hashing, not copying, is the price of an upload: md5 and sha512 take 1.3 µs/KB each, receiving 0.3
to 0.8.  So each algorithm has a thread of its own (hashlib and the system calls let go of the
interpreter's lock), which reads what has landed from the page cache into one reused buffer.  By
pread, not by mmap: a file truncated underneath would end the process by SIGBUS.
"""

import hashlib
import os
from collections.abc import Iterable
from threading import Condition, Thread

from headrace import errors
from headrace.transfer.port import translated

# Fits a core's L2 cache; smaller and bigger ones hash no faster.
_BUFFER = 256 << 10

# Less than this is hashed by whoever asks for it, without threads.  It is also how much has to land
# before they are woken again.
_STEP = 1 << 20

# A thread ends within a block; only a dead disk or file server can make one outlast this.
_STOP_SECONDS = 5.0


class Follower:
    """Hashes the file open as ``fd`` from its start, as far as it has been written.

    ``algorithms`` are names that hashlib knows (ValueError if not).  ``fd`` is open for reading and
    stays so until ``finish`` or ``stop`` has returned; its position is neither used nor moved.

    The writer calls ``advance`` as bytes land (it fits the ``progress`` of a pump), then ``finish``
    or ``stop``; ``stop`` may always be called, and again.
    """

    def __init__(self, fd: int, algorithms: Iterable[str]) -> None:
        self._fd = fd
        # For integrity only, which a FIPS build wants to be told before it gives an md5.
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        self._changed = Condition()
        self._landed = 0
        self._finished = False
        self._stopped = False
        self._hashed = dict.fromkeys(self._hashes, 0)
        self._error: errors.Error | None = None
        self._threads: list[Thread] = []

    def advance(self, total: int) -> None:
        """Take note that the first ``total`` bytes have landed."""
        if total - self._landed < _STEP or self._stopped:
            return
        with self._changed:
            self._landed = total
            self._changed.notify_all()
        if not self._threads:
            self._start()

    def hashed(self) -> int:
        """How many of the first bytes have been read for the last time.

        Raises what ``finish`` would, when nothing more will be.
        """
        if self._error is not None:
            raise self._error
        return min(self._hashed.values(), default=self._landed)

    def finish(self, size: int) -> dict[str, str]:
        """The hex digests of the first ``size`` bytes, by algorithm; waits until they are hashed.

        Raises FileTruncated when the file has fewer, TransferError when it cannot be read or when
        an algorithm's thread died.
        """
        if self._stopped:
            raise RuntimeError("the follower was stopped")
        if size < self._landed:
            raise ValueError(f"{size} bytes cannot be all of a file of which {self._landed} landed")
        with self._changed:
            first = not self._finished
            self._landed = size
            self._finished = True
            self._changed.notify_all()
        if first and not self._threads:
            self._hash_unthreaded(size)
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error
        for name, done in self._hashed.items():
            if done != size:
                raise errors.TransferError(
                    reason=f"{name} was computed of {done} bytes, not of {size}", moved=done
                )
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}

    def stop(self) -> None:
        """Give up: the threads end within a block."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def _hash_unthreaded(self, size: int) -> None:
        if size >= _STEP and len(self._hashes) > 1:
            self._start()
            return
        for name in self._hashes:
            self._follow(name)

    def _start(self) -> None:
        for name in self._hashes:
            thread = Thread(target=self._follow, args=(name,), name=f"digest-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)  # only what runs can be joined

    def _follow(self, name: str) -> None:
        """Hash by one algorithm what lands, until all has."""
        digest = self._hashes[name]
        done = 0
        try:
            buffer = memoryview(bytearray(_BUFFER))
            while landed := self._await_more(done):
                while done < landed and not self._stopped:
                    count = os.preadv(self._fd, [buffer[: landed - done]], done)
                    if count == 0:
                        raise errors.FileTruncated(missing=landed - done, moved=done)
                    digest.update(buffer[:count])
                    done += count
                    self._hashed[name] = done
        except OSError as error:
            self._fail(translated(error, done))
        except errors.FileTruncated as error:
            self._fail(error)
        except BaseException as error:
            # Whatever ends this thread, MemoryError above all: nobody else would learn of it.
            failure = errors.TransferError(reason=f"{name} failed: {error!r}", moved=done)
            failure.__cause__ = error
            self._fail(failure)

    def _await_more(self, done: int) -> int:
        """How much has landed, once it is more than ``done``; 0 when nothing will be added."""
        with self._changed:
            while self._landed <= done and not (self._finished or self._stopped):
                self._changed.wait()
            return self._landed if self._landed > done and not self._stopped else 0

    def _fail(self, error: errors.Error) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
