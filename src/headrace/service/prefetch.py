"""Images that somebody has queued for the cache, fetched in the background."""

import logging
import threading
from functools import partial

from headrace import errors
from headrace.db import images as rows
from headrace.db.engine import Database
from headrace.model import Image, Status, Viewer
from headrace.service.cache import Cache
from headrace.service.content import opened
from headrace.stores.registry import Registry

_log = logging.getLogger(__name__)

_EVERYBODY = Viewer(is_admin=True)


class Prefetch:
    """A thread that fetches what is queued, one image after the other, while there is anything."""

    def __init__(self, database: Database, stores: Registry, cache: Cache) -> None:
        self._database = database
        self._stores = stores
        self._cache = cache
        self._lock = threading.Lock()
        self._running = False
        self._put_off: set[str] = set()
        self._started_again = False

    def start(self) -> None:
        """Go on with what is queued, also with what was put off; harmless when that goes on."""
        with self._lock:
            self._put_off.clear()
            self._started_again = True
            if not self._running and self._cache.directory.queued():
                threading.Thread(target=self._run, name="cache-prefetch", daemon=True).start()
                self._running = True

    def _run(self) -> None:
        try:
            while (image_id := self._next()) is not None:
                if self._is_settled(image_id):
                    self._cache.directory.unqueue(image_id)
                else:
                    self._leave(image_id)
        except Exception:
            _log.exception("what is queued for the cache is not fetched now")
            self._running = False

    def _next(self) -> str | None:
        """What is queued and was not put off; None ends the thread."""
        with self._lock:
            self._started_again = False
            if not self._cache.stopping:
                for image_id in self._cache.directory.queued():
                    if image_id not in self._put_off:
                        return image_id
            self._running = False
            return None

    def _leave(self, image_id: str) -> None:
        """Put it off until the next start, which may have been meanwhile."""
        with self._lock:
            if not self._started_again:
                self._put_off.add(image_id)

    def _is_settled(self, image_id: str) -> bool:
        """Have an image in the cache; False when that is to be tried again later."""
        try:
            image = rows.show_for_download(self._database, image_id, _EVERYBODY)
            settled = image.status is not Status.ACTIVE or self._fill(image)
        except errors.Error as error:
            _log.warning("image %s is not cached: %s", image_id, error)
            settled = not _may_pass(error)
        return settled and not self._cache.stopping

    def _fill(self, image: Image) -> bool:
        """Wait for the image to be fetched from the first of its locations that answers.

        False when another process fetches it, which may yet be killed.
        """
        failure: errors.Error | None = None
        for location in self._stores.ordered(image.locations):
            try:
                store = self._stores.for_location(location)
                if store.local:
                    return True  # it would be read from there
                fill = self._cache.fill(image, partial(opened, image, store, location.url))
            except (errors.StoreFull, errors.StoreUnwritable):
                raise
            except errors.Error as error:
                failure = error
                continue
            if fill is None:
                return self._cache.holds(image)
            fill.join()
            return True
        if failure is not None:
            raise failure
        return True


def _may_pass(error: errors.Error) -> bool:
    """Whether what failed by it may go well another time."""
    unavailable = isinstance(error, errors.ServiceUnavailable)
    return unavailable and not isinstance(error, errors.StoreNotFound)
