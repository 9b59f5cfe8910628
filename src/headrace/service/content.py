"""An image's data: its way in (upload) and its way out (download)."""

import logging
import uuid
from collections.abc import Sequence

from headrace import errors
from headrace.db import images as rows
from headrace.db import locations, uploads
from headrace.db.engine import Database
from headrace.model import Image, Location, Status
from headrace.service import policy, workers
from headrace.service.cache import Cache
from headrace.service.context import Context
from headrace.service.images import Clock, afresh
from headrace.service.landing import Body, Landed, Landing, begin
from headrace.service.quota import UNLIMITED, Quota, Room
from headrace.stores.base import Data, Store, Writer
from headrace.stores.registry import Registry
from headrace.transfer.engine import How, Progress

_log = logging.getLogger(__name__)


class Content:
    """The data of the images of one database and its stores."""

    def __init__(
        self,
        database: Database,
        stores: Registry,
        landing: Landing,
        clock: Clock,
        quota: Quota | None = None,
        cache: Cache | None = None,
    ) -> None:
        self._database = database
        self._stores = stores
        self._landing = landing
        self._clock = clock
        self._quota = quota
        self.cache = cache
        self._active: set[str] = set()

    def download(
        self,
        context: Context,
        image_id: str,
        preferred: Sequence[str] = (),
        begins: int | None = None,
    ) -> tuple[Image, Data | None]:
        """The image and its whole data; None when there is no data.

        Locations are tried in order, those in ``preferred`` stores first, and the first that opens
        wins.  ``begins`` is where the range begins that is wanted, for the cache to know.  Raises
        UnknownStore, ImageNotFound, Forbidden (deactivated), StoreCorrupt (the data's size is not
        the image's).
        """
        for store_id in preferred:
            self._stores.chosen(store_id)
        image = rows.show_for_download(self._database, image_id, context.viewer)
        policy.require_download(context, image)
        if preferred:
            policy.require_of(context, "download_from_store", image)
        failure: errors.Error | None = None
        several = self._stores.several
        places = self._stores.ordered(image.locations, preferred) if several else image.locations
        for location in places:
            try:
                data = self._open(image, location, begins)
            except errors.NotFound:
                _log.error("the data of image %s is missing in its store", image_id)
            except errors.OriginsBusy as error:
                failure = error  # which every client is told that comes meanwhile
            except errors.ServiceUnavailable as error:
                _log.warning("image %s cannot be read: %s", image_id, error)
                failure = error
            except errors.Error as error:  # which is logged where it is answered
                failure = error
            else:
                if several and location not in image.locations:
                    self._mend(image, location)
                return image, data
        if failure is not None:
            raise failure
        return image, None

    def _mend(self, image: Image, location: Location) -> None:
        """Note the store that the location was found to lie in; no download fails for that."""
        try:
            locations.mend(self._database, image.id, location, self._clock())
        except errors.Error as error:
            _log.warning("the store of image %s could not be noted: %s", image.id, error)

    def _open(self, image: Image, location: Location, begins: int | None) -> Data:
        store = self._stores.for_location(location)
        if self.cache is None or store.local:
            return opened(image, store, location.url)
        return self.cache.open(image, lambda: opened(image, store, location.url), begins)

    def upload(
        self,
        context: Context,
        image_id: str,
        body: Body,
        announced: int | None = None,
        progress: Progress | None = None,
        store_id: str | None = None,
    ) -> How | None:
        """Take ``body`` as the data of a queued image and make the image active; how it was moved,
        None if it was there already.

        ``announced`` is the size the caller promised, in bytes; ``progress(total)`` is told of the
        bytes there so far; ``store_id`` is the store that the caller chose.  After any failure the
        image is queued again (or gone), and the store holds nothing of it.  Raises UnknownStore,
        StoreReadOnly, ImageNotFound, Forbidden, FormatsNotSet, StatusConflict, ImageTooLarge,
        QuotaExceeded, SizeMismatch, FormatMismatch, UnsafeImage, StoreFull, StoreUnwritable,
        DataExists, ImageGone and the TransferErrors.
        """
        store = self._stores.chosen(store_id)
        upload_id = str(uuid.uuid4())
        image, room = afresh(
            lambda: self._claim(context, image_id, store, upload_id, body, announced)
        )
        self._active.add(upload_id)
        try:
            return self._store(image, store, upload_id, body, announced, progress or _nothing, room)
        finally:
            self._active.discard(upload_id)

    def check_upload(
        self,
        context: Context,
        image_id: str,
        length: int | None,
        announced: int | None,
        store_id: str | None = None,
    ) -> None:
        """Raises what ``upload`` would of a body of ``length`` bytes, as far as can be foreseen.

        Forbidden of a project that may have only so much data: what arrives here by itself is not
        reserved before it is written.
        """
        store = self._stores.chosen(store_id)
        image = self._look_before_upload(context, image_id, length, announced)
        if self._quota is not None and self._quota.limits_data(image):
            raise errors.Forbidden(reason="the project has a quota")
        store.create(image.id, announced if length is None else length).abort()

    def active_uploads(self) -> list[str]:
        """The ids of the uploads that are going on in this process."""
        return list(self._active)

    def _claim(
        self,
        context: Context,
        image_id: str,
        store: Store,
        upload_id: str,
        body: Body,
        announced: int | None,
    ) -> tuple[Image, Room]:
        image = self._look_before_upload(context, image_id, body.length, announced)
        now, worker, quota = self._clock(), workers.identity(), self._quota
        stores = (store.id,)
        if quota is None:
            uploads.claim(self._database, image, upload_id, worker, now, stores=stores)
            return image, UNLIMITED
        demand = quota.data(image, announced if body.length is None else body.length)
        reserved = uploads.claim(
            self._database, image, upload_id, worker, now, Status.SAVING, demand, stores=stores
        )
        return image, quota.room(demand, image.id, upload_id, reserved)

    def _look_before_upload(
        self, context: Context, image_id: str, length: int | None, announced: int | None
    ) -> Image:
        """The image; refuses what can be refused before a byte of the body is read."""
        image = rows.show_for_download(self._database, image_id, context.viewer)
        policy.require_of(context, "upload_image", image)
        if image.status is not Status.QUEUED:
            raise errors.StatusConflict(
                image_id=image.id, status=image.status, expected=Status.QUEUED
            )
        if not image.disk_format or not image.container_format:
            raise errors.FormatsNotSet(image_id=image.id)
        self._landing.check_length(length, announced)
        return image

    def _store(
        self,
        image: Image,
        store: Store,
        upload_id: str,
        body: Body,
        announced: int | None,
        progress: Progress,
        room: Room,
    ) -> How | None:
        """From a claimed image to an active one, or back to a queued one."""
        writer: Writer | None = None
        try:
            writer = begin(store, image.id, body, announced)
            landed = self._landing.land(image, writer, body, announced, progress, room)
            place = self._stores.place(store, writer.commit())
            self._activate(image.id, upload_id, place, landed)
            return landed.how
        except BaseException as failure:
            # BaseException: a worker told to quit must not leave the image in saving either.
            _log.warning("upload of image %s failed: %s", image.id, failure)
            self._give_up(image.id, upload_id, failure, writer)
            raise
        finally:
            if writer is not None:
                writer.abort()

    def _activate(self, image_id: str, upload_id: str, location: Location, landed: Landed) -> None:
        uploads.activate(
            self._database,
            image_id,
            upload_id,
            location=location,
            size=landed.size,
            virtual_size=landed.virtual_size,
            checksum=landed.checksum,
            os_hash_algo=landed.os_hash_algo,
            os_hash_value=landed.os_hash_value,
            now=self._clock(),
        )

    def _give_up(
        self, image_id: str, upload_id: str, failure: BaseException, writer: Writer | None
    ) -> None:
        """Withdraw what was published, make the image queued again."""

        def retract() -> None:
            if writer is not None:
                writer.retract()

        try:
            if isinstance(failure, (errors.Conflict, errors.ImageGone)):
                retract()  # certainly not on record; after other failures only the lease can tell
            uploads.release(self._database, image_id, upload_id, self._clock(), discard=retract)
        except errors.Error as error:
            # Its lease is no longer renewed, so the housekeeping takes the upload back later.
            _log.error("image %s stays in saving for now: %s", image_id, error)


def opened(image: Image, store: Store, url: str) -> Data:
    """The data of an image at a location; raises StoreCorrupt, and as ``Store.open``."""
    data = store.open(url)
    if data.length != image.size:
        found = data.length
        data.close()
        raise errors.StoreCorrupt(
            image_id=image.id, reason=f"{found} bytes instead of {image.size}"
        )
    return data


def _nothing(total: int) -> None:
    """Nobody watches."""
