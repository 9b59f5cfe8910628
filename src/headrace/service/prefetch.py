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

    def start(self) -> None:
        """Go on with what is queued; harmless when that goes on already."""
        with self._lock:
            if not self._running and self._cache.directory.queued():
                self._running = True
                threading.Thread(target=self._run, name="cache-prefetch", daemon=True).start()

    def _run(self) -> None:
        directory = self._cache.directory
        try:
            while queued := directory.queued():
                self._fetch(queued[0])
                if self._cache.stopping:
                    return
                directory.unqueue(queued[0])
        except Exception:
            _log.exception("what is queued for the cache is not fetched now")
        finally:
            self._running = False

    def _fetch(self, image_id: str) -> None:
        """Have an image in the cache, if it can be."""
        try:
            image = rows.show_for_download(self._database, image_id, _EVERYBODY)
            if image.status is Status.ACTIVE:
                self._fill(image)
        except errors.Error as error:
            _log.warning("image %s is not cached: %s", image_id, error)

    def _fill(self, image: Image) -> None:
        """Wait for the image to be fetched from the first of its locations that answers."""
        failure: errors.Error | None = None
        for location in self._stores.ordered(image.locations):
            try:
                store = self._stores.for_location(location)
                if store.local:
                    return  # it would be read from there
                fill = self._cache.fill(image, partial(opened, image, store, location.url))
            except (errors.StoreFull, errors.StoreUnwritable):
                raise
            except errors.Error as error:
                failure = error
                continue
            if fill is not None:
                fill.join()
            return
        if failure is not None:
            raise failure
