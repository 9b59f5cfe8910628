"""Whether records and stores agree: data without a record, a record without its data."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from headrace import errors
from headrace.db import agreement as rows
from headrace.db import images
from headrace.db.engine import Database
from headrace.model import MIB, Image, Location, Viewer
from headrace.stores.base import Data, Store
from headrace.stores.registry import Registry

_ADMIN = Viewer(is_admin=True)
_BATCH = 500


class Fault(StrEnum):
    """What is wrong with an image's data."""

    MISSING = "missing"
    """On record, and not in the store."""

    WRONG_SIZE = "wrong size"
    WRONG_HASH = "wrong hash"
    UNREADABLE = "unreadable"
    """Its store is not configured here or cannot be read, so nothing is known of it."""

    NO_RECORD = "no record"
    """In the store, and nobody's."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: the image's id, the store's (None: unknown) and what else there is to say."""

    fault: Fault
    image_id: str
    store: str | None
    detail: str = ""


class Agreement:
    """One walk through all records and all stores, while the service may go on.

    ``images``, ``files`` and ``hashed`` (bytes) count what has been looked at so far.
    """

    def __init__(self, database: Database, stores: Registry, *, verify: bool) -> None:
        self._database = database
        self._stores = stores
        self._verify = verify
        self.images = 0
        self.files = 0
        self.hashed = 0

    def run(self) -> Iterator[Finding]:
        """Every fault; with ``verify`` all data is read and hashed, too."""
        for image in rows.with_data(self._database):
            self.images += 1
            yield from self._check_image(image)
        for store in self._stores.all():
            yield from self._check_store(store)

    def _check_image(self, image: Image) -> Iterator[Finding]:
        checked = [self._check(image, location) for location in image.locations]
        found = [finding for finding in checked if finding is not None]
        if not image.locations:
            found = [Finding(Fault.MISSING, image.id, None, "it has no location")]
        if found and self._is_still(image):
            yield from found

    def _check(self, image: Image, location: Location) -> Finding | None:
        store = str(location.metadata["store"]) if "store" in location.metadata else None
        try:
            at = self._stores.for_location(location)
            store = at.id
            data = at.open(location.url)
        except errors.NotFound:
            return Finding(Fault.MISSING, image.id, store)
        except errors.Error as error:
            return Finding(Fault.UNREADABLE, image.id, store, str(error))
        try:
            if data.length != image.size:
                detail = f"{data.length} bytes instead of {image.size}"
                return Finding(Fault.WRONG_SIZE, image.id, store, detail)
            if self._verify and image.os_hash_algo and image.os_hash_value:
                return self._check_hash(image, store, data)
        except (OSError, errors.Error) as error:
            return Finding(Fault.UNREADABLE, image.id, store, str(error))
        finally:
            data.close()
        return None

    def _check_hash(self, image: Image, store: str, data: Data) -> Finding | None:
        try:
            digest = hashlib.new(str(image.os_hash_algo), usedforsecurity=False)
        except ValueError:
            detail = f"no {image.os_hash_algo} here"
            return Finding(Fault.UNREADABLE, image.id, store, detail)
        while block := data.read(MIB):
            digest.update(block)
            self.hashed += len(block)
        if digest.hexdigest() == image.os_hash_value:
            return None
        detail = f"{image.os_hash_algo} is {digest.hexdigest()}"
        return Finding(Fault.WRONG_HASH, image.id, store, detail)

    def _is_still(self, image: Image) -> bool:
        """Whether the record says what it said, so that the fault is not a deletion's doing."""
        try:
            now = images.show_for_download(self._database, image.id, _ADMIN)
        except errors.ImageNotFound:
            return False
        return (now.status, now.size, now.locations) == (image.status, image.size, image.locations)

    def _check_store(self, store: Store) -> Iterator[Finding]:
        held = store.held()
        while batch := list(islice(held, _BATCH)):
            self.files += len(batch)
            for image_id in sorted(rows.unowned(self._database, batch)):
                if self._is_there(store, image_id):
                    yield Finding(Fault.NO_RECORD, image_id, store.id)

    def _is_there(self, store: Store, image_id: str) -> bool:
        """Whether a file is still there whose record was gone: it may have been on its way, too."""
        try:
            store.open(store.url(image_id)).close()
        except errors.NotFound:
            return False
        return True
