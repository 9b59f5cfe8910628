"""Housekeeping: heartbeats for uploads under way, and the removal of what crashes left behind."""

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from headrace import errors
from headrace.db import images as rows
from headrace.db import imports, tasks, uploads
from headrace.db.engine import Database
from headrace.model import TASK_LIFE, Location
from headrace.service import workers
from headrace.service.cache import Cache
from headrace.service.content import Content
from headrace.service.images import Clock, Images
from headrace.service.jobs import Jobs
from headrace.service.locations import Locations
from headrace.service.prefetch import Prefetch
from headrace.service.staging import Staging
from headrace.stores.arrivals import Arrivals
from headrace.stores.base import Store
from headrace.stores.registry import Registry

Note = Callable[[str, str], None]
"""action, image: told of what was done to it."""

_log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds


class Housekeeping:
    """Two threads of a worker process that beat and sweep until it is closed.

    ``lease`` is in seconds: how long after its last heartbeat an upload of a worker elsewhere
    counts as alive.  Uploads of a dead process on this machine are taken back at once.
    ``scrub_time``, also in seconds, is how long the data of deleted images is kept; None where it
    is not: what a Glance has put off is its scrubber's then.  Tasks are forgotten when their time
    is over; those of a dead process are kept for ``task_life``.  ``note`` is told of images that
    were taken back or scrubbed.
    """

    def __init__(
        self,
        database: Database,
        stores: Registry,
        images: Images,
        content: Content,
        locations: Locations,
        staging: Staging,
        jobs: Jobs,
        lease: float,
        clock: Clock,
        *,
        scrub_time: float | None = None,
        task_life: timedelta = TASK_LIFE,
        note: Note | None = None,
        cache: Cache | None = None,
        prefetch: Prefetch | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._database = database
        self._stores = stores
        self._images = images
        self._content = content
        self._lease = lease
        self._clock = clock
        self._locations = locations
        self._scrub_time = scrub_time
        self._task_life = task_life
        self._note = note
        self._cache = cache
        self._prefetch = prefetch
        self._arrivals = arrivals
        self._staging = staging
        self._jobs = jobs
        self._closed = threading.Event()
        self._swept = threading.Event()
        self._unswept: dict[str, str] = {}  # why, by store

    def start(self) -> None:
        """Go on in the background.

        Returns when all has been swept once, unless a store takes too long to answer.
        """
        if self._cache is not None:
            self._cache.sweep(first=True)
        for act in (self._beat_on, self._sweep_on):
            threading.Thread(target=act, name="housekeeping", daemon=True).start()
        self._swept.wait(_PATIENCE)

    def close(self) -> None:
        """Stop; harmless when stopped already."""
        self._closed.set()
        if self._cache is not None:
            with contextlib.suppress(errors.Error):  # of what was counted only
                self._cache.beat()

    def sweep(self) -> None:
        """Take back uploads whose worker is dead; remove data without a record."""
        if self._arrivals is not None and (removed := self._arrivals.sweep()):
            _log.info("removed %d leftovers of uploads that had arrived", removed)
        for store in self._stores.all():
            self._sweep_store(store)
        now = self._clock()
        alive_since = now - timedelta(seconds=self._lease)
        dead = [
            lease
            for lease in uploads.leases(self._database)
            if lease.heartbeat < alive_since or workers.is_dead(lease.worker)
        ]
        self._take_back_all(dead, now)
        tasks.forget(self._database, now)
        left = rows.undeleted_data(self._database, alive_since)
        if self._scrub_time is not None:
            left |= rows.delayed_data(self._database, now - timedelta(seconds=self._scrub_time))
        for image_id, locations in left.items():
            if self._images.delete_data(image_id, locations) and self._note is not None:
                self._note("delete/data", image_id)
        if removed := self._staging.sweep():
            _log.info("removed %d leftovers of what was staged", removed)

    def beat(self) -> None:
        """Say that the uploads of this process are alive."""
        active = [
            *self._content.active_uploads(),
            *self._locations.active(),
            *self._staging.active(),
            *self._jobs.active(),
        ]
        now = self._clock()
        uploads.beat(self._database, active, now)
        imports.beat(self._database, self._jobs.active(), now)

    def _sweep_store(self, store: Store) -> None:
        """Have a store sweep; one that cannot keeps nothing else from being done.

        A store may be away for days: why is said once.
        """
        try:
            removed = store.sweep()
        except errors.Error as error:
            if self._unswept.get(store.id) != str(error):
                _log.warning("store %s was not swept: %s", store.id, error)
            self._unswept[store.id] = str(error)
        else:
            self._unswept.pop(store.id, None)
            if removed:
                _log.info("store %s: removed %d leftovers", store.id, removed)

    def _take_back_all(self, dead: Sequence[uploads.Lease], now: datetime) -> None:
        """End uploads whose worker is dead, except those that a store is away for."""
        places = {lease: self._places(lease) for lease in dead}
        away = _away({store.id: store for stores in places.values() for store in stores})
        waiting: Counter[str] = Counter()
        for lease, stores in places.items():
            missing = away.keys() & {store.id for store in stores}
            if not missing:
                self._take_back(lease, stores, now)
            waiting.update(missing)
        for store_id, number in waiting.items():
            error = away[store_id]
            _log.warning("%d interrupted uploads wait for store %s: %s", number, store_id, error)

    def _places(self, lease: uploads.Lease) -> list[Store]:
        """The stores that an upload may have published in.

        All, when its lease does not say, or names one that is none of ours: a store may have been
        given another name since.
        """
        writable = {store.id: store for store in self._stores.all() if store.writable}
        if lease.stores is None or not writable.keys() >= set(lease.stores):
            return list(writable.values())
        return [writable[store_id] for store_id in lease.stores]

    def _take_back(self, lease: uploads.Lease, stores: Sequence[Store], now: datetime) -> None:
        """End an upload whose worker is dead, unless its data cannot be removed yet."""
        discard, life = _discarder(stores, lease.image_id), self._task_life
        try:
            if uploads.expire(self._database, lease, now, discard=discard, task_life=life):
                _log.warning("upload of image %s was interrupted", lease.image_id)
                if self._note is not None:
                    self._note("update/take-back", lease.image_id)
                uploads.tidy(self._database, lease.image_id, _tidier(stores, lease.image_id))
                self._locations.resume(lease.image_id)
        except errors.Error as error:
            _log.warning("upload of image %s: %s", lease.image_id, error)

    def _look_after_cache(self) -> None:
        if self._cache is not None:
            self._cache.beat()
            self._cache.sweep()
        if self._prefetch is not None:
            self._prefetch.start()

    def _beat_on(self) -> None:
        # A third of the lease, so that two beats in a row may fail before it runs out.
        while not self._closed.wait(self._lease / 3):
            self._attempt(self.beat)

    def _sweep_on(self) -> None:
        # In a thread of its own: a store that does not answer keeps no heartbeat back.
        self._attempt(self.sweep)
        self._swept.set()
        while not self._closed.wait(self._lease / 3):
            self._attempt(self.sweep)
            self._attempt(self._look_after_cache)

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            _log.exception("housekeeping failed and will be tried again")


def _away(stores: Mapping[str, Store]) -> dict[str, errors.Error]:
    """Those of the stores that do not answer, and why; of files of this machine that is not asked.

    What is removed from a store in a transaction would hold that, and with SQLite the whole
    database, for as long as the store is silent.
    """
    found = {}
    for store_id, store in stores.items():
        if not store.local:
            try:
                next(store.held(), None)
            except errors.Error as error:
                found[store_id] = error
    return found


def _discarder(stores: Sequence[Store], image_id: str) -> Callable[[], None]:
    """A function that removes what an upload of the image may have published in the stores."""

    def remove() -> None:
        for store in stores:
            with contextlib.suppress(errors.NotFound):
                store.delete(store.url(image_id))

    return remove


def _tidier(stores: Sequence[Store], image_id: str) -> Callable[[list[Location]], None]:
    """A function that removes what an import of an active image may have left unrecorded."""

    def remove(live: list[Location]) -> None:
        for store in stores:
            if not any(store.holds(each.url) for each in live):
                with contextlib.suppress(errors.NotFound):
                    store.delete(store.url(image_id))

    return remove
