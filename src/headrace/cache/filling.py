"""The filling of one entry of a cache: bytes brought from where they come, hashed behind, verified.

It has a thread of its own, so that it outlives those who wait for it.  What breaks off is asked for
again from where it is; so is what a dead filler has left.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum

from headrace import errors
from headrace.cache.directory import Entry
from headrace.client.partial import Expected
from headrace.transfer.digest import Follower
from headrace.transfer.engine import FileSink, Progress, Source, Stream, cut, pump_all
from headrace.transfer.writeback import start_writeback

_log = logging.getLogger(__name__)

Fetch = Callable[[int], AbstractContextManager[Iterable[Source]]]
"""offset: all bytes from there on, piece by piece, while the context lasts."""

BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # between attempts that brought next to nothing
_MUCH = 1 << 20  # bytes that are worth another round of attempts

# What has landed of these is not to be gone on with, or there is no room for the rest.
_USELESS = (errors.NoRanges, errors.NotFound, errors.StoreFull, errors.StoreUnwritable)

# Write-back is started every so many bytes.
_STEP = 8 << 20


class Outcome(StrEnum):
    """How a fill ended."""

    WHOLE = "whole"
    WRONG = "wrong"  # its bytes are not the image's
    BROKEN = "broken"  # its origin's fault, or the disk's
    REMOVED = "removed"  # the image was removed from the cache meanwhile
    LEFT = "left"  # for another to go on


Ended = Callable[[int, Outcome], None]
"""Bytes that it brought, how it ended."""


class Fill:
    """Fills ``entry`` with what ``fetch`` brings, until it is what is ``expected``.

    An image whose record names no hash is taken for right when its size is.  ``checksum`` is noted
    beside it; ``ended`` is told of the end, ``progress`` of the bytes there so far.

    With ``keep``, what has landed stays for another to go on with, however this one breaks off:
    unless it is of no use to anybody.
    """

    def __init__(
        self,
        entry: Entry,
        expected: Expected,
        fetch: Fetch,
        *,
        checksum: str | None = None,
        ended: Ended | None = None,
        progress: Progress | None = None,
        keep: bool = False,
    ) -> None:
        self._entry = entry
        self._expected = expected
        self._fetch = fetch
        self._checksum = checksum
        self._ended = ended
        self._progress = progress
        self._keep = keep
        self.failure: errors.Error | None = None
        algorithms = [] if expected.algorithm is None else [expected.algorithm]
        self._digests = Follower(entry.fd, algorithms)
        self._pushed = entry.landed
        self._brought = 0
        self._stream: Stream | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="cache-fill", daemon=True)

    def start(self) -> None:
        """Go on in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Leave the entry as it is, soon; ``join`` waits for that."""
        self._stopping.set()
        with self._lock:
            if self._stream is not None:
                cut(self._stream)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the thread, for so many seconds; whether it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def run(self) -> Outcome:
        """Fill it; the entry has ended after."""
        outcome = Outcome.BROKEN
        try:
            outcome = self._run()
        except errors.ServiceStops:
            outcome = Outcome.LEFT
        except errors.ImageGone as error:
            outcome = Outcome.REMOVED
            self.failure = error
        except errors.DataCorrupt as error:
            outcome = Outcome.WRONG
            self._warn(error)
        except errors.Error as error:
            self._warn(error)
        except Exception:
            _log.exception("caching image %s failed", self._entry.image_id)
        finally:
            self._digests.stop()
            self._end(outcome)
        return outcome

    def _run(self) -> Outcome:
        self._bring()
        digests = self._digests.finish(self._entry.size)
        if self._expected.algorithm is not None:
            self._expected.verify(digests[self._expected.algorithm])
        return Outcome.WHOLE if self._entry.publish(self._checksum) else Outcome.REMOVED

    def _warn(self, error: errors.Error) -> None:
        self.failure = self.failure or error
        _log.warning("image %s could not be cached: %s", self._entry.image_id, error)

    def _end(self, outcome: Outcome) -> None:
        try:
            if outcome is Outcome.LEFT or (outcome is Outcome.BROKEN and self._is_worth_keeping()):
                self._entry.leave()
            self._entry.discard()
        except errors.Error as error:
            self._warn(error)
        if self._ended is not None:
            self._ended(self._brought, outcome)

    def _is_worth_keeping(self) -> bool:
        return self._keep and not isinstance(self.failure, _USELESS)

    def _bring(self) -> None:
        """Have all of it land; raises ServiceStops, ImageGone and what its origin and disk do."""
        failures = 0
        self._digests.advance(self._entry.landed)
        while (landed := self._entry.landed) < self._entry.size:
            self._check()
            try:
                self._attempt(landed)
            except errors.StoreUnwritable:
                raise
            except (errors.TransferError, errors.ServiceUnavailable, errors.ConnectionFailed):
                failures = 1 if self._entry.landed >= landed + _MUCH else failures + 1
                if failures > len(BACKOFF_S):
                    raise
                self._stopping.wait(BACKOFF_S[failures - 1])
        self._check()

    def _attempt(self, landed: int) -> None:
        """Bring all the rest; raises PeerGone when there was not as much, DataCorrupt of more."""

        def progress(moved: int) -> None:
            self._advance(landed + moved)

        left = self._entry.size - landed
        try:
            with self._fetch(landed) as pieces, self._cuttable():
                sink = FileSink(self._entry.fd, landed)
                moved = pump_all(self._watched(pieces), sink, limit=left, progress=progress)
        except errors.ImageTooLarge as error:
            raise errors.DataCorrupt(f"more than its {self._entry.size} bytes came") from error
        finally:
            self._brought += self._entry.landed - landed
        if moved.bytes < left:
            raise errors.PeerGone(moved=moved.bytes)

    def _advance(self, total: int) -> None:
        self._digests.advance(total)
        if self._progress is not None:
            self._progress(total)
        if total - self._pushed >= _STEP:
            start_writeback(self._entry.fd, self._pushed, total - self._pushed)
            self._pushed = total
        self._check()

    def _check(self) -> None:
        """Whether this is still to go on; raises ServiceStops, ImageGone."""
        if self._stopping.is_set():
            raise errors.ServiceStops()
        if not self._entry.wanted:
            raise errors.ImageGone(image_id=self._entry.image_id)

    @contextmanager
    def _cuttable(self) -> Iterator[None]:
        """While ``stop`` may cut a stream: it is closed after."""
        try:
            yield
        finally:
            self._watch(None)

    def _watched(self, pieces: Iterable[Source]) -> Iterator[Source]:
        for piece in pieces:
            self._watch(piece if isinstance(piece, Stream) else None)
            yield piece

    def _watch(self, stream: Stream | None) -> None:
        """Note what ``stop`` is to cut."""
        with self._lock:
            self._stream = stream
            if stream is not None and self._stopping.is_set():
                raise errors.ServiceStops()
