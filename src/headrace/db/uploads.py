"""Uploads in progress: who may write an image's data, and how that right is given and lost.

An upload is a lease (table ``headrace_uploads``) on an image that is ``saving``.  The claim makes
both in one transaction and the activation ends both in one; a ``saving`` image without a lease is
being uploaded through a Glance beside us and is never touched.  The data of a location that is
hashed before the image becomes active is an upload, too, of an image that is ``importing``; a lease
on an active image is of hashing that goes on behind it, or of copying to other stores; one on an
``uploading`` image is of data on its way to where it is staged.  The id of an import's upload is
that of its task.  What an upload has reserved of its project's quota (db.quotas) it has as long as
its lease: whoever ends that, settles it.  The lease says, too, in which stores its upload may have
published data: whoever takes it back looks there, and nowhere else.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import quotas
from headrace.db.engine import Database, transaction
from headrace.db.images import (
    compare_and_set,
    delete_parts,
    insert_location,
    move_on,
    set_properties,
)
from headrace.db.schema import (
    image_locations,
    image_properties,
    images,
    task_info,
    tasks,
    uploads,
)
from headrace.model import (
    IMPORT_LOCK,
    NEW_IMAGE_TASK,
    TASK_LIFE,
    Image,
    Location,
    Status,
    TaskStatus,
)

_UNDER_WAY = [Status.SAVING.value, Status.UPLOADING.value, Status.IMPORTING.value]
_LEASE = (
    uploads.c.image_id,
    uploads.c.upload_id,
    uploads.c.worker,
    uploads.c.heartbeat,
    uploads.c.stores,
)


@dataclass(frozen=True, slots=True)
class Lease:
    """An upload in progress: the worker that has it and when that last said so (naive UTC).

    ``stores`` are the ids of those that it may have published in; None where that is not known.
    """

    image_id: str
    upload_id: str
    worker: str
    heartbeat: datetime
    stores: tuple[str, ...] | None = None


@transaction
def claim(
    connection: Connection,
    image: Image,
    upload_id: str,
    worker: str,
    now: datetime,
    status: Status = Status.SAVING,
    demand: quotas.Demand | None = None,
    *,
    stores: Sequence[str] | None = None,
) -> int:
    """Take a queued image for an upload: it gets ``status`` and a lease of ``worker``.

    ``stores`` are the ids of those that it may publish in, None for any.
    Answers how many bytes of the project's quota are reserved, where ``demand`` asks for any.
    Raises ImageChanged for everybody but the first, and when what was checked (the formats above
    all) is no longer so; ImageNotFound when the image was deleted; QuotaExceeded.
    """
    reserved = quotas.admit(connection, demand) if demand is not None else {}
    compare_and_set(connection, image, {"status": status.value, "updated_at": now})
    lease(connection, image, upload_id, worker, now, stores, reserved)
    return sum(reserved.values())


def lease(
    connection: Connection,
    image: Image,
    upload_id: str,
    worker: str,
    now: datetime,
    stores: Sequence[str] | None,
    reserved: Mapping[str, int],
) -> None:
    """Note that ``worker`` is at work on the image; raises StatusConflict when somebody is."""
    try:
        connection.execute(
            sa.insert(uploads),
            {
                "image_id": image.id,
                "upload_id": upload_id,
                "worker": worker,
                "heartbeat": now,
                "stores": None if stores is None else ",".join(stores),
                **reserved,
            },
        )
    except exc.IntegrityError:
        # Somebody else made the image queued under an upload that has not ended yet.
        raise errors.StatusConflict(
            image_id=image.id, status=Status.SAVING, expected=Status.QUEUED
        ) from None


def extend(database: Database, image_id: str, upload_id: str, demand: quotas.Demand) -> int:
    """Reserve what ``demand`` says, instead of what an upload has reserved so far; how many bytes.

    Raises QuotaExceeded, after which it has nothing; ImageGone, StatusConflict when the lease was
    lost.
    """
    found = _extend(database, image_id, upload_id, demand)
    if isinstance(found, errors.QuotaExceeded):
        raise found
    return found


@transaction
def _extend(
    connection: Connection, image_id: str, upload_id: str, demand: quotas.Demand
) -> int | errors.QuotaExceeded:
    reserved = quotas.extend(connection, image_id, upload_id, demand)
    if isinstance(reserved, errors.QuotaExceeded):
        return reserved
    if reserved is not None:
        return sum(reserved.values())
    failure = _lost(connection, image_id)
    if isinstance(failure, errors.ImageNotFound):
        raise errors.ImageGone(image_id=image_id)
    raise failure


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
        end_or_raise(connection, image_id, upload_id)
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
def staged(connection: Connection, image_id: str, upload_id: str, size: int, now: datetime) -> None:
    """End the upload of staged data well: the image stays ``uploading`` until it is imported.

    Raises as ``activate``.
    """
    try:
        end_or_raise(connection, image_id, upload_id)
        move_on(connection, image_id, Status.UPLOADING, {"size": size, "updated_at": now})
    except errors.ImageNotFound:
        raise errors.ImageGone(image_id=image_id) from None


@transaction
def release(
    connection: Connection,
    image_id: str,
    upload_id: str,
    now: datetime,
    *,
    discard: Callable[[], None] | None = None,
    message: str = "it failed",
    properties: Mapping[str, str] | None = None,
    task_life: timedelta = TASK_LIFE,
) -> None:
    """End an upload that failed: the image is queued again and the lease is gone.

    An active image stays so.  The task of an import fails with ``message`` and is kept for
    ``task_life``; the image gets ``properties``.  Harmless when the lease was lost.  ``discard``
    removes what the upload has published; it is called, perhaps more than once, only when no other
    upload can have published it, and before another one can begin.
    """
    if end(connection, image_id, upload_id):
        _give_back(connection, image_id, upload_id, now)
        unlock(connection, image_id, upload_id)
        fail_task(connection, upload_id, message, now, task_life)
        set_properties(connection, image_id, properties or {}, now)
    if discard is not None and _is_nobodys(connection, image_id):
        discard()


@transaction
def expire(
    connection: Connection,
    lease: Lease,
    now: datetime,
    *,
    discard: Callable[[], None] | None = None,
    task_life: timedelta = TASK_LIFE,
) -> bool:
    """Release somebody else's upload, unless it has ended or beaten since ``lease`` was read.

    ``discard`` and ``task_life`` as for ``release``.  Returns whether the upload was taken back.
    """
    if not end(connection, lease.image_id, lease.upload_id, lease.heartbeat):
        return False
    _give_back(connection, lease.image_id, lease.upload_id, now)
    unlock(connection, lease.image_id, lease.upload_id)
    fail_task(connection, lease.upload_id, "the process that did it is gone", now, task_life)
    if discard is not None and _is_nobodys(connection, lease.image_id):
        discard()
    return True


@transaction
def tidy(connection: Connection, image_id: str, discard: Callable[[list[Location]], None]) -> None:
    """Have ``discard`` remove what is no data of an image on record, unless somebody is at work.

    It is told where the image has data, and may be called more than once.
    """
    found = connection.execute(
        sa.select(images.c.status)
        .where(images.c.id == image_id, images.c.deleted == sa.false())
        .with_for_update()
    ).one_or_none()
    if found is None or found.status not in (Status.ACTIVE.value, Status.DEACTIVATED.value):
        return
    if _is_leased(connection, image_id) or _is_locked(connection, image_id):
        return
    statement = sa.select(image_locations.c.value).where(
        image_locations.c.image_id == image_id, image_locations.c.deleted == sa.false()
    )
    discard([Location(url) for url in connection.execute(statement).scalars()])


@transaction
def unstage(connection: Connection, image_id: str, discard: Callable[[], None]) -> bool:
    """Have ``discard`` remove staged data, unless it is wanted; whether that was so."""
    found = connection.execute(
        sa.select(images.c.status)
        .where(images.c.id == image_id, images.c.deleted == sa.false())
        .with_for_update()
    ).one_or_none()
    if found is not None and (
        found.status in (Status.UPLOADING.value, Status.IMPORTING.value)
        or _is_leased(connection, image_id)
        or _is_locked(connection, image_id)
    ):
        return False
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
            Lease(image_id, upload_id, worker, heartbeat, _ids(stores))
            for image_id, upload_id, worker, heartbeat, stores in connection.execute(statement)
        ]


def _ids(stores: str | None) -> tuple[str, ...] | None:
    return None if stores is None else tuple(filter(None, stores.split(",")))


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


def end_or_raise(connection: Connection, image_id: str, upload_id: str) -> None:
    """Delete a lease; raises ImageNotFound, StatusConflict when it was lost."""
    if not end(connection, image_id, upload_id):
        raise _lost(connection, image_id)


def hold(
    connection: Connection,
    image_id: str,
    upload_id: str,
    now: datetime,
    settled: Mapping[str, object],
) -> None:
    """Make sure of a lease until the transaction ends; raises as ``end_or_raise``.

    ``settled`` are columns of what it has reserved.
    """
    held = connection.execute(
        sa.update(uploads)
        .where(uploads.c.image_id == image_id, uploads.c.upload_id == upload_id)
        .values(heartbeat=now, **settled)
    )
    if held.rowcount != 1:
        raise _lost(connection, image_id)


def unlock(connection: Connection, image_id: str, task_id: str) -> bool:
    """Remove the lock of an import, with its row, as Glance does; False when it is not there."""
    done = connection.execute(
        sa.delete(image_properties).where(
            image_properties.c.image_id == image_id,
            image_properties.c.name == IMPORT_LOCK,
            image_properties.c.value == task_id,
        )
    )
    return bool(done.rowcount)


def fail_task(
    connection: Connection, task_id: str, message: str, now: datetime, life: timedelta = TASK_LIFE
) -> None:
    """Note that a task failed, unless it has ended; it is kept for ``life``.

    Harmless for an upload that is no task.
    """
    done = connection.execute(
        sa.update(tasks)
        .where(tasks.c.id == task_id, unfinished())
        .values(status=TaskStatus.FAILURE.value, updated_at=now, expires_at=now + life)
    )
    if done.rowcount:
        connection.execute(
            sa.update(task_info).where(task_info.c.task_id == task_id).values(message=message)
        )


def unfinished() -> sa.ColumnElement[bool]:
    """Whether a task is to be done or being done."""
    return tasks.c.status.in_([TaskStatus.PENDING.value, TaskStatus.PROCESSING.value])


def _give_back(connection: Connection, image_id: str, upload_id: str, now: datetime) -> None:
    """Queue an image again whose data did not come, or delete one that was made for its data."""
    under_way = sa.update(images).where(
        images.c.id == image_id,
        images.c.status.in_(_UNDER_WAY),
        images.c.deleted == sa.false(),
    )
    if _made_image(connection, upload_id):
        gone = under_way.values(
            status=Status.DELETED.value, deleted=True, deleted_at=now, updated_at=now
        )
        if connection.execute(gone).rowcount:
            delete_parts(connection, image_id, now)
        return
    connection.execute(
        under_way.values(
            status=Status.QUEUED.value,
            size=None,
            virtual_size=None,
            checksum=None,
            os_hash_algo=None,
            os_hash_value=None,
            updated_at=now,
        )
    )


def _made_image(connection: Connection, upload_id: str) -> bool:
    """Whether an upload is that of a task which made the image, too."""
    found = connection.execute(sa.select(tasks.c.type).where(tasks.c.id == upload_id))
    return found.scalar_one_or_none() == NEW_IMAGE_TASK


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
    return bool(found.status == Status.QUEUED.value) and not _is_leased(connection, image_id)


def _is_leased(connection: Connection, image_id: str) -> bool:
    statement = sa.select(sa.exists().where(uploads.c.image_id == image_id))
    return bool(connection.execute(statement).scalar_one())


def _is_locked(connection: Connection, image_id: str) -> bool:
    lock = sa.exists().where(
        image_properties.c.image_id == image_id,
        image_properties.c.name == IMPORT_LOCK,
        image_properties.c.deleted == sa.false(),
    )
    return bool(connection.execute(sa.select(lock)).scalar_one())


def _lost(connection: Connection, image_id: str) -> errors.Error:
    """Why an upload has no lease any more."""
    status = connection.execute(
        sa.select(images.c.status).where(images.c.id == image_id, images.c.deleted == sa.false())
    ).scalar_one_or_none()
    if status is None:
        return errors.ImageNotFound(image_id=image_id)
    return errors.StatusConflict(image_id=image_id, status=status, expected="saving by this upload")
