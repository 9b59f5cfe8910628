"""Imports: the lock that an image has while one goes on, its task, and what becomes of both.

The lock is a property of the image, ``os_glance_import_task``, whose value is the task's id; Glance
knows it, too.  The task's id is also that of our lease (db.uploads): who lets go of the lease lets
go of the lock.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import quotas, uploads
from headrace.db.engine import Database, transaction
from headrace.db.images import (
    NOT_DELETED,
    compare_and_set,
    insert,
    insert_location,
    move_on,
    set_properties,
)
from headrace.db.schema import image_properties, images, task_info, tasks
from headrace.model import IMPORT_LOCK, Image, Location, Status, Task, TaskStatus

# A Glance that has said nothing of its task for so long does no longer work on it.
_SILENT = {
    TaskStatus.PENDING.value: timedelta(minutes=120),
    TaskStatus.PROCESSING.value: timedelta(minutes=60),
}

_LONGEST_INPUT = 65535  # bytes: a TEXT column of MySQL


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task ended well, and when its row may be forgotten."""

    message: str
    expires_at: datetime


@transaction
def begin(
    connection: Connection,
    before: Image,
    task: Task,
    worker: str,
    status: Status,
    properties: Mapping[str, str],
    demand: quotas.Demand | None = None,
    *,
    stores: Sequence[str] | None = None,
) -> int:
    """Lock an image for an import and record its task, with a lease of ``worker``.

    ``stores`` and the answer are as for ``uploads.claim``.  Raises ImageBusy while another
    import holds the lock or somebody is at work on the image; ImageChanged when it is no longer
    what ``before`` says, ImageNotFound when it was deleted; TooLarge for the task's input;
    QuotaExceeded.
    """
    now = task.created_at
    reserved = quotas.admit(connection, demand) if demand is not None else {}
    compare_and_set(connection, before, {"status": status.value, "updated_at": now})
    _break_stale_lock(connection, before.id, now)
    try:
        _lock(connection, before, task, worker, stores, reserved)
    except (errors.StatusConflict, exc.IntegrityError):
        raise errors.ImageBusy(image_id=before.id) from None
    _insert_task(connection, task)
    set_properties(connection, before.id, properties, now)
    return sum(reserved.values())


@transaction
def create(
    connection: Connection,
    image: Image,
    task: Task,
    worker: str,
    properties: Mapping[str, str],
    demand: quotas.Demand | None = None,
    *,
    stores: Sequence[str] | None = None,
) -> int:
    """Record a new image together with the import that it is made for, as ``begin`` does.

    Raises ImageExists, TooLarge, QuotaExceeded.
    """
    reserved = quotas.admit(connection, demand) if demand is not None else {}
    insert(connection, image)
    _lock(connection, image, task, worker, stores, reserved)
    _insert_task(connection, task)
    set_properties(connection, image.id, properties, task.created_at)
    return sum(reserved.values())


@transaction
def take(connection: Connection, task_id: str, now: datetime) -> bool:
    """Begin to work on a pending task; False when it is no longer to be done."""
    done = connection.execute(
        sa.update(tasks)
        .where(tasks.c.id == task_id, tasks.c.status == TaskStatus.PENDING.value)
        .values(status=TaskStatus.PROCESSING.value, updated_at=now)
    )
    return bool(done.rowcount == 1)


def beat(database: Database, task_ids: Collection[str], now: datetime) -> None:
    """Say that these tasks are alive: a Glance beside us takes the lock of one that is silent."""
    if task_ids:
        _beat(database, task_ids, now)


@transaction
def _beat(connection: Connection, task_ids: Collection[str], now: datetime) -> None:
    connection.execute(
        sa.update(tasks)
        .where(tasks.c.id.in_(task_ids), uploads.unfinished())
        .values(updated_at=now)
    )


@transaction
def report(
    connection: Connection, image_id: str, task_id: str, message: str | None, now: datetime
) -> bool:
    """Say how far a task is; False when it is no longer wanted, or its image is gone."""
    done = connection.execute(
        sa.update(tasks)
        .where(tasks.c.id == task_id, tasks.c.status == TaskStatus.PROCESSING.value)
        .values(updated_at=now)
    )
    if message is not None:
        connection.execute(
            sa.update(task_info).where(task_info.c.task_id == task_id).values(message=message)
        )
    gone = connection.execute(
        sa.select(images.c.deleted).where(images.c.id == image_id)
    ).scalar_one_or_none()
    return done.rowcount == 1 and gone is False


@transaction
def record(
    connection: Connection,
    image_id: str,
    task_id: str,
    *,
    locations: Sequence[Location],
    found: Mapping[str, object] | None,
    properties: Mapping[str, str],
    ending: Ending | None,
    now: datetime,
) -> None:
    """Note copies of an image's data; with ``ending`` the import is over and its lock is gone.

    ``found`` are columns of the image, which becomes active by its first data.  Raises ImageGone
    when the image was deleted, StatusConflict and ImageBusy when lease or lock were lost; then
    nothing has changed.
    """
    try:
        if ending is None:
            size = None if found is None else cast("int", found["size"])
            settled = quotas.settled(len(locations), size, image_id)
            uploads.hold(connection, image_id, task_id, now, settled)
        else:
            _end(connection, image_id, task_id, ending, now)
        if found is not None:
            values = {**found, "status": Status.ACTIVE.value, "updated_at": now}
            move_on(connection, image_id, Status.IMPORTING, values)
        else:
            _touch(connection, image_id, now)
        for location in locations:
            insert_location(connection, image_id, location, now)
        set_properties(connection, image_id, properties, now)
    except (errors.ImageNotFound, exc.IntegrityError):
        raise errors.ImageGone(image_id=image_id) from None


def _lock(
    connection: Connection,
    image: Image,
    task: Task,
    worker: str,
    stores: Sequence[str] | None,
    reserved: Mapping[str, int],
) -> None:
    now = task.created_at
    uploads.lease(connection, image, task.id, worker, now, stores, reserved)
    connection.execute(
        sa.insert(image_properties).inline(),
        {
            "image_id": image.id,
            "name": IMPORT_LOCK,
            "value": task.id,
            "created_at": now,
            "updated_at": now,
            **NOT_DELETED,
        },
    )


def _end(
    connection: Connection, image_id: str, task_id: str, ending: Ending, now: datetime
) -> None:
    uploads.end_or_raise(connection, image_id, task_id)
    _touch(connection, image_id, now)
    if not uploads.unlock(connection, image_id, task_id):
        raise errors.ImageBusy(image_id=image_id)
    connection.execute(
        sa.update(tasks)
        .where(tasks.c.id == task_id)
        .values(status=TaskStatus.SUCCESS.value, updated_at=now, expires_at=ending.expires_at)
    )
    result = msgspec.json.encode({"image_id": image_id}).decode()
    connection.execute(
        sa.update(task_info)
        .where(task_info.c.task_id == task_id)
        .values(result=result, message=ending.message)
    )


def _touch(connection: Connection, image_id: str, now: datetime) -> None:
    done = connection.execute(
        sa.update(images)
        .where(images.c.id == image_id, images.c.deleted == sa.false())
        .values(updated_at=now)
    )
    if done.rowcount != 1:
        raise errors.ImageNotFound(image_id=image_id)


def _break_stale_lock(connection: Connection, image_id: str, now: datetime) -> None:
    """Remove the lock of a task that ended, was never there or is silent; raises ImageBusy."""
    lock = image_properties.c.image_id == image_id, image_properties.c.name == IMPORT_LOCK
    held = connection.execute(
        sa.select(image_properties.c.value, image_properties.c.deleted).where(*lock)
    ).one_or_none()
    if held is None:
        return
    task = connection.execute(
        sa.select(tasks.c.status, tasks.c.created_at, tasks.c.updated_at).where(
            tasks.c.id == held.value, tasks.c.deleted == sa.false()
        )
    ).one_or_none()
    if not held.deleted and task is not None and task.status in _SILENT:
        if (task.updated_at or task.created_at) > now - _SILENT[task.status]:
            raise errors.ImageBusy(image_id=image_id)
        uploads.fail_task(connection, held.value, "its lock was taken by another import", now)
    connection.execute(sa.delete(image_properties).where(*lock))


def _insert_task(connection: Connection, task: Task) -> None:
    connection.execute(
        sa.insert(tasks),
        {
            "id": task.id,
            "type": task.type,
            "status": task.status.value,
            "owner": task.owner,
            "image_id": task.image_id,
            "request_id": task.request_id,
            "user_id": task.user_id,
            "created_at": task.created_at,
            "updated_at": task.updated_at,
            **NOT_DELETED,
        },
    )
    given = json.dumps(task.input)  # in ASCII, since a column of MySQL's utf8 does not take all
    if len(given) > _LONGEST_INPUT:
        raise errors.TooLarge(reason=f"a task's input of more than {_LONGEST_INPUT} bytes")
    connection.execute(
        sa.insert(task_info), {"task_id": task.id, "input": given, "message": task.message}
    )
