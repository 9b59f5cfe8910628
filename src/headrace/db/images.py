"""One image's record: show, create, update, delete; each in a transaction of its own.

Deletes are soft, as Glance's are: a deleted id stays taken, and a property that was removed keeps
its row, which setting it again takes up.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import quotas, rows
from headrace.db.engine import Database, transaction
from headrace.db.hints import exactly, unindexed
from headrace.db.schema import (
    image_locations,
    image_members,
    image_properties,
    image_tags,
    images,
)
from headrace.model import Image, Location, Status, Viewer

_BASE = tuple(
    field.name
    for field in fields(Image)
    if field.name not in {"tags", "properties", "locations", "status", "visibility"}
)
# What decisions about an image rest on.  updated_at alone would do where it has microseconds.
_DECISIVE = (
    "status", "visibility", "owner", "protected", "disk_format", "container_format", "updated_at",
)  # fmt: skip
_UNCHANGED = tuple(
    images.c[name].is_not_distinct_from(sa.bindparam(f"was_{name}")) for name in _DECISIVE
)
NOT_DELETED: dict[str, object] = {"deleted": False, "deleted_at": None}


def show(database: Database, image_id: str, viewer: Viewer) -> Image:
    """The image with all its parts, by two SELECTs.

    Raises ImageNotFound when it is unknown, deleted or not for this viewer's eyes.
    """
    statement = _show(viewer.is_admin, viewer.project_id is not None)
    with database.read() as connection:
        row = connection.execute(statement, _named(image_id, viewer)).one_or_none()
        if row is None:
            raise errors.ImageNotFound(image_id=image_id)
        return rows.image(row, rows.parts_of_one(connection, row[0]))


def show_for_download(database: Database, image_id: str, viewer: Viewer) -> Image:
    """The image with its locations but no tags or properties, by one SELECT.

    Raises ImageNotFound like ``show``.
    """
    statement = _show_with_locations(viewer.is_admin, viewer.project_id is not None)
    with database.read() as connection:
        found = connection.execute(statement, _named(image_id, viewer)).all()
    if not found:
        raise errors.ImageNotFound(image_id=image_id)
    width = len(rows.COLUMNS)
    parts = rows.Parts()
    for row in found:
        key, url, meta_data = row[width:]
        if key is not None:
            parts.locations[key] = rows.location(url, meta_data)
    return rows.image(found[0][:width], parts)


@transaction
def create(connection: Connection, image: Image, demand: quotas.Demand | None = None) -> None:
    """Record a new image.

    Raises ImageExists also for the id of a deleted one, QuotaExceeded when there is no room for
    what ``demand`` says.
    """
    if demand is not None:
        quotas.admit(connection, demand)
    insert(connection, image)


def insert(connection: Connection, image: Image) -> None:
    """As ``create``, in a transaction of the caller's that has asked for room."""
    try:
        connection.execute(
            sa.insert(images),
            {
                **{name: getattr(image, name) for name in _BASE},
                "status": image.status.value,
                "visibility": image.visibility.value,
                **NOT_DELETED,
            },
        )
    except exc.IntegrityError:
        raise errors.ImageExists(image_id=image.id) from None
    _insert_properties(connection, image, image.properties)
    _insert_tags(connection, image, image.tags)
    for location in image.locations:
        insert_location(connection, image.id, location, image.created_at)


@transaction
def update(
    connection: Connection,
    before: Image,
    after: Image,
    check: Callable[[Image], None] | None = None,
    limits: quotas.Limits | None = None,
) -> Image:
    """Write what ``after`` changes of ``before``, and its updated_at; the image as stored.

    ``check`` is shown that image, which may have properties and tags that ``after`` has not: where
    a time has whole seconds, somebody else's of the same second.  When it raises nothing is stored.
    ``limits`` are those of a new owner.

    Locations are not touched.  Raises ImageChanged when the image is no longer what ``before``
    says, ImageNotFound when it was deleted; of a new owner QuotaExceeded, and ImageBusy while the
    image's data is coming.
    """
    if limits:
        quotas.lock(connection, after.owner)
    # First of all else: the row's lock puts all updates of one image in a line.
    changed = {name: getattr(after, name) for name in _BASE if _differs(before, after, name)}
    changed |= {
        "status": after.status.value,
        "visibility": after.visibility.value,
        "updated_at": after.updated_at,
    }
    compare_and_set(connection, before, changed)
    if limits:
        quotas.receive(connection, before.id, after.owner, limits)
    _update_properties(connection, before, after)
    _delete_tags(connection, after, before.tags - after.tags)
    _insert_tags(connection, after, after.tags - before.tags)
    row = connection.execute(
        sa.select(*rows.COLUMNS).where(images.c.id == sa.bindparam("id")), {"id": before.id}
    ).one()
    stored = rows.image(row, rows.parts_of_one(connection, before.id))
    if check is not None:
        check(stored)
    return stored


@transaction
def delete(connection: Connection, image: Image, now: datetime, *, delayed: bool = False) -> None:
    """Delete the image; its locations are pending_delete until ``data_deleted``.

    ``delayed``: so is an image that has any, which puts its data off (``delayed_data``).

    Raises ImageChanged when the image is no longer what ``image`` says, ImageNotFound when it was
    deleted already.
    """
    deleted = {"deleted": True, "deleted_at": now, "updated_at": now}
    status_of_image = Status.PENDING_DELETE if delayed and image.locations else Status.DELETED
    compare_and_set(connection, image, {**deleted, "status": status_of_image.value})
    delete_parts(connection, image.id, now)
    # A row that was never active (a Glance's parallel import) has no data of its own.
    status = sa.case(
        (image_locations.c.status == "active", Status.PENDING_DELETE.value),
        else_=Status.DELETED.value,
    )
    connection.execute(_parts_left(image_locations, image.id).values({**deleted, "status": status}))


def delete_parts(connection: Connection, image_id: str, now: datetime) -> None:
    """Delete what belongs to an image that is deleted, except for its locations."""
    deleted = {"deleted": True, "deleted_at": now, "updated_at": now}
    for table in (image_properties, image_tags, image_members):
        connection.execute(_parts_left(table, image_id).values(deleted))


@transaction
def data_deleted(connection: Connection, image_id: str, urls: Collection[str]) -> None:
    """Note that the data of an image that was given up is gone from these places."""
    connection.execute(
        sa.update(image_locations)
        .where(
            image_locations.c.image_id == image_id,
            unindexed(image_locations.c.deleted == sa.true()),
            image_locations.c.status == Status.PENDING_DELETE.value,
            image_locations.c.value.in_(urls),
        )
        .values(status=Status.DELETED.value)
    )
    connection.execute(
        sa.update(images)
        .where(images.c.id == image_id, images.c.status == Status.PENDING_DELETE.value)
        .values(status=Status.DELETED.value)
    )


def undeleted_data(database: Database, before: datetime) -> dict[str, list[Location]]:
    """Image id → where data is that was given up and that a crash left in its stores.

    All data of deleted images, and of others what was given up ``before`` a time: a deletion of the
    last moments may still be under way.  An image that is itself pending_delete is not among them:
    see ``delayed_data``.
    """
    given_up = (images.c.status == Status.DELETED.value) | (
        (images.c.status != Status.PENDING_DELETE.value) & (image_locations.c.deleted_at < before)
    )
    return _pending_data(database, given_up)


def delayed_data(database: Database, before: datetime) -> dict[str, list[Location]]:
    """Image id → where the data is of images whose deletion, until then, was put off."""
    waited = (images.c.status == Status.PENDING_DELETE.value) & (images.c.deleted_at <= before)
    return _pending_data(database, waited)


def _pending_data(database: Database, of: sa.ColumnElement[bool]) -> dict[str, list[Location]]:
    """The places that wait to be emptied, but for those where their image has data again."""
    again = image_locations.alias("again")
    statement = (
        sa.select(image_locations.c.image_id, image_locations.c.value, image_locations.c.meta_data)
        .join(images, images.c.id == image_locations.c.image_id)
        .where(
            image_locations.c.status == Status.PENDING_DELETE.value,
            unindexed(image_locations.c.deleted == sa.true()),
            of,
            ~sa.exists().where(
                again.c.image_id == image_locations.c.image_id,
                again.c.value == image_locations.c.value,
                unindexed(again.c.deleted == sa.false()),
            ),
        )
        .order_by(image_locations.c.id)
    )
    left: dict[str, list[Location]] = {}
    with database.read() as connection:
        for image_id, url, meta_data in connection.execute(statement):
            left.setdefault(image_id, []).append(rows.location(url, meta_data))
    return left


def compare_and_set(connection: Connection, image: Image, values: dict[str, object]) -> None:
    """Set columns of an image if its row is still what ``image`` says.

    What was decided by looking at the image (its formats, its protection, who may see it) holds
    only for that row.  Raises ImageChanged, or ImageNotFound when it is deleted.
    """
    done = connection.execute(_live(image.id).where(*_UNCHANGED).values(values), _was(image))
    if done.rowcount != 1:
        raise _changed(connection, image)


def hold(connection: Connection, image: Image) -> None:
    """Keep the row of an image as ``image`` says until the transaction ends.

    For what is decided by looking at the image but written beside it.  Raises ImageChanged, or
    ImageNotFound when it is deleted.
    """
    row = sa.select(images.c.id).where(
        images.c.id == image.id, images.c.deleted == sa.false(), *_UNCHANGED
    )
    if connection.execute(row.with_for_update(), _was(image)).one_or_none() is None:
        raise _changed(connection, image)


def move_on(
    connection: Connection, image_id: str, status: Status, values: dict[str, object]
) -> None:
    """Set columns of an image if it still has this status, whatever else changed.

    Raises StatusConflict, or ImageNotFound when it is deleted.
    """
    done = connection.execute(_live(image_id).where(images.c.status == status.value).values(values))
    if done.rowcount != 1:
        found = _status(connection, image_id)
        raise errors.StatusConflict(image_id=image_id, status=found, expected=status.value)


def _was(image: Image) -> dict[str, object]:
    """The parameters of ``_UNCHANGED``."""
    return {f"was_{name}": _stored(getattr(image, name)) for name in _DECISIVE}


def _stored(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def _changed(connection: Connection, image: Image) -> errors.Error:
    """Why a row is not what ``image`` says: changed, unless ImageNotFound is raised."""
    _status(connection, image.id)
    return errors.ImageChanged(image_id=image.id)


def _live(image_id: str) -> sa.Update:
    return sa.update(images).where(images.c.id == image_id, images.c.deleted == sa.false())


def _status(connection: Connection, image_id: str) -> str:
    found: str | None = connection.execute(
        sa.select(images.c.status).where(images.c.id == image_id, images.c.deleted == sa.false())
    ).scalar_one_or_none()
    if found is None:
        raise errors.ImageNotFound(image_id=image_id)
    return found


def insert_location(
    connection: Connection, image_id: str, location: Location, now: datetime
) -> None:
    """Add an active location to an image."""
    connection.execute(
        sa.insert(image_locations).inline(),
        {
            "image_id": image_id,
            "value": location.url,
            "meta_data": msgspec.json.encode(location.metadata).decode(),
            "status": Status.ACTIVE.value,
            "created_at": now,
            "updated_at": now,
            **NOT_DELETED,
        },
    )


def set_properties(
    connection: Connection, image_id: str, properties: Mapping[str, str], now: datetime
) -> None:
    """Give a live image properties of the service's own; its other columns are not touched."""
    if not properties:
        return
    live = sa.select(images.c.id).where(images.c.id == image_id, images.c.deleted == sa.false())
    if connection.execute(live).one_or_none() is None:
        return  # its properties are deleted with it
    for name, value in properties.items():
        done = connection.execute(
            sa.update(image_properties)
            .where(image_properties.c.image_id == image_id, image_properties.c.name == name)
            .values(value=value, updated_at=now, **NOT_DELETED)
        )
        if done.rowcount == 0:
            connection.execute(
                sa.insert(image_properties).inline(),
                {
                    "image_id": image_id,
                    "name": name,
                    "value": value,
                    "created_at": now,
                    "updated_at": now,
                    **NOT_DELETED,
                },
            )


@cache
def _show(is_admin: bool, has_project: bool) -> sa.Select[*tuple[Any, ...]]:
    return sa.select(*rows.COLUMNS).where(
        images.c.id == sa.bindparam("id"),
        images.c.deleted == sa.false(),
        rows.is_visible(is_admin=is_admin, has_project=has_project),
    )


@cache
def _show_with_locations(is_admin: bool, has_project: bool) -> sa.Select[*tuple[Any, ...]]:
    live = (
        (image_locations.c.image_id == images.c.id)
        & unindexed(image_locations.c.deleted == sa.false())
        & (image_locations.c.status == Status.ACTIVE.value)
    )
    return (
        _show(is_admin, has_project)
        .add_columns(image_locations.c.id, image_locations.c.value, image_locations.c.meta_data)
        .select_from(images.outerjoin(image_locations, live))
    )


def _named(image_id: str, viewer: Viewer) -> dict[str, object]:
    return {"id": image_id, "viewer": viewer.project_id}


def _differs(before: Image, after: Image, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


def _update_properties(connection: Connection, before: Image, after: Image) -> None:
    changed = {
        name: value
        for name, value in after.properties.items()
        if before.properties.get(name) != value
    }
    removed = before.properties.keys() - after.properties.keys()
    if changed:
        stored = set(
            connection.execute(
                sa.select(image_properties.c.name).where(
                    image_properties.c.image_id == after.id,
                    exactly(image_properties.c.name.in_(list(changed))),
                )
            ).scalars()
        )
        _revive_properties(connection, after, {name: changed[name] for name in stored})
        _insert_properties(
            connection, after, {name: changed[name] for name in changed.keys() - stored}
        )
    if removed:
        connection.execute(
            _parts_left(image_properties, after.id)
            .where(exactly(image_properties.c.name.in_(list(removed))))
            .values(deleted=True, deleted_at=after.updated_at, updated_at=after.updated_at)
        )


def _revive_properties(connection: Connection, image: Image, values: dict[str, str]) -> None:
    if values:
        connection.execute(
            sa.update(image_properties)
            .where(
                image_properties.c.image_id == image.id,
                exactly(image_properties.c.name == sa.bindparam("which")),
            )
            .values(value=sa.bindparam("what"), updated_at=image.updated_at, **NOT_DELETED),
            [{"which": name, "what": value} for name, value in values.items()],
        )


def _insert_properties(connection: Connection, image: Image, values: dict[str, str]) -> None:
    new = [{**_new(image), "name": name, "value": value} for name, value in values.items()]
    if not new:
        return
    try:
        connection.execute(sa.insert(image_properties).inline(), new)
    except exc.IntegrityError:
        # MySQL's unique key takes names for the same that differ in case or accents only.
        raise errors.PropertyExists(name=", ".join(values)) from None


def _insert_tags(connection: Connection, image: Image, tags: Iterable[str]) -> None:
    new = [{**_new(image), "value": tag} for tag in sorted(tags)]
    if new:
        connection.execute(sa.insert(image_tags).inline(), new)


def _delete_tags(connection: Connection, image: Image, tags: frozenset[str]) -> None:
    if tags:
        connection.execute(
            _parts_left(image_tags, image.id)
            .where(exactly(image_tags.c.value.in_(list(tags))))
            .values(deleted=True, deleted_at=image.updated_at, updated_at=image.updated_at)
        )


def _new(image: Image) -> dict[str, object]:
    """What all new rows of an image's parts have in common."""
    return {
        "image_id": image.id,
        "created_at": image.updated_at,
        "updated_at": image.updated_at,
        **NOT_DELETED,
    }


def _parts_left(table: sa.Table, image_id: str) -> sa.Update:
    return sa.update(table).where(
        table.c.image_id == image_id, unindexed(table.c.deleted == sa.false())
    )
