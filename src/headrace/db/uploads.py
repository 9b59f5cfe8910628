"""Uploads in progress: who may write an image's data, and how that right is given and lost.

An upload is a lease (table ``headrace_uploads``) on an image that is ``saving``.  The claim makes
both in one transaction and the activation ends both in one; a ``saving`` image without a lease is
being uploaded through a Glance beside us and is never touched.  The data of a location that is
hashed before the image becomes active is an upload, too, of an image that is ``importing``; a lease
on an active image is of hashing that goes on behind it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db.engine import Database, transaction
from headrace.db.images import compare_and_set, insert_location, move_on
from headrace.db.schema import images, uploads
from headrace.model import Image, Location, Status

_LEASE = (uploads.c.image_id, uploads.c.upload_id, uploads.c.worker, uploads.c.heartbeat)


@dataclass(frozen=True, slots=True)
class Lease:
    """An upload in progress: the worker that has it and when that last said so (naive UTC)."""

    image_id: str
    upload_id: str
    worker: str
    heartbeat: datetime


@transaction
def claim(
    connection: Connection,
    image: Image,
    upload_id: str,
    worker: str,
    now: datetime,
    status: Status = Status.SAVING,
) -> None:
    """Take a queued image for an upload: it gets ``status`` and a lease of ``worker``.

    Raises ImageChanged for everybody but the first, and when what was checked (the formats above
    all) is no longer so; ImageNotFound when the image was deleted.
    """
    compare_and_set(connection, image, {"status": status.value, "updated_at": now})
    lease(connection, image, upload_id, worker, now)


def lease(connection: Connection, image: Image, upload_id: str, worker: str, now: datetime) -> None:
    """Note that ``worker`` is at work on the image; raises StatusConflict when somebody is."""
    try:
        connection.execute(
            sa.insert(uploads),
            {"image_id": image.id, "upload_id": upload_id, "worker": worker, "heartbeat": now},
        )
    except exc.IntegrityError:
        # Somebody else made the image queued under an upload that has not ended yet.
        raise errors.StatusConflict(
            image_id=image.id, status=Status.SAVING, expected=Status.QUEUED
        ) from None


@transaction
def activate(
    connection: Connection,
    image_id: str,
    upload_id: str,
    *,
    location: Location,
    size: int,
    virtual_size: int | None,
    checksum: str | None,
    os_hash_algo: str,
    os_hash_value: str,
    now: datetime,
    status: Status = Status.SAVING,
) -> None:
    """End an upload well: the image is ``active`` and has its data at ``location``.

    Raises ImageGone when the image was deleted meanwhile, StatusConflict when the lease or the
    status was lost; then nothing has changed, and ``release`` cleans up.
    """
    try:
        if not end(connection, image_id, upload_id):
            raise _lost(connection, image_id)
        insert_location(connection, image_id, location, now)
        move_on(
            connection,
            image_id,
            status,
            {
                "status": Status.ACTIVE.value,
                "size": size,
                "virtual_size": virtual_size,
                "checksum": checksum,
                "os_hash_algo": os_hash_algo,
                "os_hash_value": os_hash_value,
                "updated_at": now,
            },
        )
    except (errors.ImageNotFound, exc.IntegrityError):
        # IntegrityError: not only deleted but purged, and the location refers to nothing.
        raise errors.ImageGone(image_id=image_id) from None


@transaction
def release(
    connection: Connection,
    image_id: str,
    upload_id: str,
    now: datetime,
    *,
    discard: Callable[[], None] | None = None,
) -> None:
    """End an upload that failed: the image is queued again and the lease is gone.

    Harmless when the lease was lost.  ``discard`` removes what the upload has published; it is
    called, perhaps more than once, only when no other upload can have published it, and before
    another one can begin.
    """
    if end(connection, image_id, upload_id):
        _queue_again(connection, image_id, now)
    if discard is not None and _is_nobodys(connection, image_id):
        discard()


@transaction
def expire(
    connection: Connection,
    lease: Lease,
    now: datetime,
    *,
    discard: Callable[[], None] | None = None,
) -> bool:
    """Release somebody else's upload, unless it has ended or beaten since ``lease`` was read.

    ``discard`` as for ``release``.  Returns whether the upload was taken back.
    """
    if not end(connection, lease.image_id, lease.upload_id, lease.heartbeat):
        return False
    _queue_again(connection, lease.image_id, now)
    if discard is not None and _is_nobodys(connection, lease.image_id):
        discard()
    return True


def beat(database: Database, upload_ids: Collection[str], now: datetime) -> None:
    """Say that these uploads are alive."""
    if upload_ids:
        _beat(database, upload_ids, now)


@transaction
def _beat(connection: Connection, upload_ids: Collection[str], now: datetime) -> None:
    connection.execute(
        sa.update(uploads).where(uploads.c.upload_id.in_(upload_ids)).values(heartbeat=now)
    )


def leases(database: Database) -> list[Lease]:
    """All uploads in progress, the one silent for longest first."""
    statement = sa.select(*_LEASE).order_by(uploads.c.heartbeat)
    with database.read() as connection:
        return [
            Lease(image_id, upload_id, worker, heartbeat)
            for image_id, upload_id, worker, heartbeat in connection.execute(statement)
        ]


def end(
    connection: Connection, image_id: str, upload_id: str, heartbeat: datetime | None = None
) -> bool:
    """Delete a lease; False when there is no such one (any more)."""
    statement = sa.delete(uploads).where(
        uploads.c.image_id == image_id, uploads.c.upload_id == upload_id
    )
    if heartbeat is not None:
        statement = statement.where(uploads.c.heartbeat == heartbeat)
    return connection.execute(statement).rowcount == 1


def _queue_again(connection: Connection, image_id: str, now: datetime) -> None:
    connection.execute(
        sa.update(images)
        .where(
            images.c.id == image_id,
            images.c.status.in_([Status.SAVING.value, Status.IMPORTING.value]),
            images.c.deleted == sa.false(),
        )
        .values(
            status=Status.QUEUED.value,
            size=None,
            virtual_size=None,
            checksum=None,
            os_hash_algo=None,
            os_hash_value=None,
            updated_at=now,
        )
    )


def _is_nobodys(connection: Connection, image_id: str) -> bool:
    """Whether no record and no upload can own data of the image; locks its row meanwhile."""
    found = connection.execute(
        sa.select(images.c.status, images.c.deleted)
        .where(images.c.id == image_id)
        .with_for_update()
    ).one_or_none()
    if found is None:
        return True
    if found.deleted:  # one whose deletion is put off has its data still
        return bool(found.status != Status.PENDING_DELETE.value)
    leased = connection.execute(
        sa.select(sa.exists().where(uploads.c.image_id == image_id))
    ).scalar_one()
    return found.status == Status.QUEUED.value and not leased


def _lost(connection: Connection, image_id: str) -> errors.Error:
    """Why an upload has no lease any more."""
    status = connection.execute(
        sa.select(images.c.status).where(images.c.id == image_id, images.c.deleted == sa.false())
    ).scalar_one_or_none()
    if status is None:
        return errors.ImageNotFound(image_id=image_id)
    return errors.StatusConflict(image_id=image_id, status=status, expected="saving by this upload")
