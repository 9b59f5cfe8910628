"""The image cache: data of remote stores, kept on this machine once somebody wanted it.

What is asked for is decided before, of a hit as of a miss: here is nothing but where bytes come
from.  The first who misses has the entry filled, once for all processes; he and all who come
meanwhile are sent what has landed, while it lands.
"""

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from headrace import errors
from headrace.cache.directory import Directory
from headrace.cache.filling import Ended, Fill, Outcome
from headrace.cache.handed import Handed
from headrace.client.partial import Expected
from headrace.db import agreement
from headrace.db.engine import Database
from headrace.model import MIB, Image, is_image_id
from headrace.stores.base import Data
from headrace.stores.remote import Remote
from headrace.transfer.engine import Source
from headrace.transfer.extent import Extent
from headrace.transfer.growing import Growing

_log = logging.getLogger(__name__)

# How far behind what has landed a range may begin and still be waited for.
_NEAR = 64 * MIB

# Between two looks an entry may become whole, or fail, or be taken over: each once, at most.
_LOOKS = 4

# A filler looks after itself, with several attempts of one stall each, and may be hashing what a
# dead one has left: who follows gives up only when it hangs.
_PATIENCE = 10

_BATCH = 500  # images that the database is asked about at a time

HIT, JOINED, MISS, PASSED_BY = "hit", "joined", "miss", "passed-by"
"""How what is wanted is found: there, on its way, not at all; or it cannot be cached."""

Count = Callable[[str], None]
Ask = Callable[[], Data]
"""Asks a store for the data of an image; it is as long as the image."""


class Cache:
    """The cache of one process in a directory that several share.

    ``stall`` is for how many seconds a store may do nothing, ``keep`` for how many what was
    interrupted is kept.  ``fronted``: a server in front opens what is found by its name.
    ``lookups`` is told how each download was found, ``fills`` of the end of each fill.
    """

    def __init__(
        self,
        database: Database,
        directory: Directory,
        *,
        stall: float,
        keep: float,
        fronted: bool = False,
        lookups: Count = lambda how: None,
        fills: Ended = lambda brought, outcome: None,
    ) -> None:
        self.directory = directory
        self._database = database
        self._stall = stall
        self.keep = keep
        self._handed = Handed() if fronted else None
        self._lookups = lookups
        self._ended = fills
        self._lock = threading.Lock()
        self._hits: Counter[str] = Counter()
        self._fills: set[Fill] = set()
        self._reviving: set[str] = set()
        self.stopping = False

    def open(self, image: Image, ask: Ask, begins: int | None = None) -> Data:
        """The whole data of an image that lies in a remote store, which ``ask`` asks for it.

        ``begins`` is where the range begins that is wanted, None for all: a range is served from
        what is there or about to be, and does not have the whole fetched.  Raises what ``ask``
        does.
        """
        if not is_image_id(image.id):
            return ask()  # nothing else becomes a file's name
        found = self.directory.open(image.id, image.size or 0)
        if found is not None:
            self._hit(image.id)
            if self._handed is not None:
                try:
                    self._handed.add(image.id, found.fd)
                except OSError:  # too many open files
                    found.close()
                    raise
            return found
        if not self.stopping:
            try:
                growing = self._growing(image, ask, begins)
                if growing is not None:
                    return growing
            except (errors.StoreFull, errors.StoreUnwritable) as error:
                _log.info("image %s is not cached: %s", image.id, error)
        self._lookups(PASSED_BY)
        return ask()

    def fill(self, image: Image, ask: Ask, *, at_once: bool = True) -> Fill | None:
        """Have the image's entry filled; None when somebody does that, or it is whole.

        ``at_once`` asks before, so that a refusal is the caller's.  Raises it, StoreFull (also of
        what cannot be cached) and StoreUnwritable.
        """
        expected = _expected(image)
        if expected.algorithm is None or not image.size or self.stopping:
            raise errors.StoreFull("its hash is not known, it is empty, or the service stops")
        entry = self.directory.begin(image.id, image.size)
        if entry is None:
            return None
        origin = _Origin(ask)
        try:
            if at_once and entry.landed < entry.size:
                origin.ask()
            fill = Fill(
                entry,
                expected,
                origin.bring,
                checksum=image.checksum,
                ended=lambda brought, outcome: self._end(fill, origin, brought, outcome),
            )
            with self._lock:  # its end waits for that
                fill.start()
                self._fills.add(fill)
        except BaseException:
            origin.close()
            if entry.landed:
                entry.leave()  # what a dead filler brought is good for another attempt
            entry.discard()
            raise
        return fill

    def holds(self, image: Image) -> bool:
        """Whether the image is in the cache, whole."""
        found = self.directory.open(image.id, image.size or 0)
        if found is not None:
            found.close()
        return found is not None

    def evict(self, image_id: str) -> None:
        """Forget an image that was deleted."""
        try:
            self.directory.delete(image_id)
            self.directory.unqueue(image_id)
        except errors.Error as error:
            _log.error("the data of image %s is still in the cache: %s", image_id, error)

    def beat(self) -> None:
        """Note what was counted."""
        with self._lock:
            hits, self._hits = self._hits, Counter()
        if hits:
            self.directory.add_hits(hits)

    def sweep(self, *, first: bool = False) -> None:
        """Remove what is of no use, at a start also what was interrupted just now."""
        if self._handed is not None:
            self._handed.let_go()
        try:
            if removed := self.directory.clean(0.0 if first else self.keep):
                _log.info("removed %d leftovers of the cache", removed)
            cached = [each.image_id for each in self.directory.cached()]
            for start in range(0, len(cached), _BATCH):
                for image_id in agreement.unowned(self._database, cached[start : start + _BATCH]):
                    self.evict(image_id)
            self.directory.prune()
        except errors.Error as error:
            _log.error("the cache cannot be looked after: %s", error)

    def hits(self) -> Counter[str]:
        """How often images were found since that was noted."""
        with self._lock:
            return Counter(self._hits)

    def size(self) -> int:
        """How many bytes lie in it; 0 where that cannot be seen."""
        try:
            return self.directory.used()
        except OSError:
            return 0

    def active(self) -> list[Fill]:
        """The fills that go on in this process."""
        with self._lock:
            return list(self._fills)

    def stop(self) -> None:
        """Leave what is being filled to other processes."""
        with self._lock:
            self.stopping = True
            fills = list(self._fills)
        if self._handed is not None:
            self._handed.let_go(everything=True)
        for fill in fills:
            fill.stop()

    def _hit(self, image_id: str) -> None:
        with self._lock:
            self._hits[image_id] += 1
        self._lookups(HIT)

    def _growing(self, image: Image, ask: Ask, begins: int | None) -> Extent | None:
        """The data as far as it has landed; None when it is better had from its store."""
        begun = False
        for _ in range(_LOOKS):
            fd = self.directory.follow(image.id)
            if fd is None and begins is None:
                if begun:
                    raise errors.FillFailed(reason="it was given up", moved=0)
                begun = self.fill(image, ask) is not None
                fd = self.directory.follow(image.id)
            if fd is not None:
                if begins is not None and begins > os.fstat(fd).st_size + _NEAR:
                    os.close(fd)
                    return None
                self._lookups(MISS if begun else JOINED)
                stall = self._stall * _PATIENCE
                return Growing(fd, image.size or 0, stall=stall, revive=self._reviver(image, ask))
            found = self.directory.open(image.id, image.size or 0)
            if found is not None:
                self._lookups(MISS if begun else HIT)
                return found
            if begins is not None:
                return None
        return None

    def _end(self, fill: Fill, origin: "_Origin", brought: int, outcome: Outcome) -> None:
        origin.close()
        self._ended(brought, outcome)
        with self._lock:
            self._fills.discard(fill)

    def _reviver(self, image: Image, ask: Ask) -> Callable[[], None]:
        """A function that has the fill of a process that died gone on with, in the background."""

        def go_on() -> None:
            try:
                self.fill(image, ask, at_once=False)
            except errors.Error as error:
                _log.warning("the caching of image %s does not go on: %s", image.id, error)
            finally:
                with self._lock:
                    self._reviving.discard(image.id)

        def revive() -> None:
            with self._lock:
                if image.id in self._reviving or self.stopping:
                    return
                threading.Thread(target=go_on, name="cache-revive", daemon=True).start()
                self._reviving.add(image.id)

        return revive


class _Origin:
    """Where the data of an image is fetched from, as often as that breaks off."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._asked: Data | None = None

    def ask(self) -> None:
        """Have the data at hand."""
        self._asked = self._ask()

    @contextlib.contextmanager
    def bring(self, offset: int) -> Iterator[Iterable[Source]]:
        """A ``Fetch``."""
        data, self._asked = self._asked, None
        if data is None:
            data = self._ask()
        try:
            data.narrow(offset, data.length - offset)
            yield data.pieces() if isinstance(data, Remote) else [data]
        finally:
            data.close()

    def close(self) -> None:
        """Let go of what was asked for and not brought."""
        if self._asked is not None:
            self._asked.close()


def _expected(image: Image) -> Expected:
    return Expected.of(
        {
            "id": image.id,
            "size": image.size,
            "os_hash_algo": image.os_hash_algo,
            "os_hash_value": image.os_hash_value,
            "checksum": image.checksum,
        }
    )
