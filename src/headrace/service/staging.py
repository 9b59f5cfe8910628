"""Staging: data that a client sends first and imports later (the method glance-direct)."""

import contextlib
import logging
import uuid
from contextlib import AbstractContextManager

from headrace import errors
from headrace.db import images as rows
from headrace.db import uploads
from headrace.db.engine import Database
from headrace.model import Image, Status
from headrace.service import policy, workers
from headrace.service.context import Context
from headrace.service.images import Clock, afresh
from headrace.service.landing import Body, Landing
from headrace.service.quota import UNLIMITED, Quota, Room
from headrace.stores.base import Writer
from headrace.stores.filesystem import FilesystemStore
from headrace.transfer.engine import How, Progress
from headrace.transfer.extent import Extent

_log = logging.getLogger(__name__)


class Staging:
    """The staged data of the images of one database.

    ``area`` is a directory like a store's, and none of the stores: its files are named by their
    images, as a Glance's are.
    """

    def __init__(
        self,
        database: Database,
        area: FilesystemStore,
        landing: Landing,
        clock: Clock,
        quota: Quota | None = None,
    ) -> None:
        self._database = database
        self._area = area
        self._landing = landing
        self._clock = clock
        self._quota = quota
        self._active: set[str] = set()

    def stage(
        self,
        context: Context,
        image_id: str,
        body: Body,
        announced: int | None,
        progress: Progress,
    ) -> How | None:
        """Keep ``body`` for an import; the image is then ``uploading``.

        Nothing is looked for in the data before it is imported.  Parameters are those
        of Content.upload.  After any failure the image is queued again (or gone)
        and nothing is staged.  Raises ImageNotFound, Forbidden, StatusConflict, ImageTooLarge,
        QuotaExceeded, SizeMismatch, DataExists, StoreFull, StoreUnwritable, ImageGone and the
        TransferErrors.
        """
        upload_id = str(uuid.uuid4())
        image, room = afresh(lambda: self._claim(context, image_id, upload_id, body, announced))
        self._active.add(upload_id)
        try:
            return self._receive(image, upload_id, body, announced, progress, room)
        finally:
            self._active.discard(upload_id)

    def open(self, image_id: str) -> Extent:
        """The staged data of an image; raises NotFound when there is none."""
        try:
            return self._area.open(self._area.url(image_id))
        except errors.NotFound:
            raise errors.NotFound(f"nothing is staged for image {image_id}") from None

    def new_file(self) -> AbstractContextManager[int]:
        """A file beside what is staged, without a name; raises StoreFull, StoreUnwritable."""
        return self._area.scratch()

    def discard(self, image_id: str) -> None:
        """Remove the staged data of an image, if there is any."""
        try:
            with contextlib.suppress(errors.NotFound):
                self._area.delete(self._area.url(image_id))
        except errors.Error as error:
            _log.error("the staged data of image %s is still there: %s", image_id, error)

    def sweep(self) -> int:
        """Remove what crashes and deleted images have left; returns how many files."""
        removed = self._area.sweep()
        return removed + sum(map(self._sweep, list(self._area.held())))

    def _sweep(self, image_id: str) -> bool:
        return uploads.unstage(self._database, image_id, lambda: self.discard(image_id))

    def active(self) -> list[str]:
        """The ids of the uploads that are going on in this process."""
        return list(self._active)

    def _claim(
        self, context: Context, image_id: str, upload_id: str, body: Body, announced: int | None
    ) -> tuple[Image, Room]:
        image = rows.show_for_download(self._database, image_id, context.viewer)
        policy.require_of(context, "modify_image", image)
        if image.status is not Status.QUEUED:
            raise errors.StatusConflict(
                image_id=image.id, status=image.status, expected=Status.QUEUED
            )
        self._landing.check_length(body.length, announced)
        now, worker, status = self._clock(), workers.identity(), Status.UPLOADING
        if self._quota is None:
            uploads.claim(self._database, image, upload_id, worker, now, status, stores=())
            return image, UNLIMITED
        demand = self._quota.staged(image, announced if body.length is None else body.length)
        reserved = uploads.claim(
            self._database, image, upload_id, worker, now, status, demand, stores=()
        )
        return image, self._quota.room(demand, image.id, upload_id, reserved)

    def _receive(
        self,
        image: Image,
        upload_id: str,
        body: Body,
        announced: int | None,
        progress: Progress,
        room: Room,
    ) -> How | None:
        """From a claimed image to a staged one, or back to a queued one."""
        writer: Writer | None = None
        try:
            size = announced if body.length is None else body.length
            writer = receiving = self._area.create(image.id, size)

            def landed(total: int) -> None:
                if total > room.bound:
                    room.grow(total)
                receiving.advance(total)
                progress(total)

            received, how = self._landing.receive(body, writer, announced, landed)
            writer.commit()
            uploads.staged(self._database, image.id, upload_id, received, self._clock())
            return how
        except BaseException as failure:
            _log.warning("staging of image %s failed: %s", image.id, failure)
            self._give_up(image.id, upload_id, failure, writer)
            raise
        finally:
            if writer is not None:
                writer.abort()

    def _give_up(
        self, image_id: str, upload_id: str, failure: BaseException, writer: Writer | None
    ) -> None:
        def retract() -> None:
            if writer is not None:
                writer.retract()

        try:
            if isinstance(failure, (errors.Conflict, errors.ImageGone)):
                retract()  # certainly nobody's; after other failures only the lease can tell
            uploads.release(self._database, image_id, upload_id, self._clock(), discard=retract)
        except errors.Error as error:
            # Its lease is no longer renewed, so the housekeeping takes it back later.
            _log.error("image %s stays in uploading for now: %s", image_id, error)
