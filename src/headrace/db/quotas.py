"""What projects use, of what they may: counted, and taken, so that no limit is ever passed.

Who takes something of a limited kind locks his project's row of ``headrace_quotas`` first and keeps
it until his transaction ends: what is used and reserved only becomes less beside him.  Who gives
something back, or turns what he has reserved into an image's data, needs no lock.  But both sums
are read by one statement, whose view of the database is one moment's: between two of them an upload
that ends could be in neither.  On SQLite a transaction is the only writer anyway.

A Glance beside us neither reserves nor locks; what it has added counts from then on.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db.engine import Database
from headrace.db.hints import exactly, unindexed
from headrace.db.schema import image_locations, image_properties, images, quotas, uploads
from headrace.model import IMPORT_LOCK, MIB, Resource, Status

Limits = Mapping[Resource, int]
"""Most that a project may have, of what is limited: bytes, images."""

_IN_BYTES = {Resource.SIZE: uploads.c.reserved, Resource.STAGE: uploads.c.reserved_staging}
# Of what is left at most one part goes to bytes that are not needed yet, and where that is little,
# none: of those who ask at once, as many are served as there is room for.
_SHARE, _LEAST_SPARE = 16, MIB
_GONE = [Status.KILLED.value, Status.DELETED.value, Status.PENDING_DELETE.value]
_STAGED = [Status.UPLOADING.value, Status.IMPORTING.value]
_UNDER_WAY = [Status.SAVING.value, *_STAGED]


@dataclass(frozen=True, slots=True)
class Demand:
    """What somebody wants for a project that has ``limits``.

    ``takes`` are bytes and images that there must be room for.  Of ``spare``, in bytes, so much is
    taken as there is, with a body of unknown length: where little is left, a small part of it or
    nothing, so that others find room at the same time.
    """

    owner: str | None
    limits: Limits
    takes: Mapping[Resource, int]
    spare: Mapping[Resource, int] = field(default_factory=dict)


def usage(database: Database, owner: str | None) -> dict[Resource, int]:
    """What a project uses and has reserved: bytes, images."""
    with database.read() as connection:
        return _usage(connection, _owned(owner), list(Resource))


def admit(connection: Connection, demand: Demand) -> dict[str, int]:
    """Make sure that there is room until the transaction ends, of which it must be the beginning.

    Answers with what a lease then has of it, by its columns.  Raises QuotaExceeded.
    """
    lock(connection, demand.owner)
    granted = _granted(demand, _usage(connection, _owned(demand.owner), _limited(demand)))
    return _columns(granted)


def receive(connection: Connection, image_id: str, owner: str | None, limits: Limits) -> None:
    """Make sure that an image's new owner, whose row is locked, has room for all that it uses.

    To be called once it is his.  Raises QuotaExceeded; ImageBusy while its data is coming, of which
    not all may be reserved yet, or under the former owner's lock.
    """
    if connection.execute(
        sa.select(sa.exists().where(uploads.c.image_id == image_id))
    ).scalar_one():
        raise errors.ImageBusy(image_id=image_id)
    brought = _usage(connection, images.c.id == image_id, limits)
    used = _usage(connection, _owned(owner), limits)
    others = {each: used[each] - amount for each, amount in brought.items() if amount}
    _granted(Demand(owner, limits, brought), others)


def extend(
    connection: Connection, image_id: str, upload_id: str, demand: Demand
) -> dict[str, int] | errors.QuotaExceeded | None:
    """Make what a lease has reserved as much as ``demand`` says, and answer with it.

    Where there is no room for that, what it had is free, and the error is returned: were it not
    free from this moment on, many who ask at once would all be refused for what the others had.
    None when there is no such lease, or its image is another project's now.
    """
    lock(connection, demand.owner)
    lease = uploads.c.image_id == image_id, uploads.c.upload_id == upload_id
    held = connection.execute(
        sa.select(*_IN_BYTES.values())
        .join(images, images.c.id == uploads.c.image_id)
        .where(*lease, _owned(demand.owner))
    ).one_or_none()
    if held is None:
        return None
    used = _usage(connection, _owned(demand.owner), _limited(demand))
    for resource, own in zip(_IN_BYTES, held, strict=True):
        if resource in used:
            used[resource] -= own or 0
    refusal = None
    try:
        columns = _columns(_granted(demand, used))
    except errors.QuotaExceeded as error:
        columns, refusal = _columns(dict.fromkeys(demand.takes, 0)), error
    done = connection.execute(sa.update(uploads).where(*lease).values(columns))
    if done.rowcount != 1:
        return None
    return refusal or columns


def settled(copies: int, size: int | None, image_id: str) -> dict[str, object]:
    """Columns of a lease after so many copies became an image's data (``size`` None: as known)."""
    known: object = size
    if size is None:
        of_image = sa.select(sa.func.coalesce(images.c.size, 0)).where(images.c.id == image_id)
        known = of_image.scalar_subquery()
    return {"reserved": uploads.c.reserved - copies * known}  # type: ignore[operator]


def _columns(granted: Mapping[Resource, int]) -> dict[str, int]:
    return {_IN_BYTES[each].name: amount for each, amount in granted.items() if each in _IN_BYTES}


def _limited(demand: Demand) -> list[Resource]:
    return [each for each in demand.takes if each in demand.limits]


def _granted(demand: Demand, used: Mapping[Resource, int]) -> dict[Resource, int]:
    """What of a demand can be had where ``used`` is used by others; raises QuotaExceeded."""
    granted = {}
    for resource, others in used.items():
        limit, least = demand.limits[resource], demand.takes[resource]
        if others + least > limit:
            unit = " bytes" if resource in _IN_BYTES else ""
            raise errors.QuotaExceeded(
                quota=resource, limit=f"{limit}{unit}", wanted=f"{others + least}{unit}"
            )
        left = limit - others - least
        spare = min(demand.spare.get(resource, 0), left // _SHARE)
        granted[resource] = least + (spare if spare >= _LEAST_SPARE else 0)
    return granted


def lock(connection: Connection, owner: str | None) -> None:
    """Have a project's row until the transaction ends, of which this must be the beginning.

    Where others can write at the same time, that is.
    """
    dialect = connection.dialect.name
    if dialect == "sqlite":
        return
    key = {"owner": owner or ""}
    found = sa.select(quotas.c.owner).where(quotas.c.owner == key["owner"]).with_for_update()
    if connection.execute(found).first() is not None:
        return
    # Locks the row of whoever was quicker, too; DO NOTHING and IGNORE would not.
    if dialect == "mysql":
        mine = mysql.insert(quotas).values(key).on_duplicate_key_update(key)
        connection.execute(mine)
    else:
        ours = postgresql.insert(quotas).values(key)
        connection.execute(ours.on_conflict_do_update(index_elements=["owner"], set_=key))


def _usage(
    connection: Connection, owned: sa.ColumnElement[bool], wanted: Collection[Resource]
) -> dict[Resource, int]:
    """What the images ``owned`` use of the resources ``wanted``, by one SELECT."""
    if not wanted:
        return {}
    columns = [_COUNTS[each](owned) for each in wanted]
    row = connection.execute(sa.select(*columns)).one()
    # MySQL and PostgreSQL sum up to decimals.
    return {each: int(amount) for each, amount in zip(wanted, row, strict=True)}


def _owned(owner: str | None) -> sa.ColumnElement[bool]:
    return images.c.owner.is_(None) if owner is None else exactly(images.c.owner == owner)


def _live(owned: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return owned & (images.c.deleted == sa.false()) & images.c.status.not_in(_GONE)


def _size(owned: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Bytes: each image's size for each of its live locations, and what is reserved."""
    stored = (
        sa.select(_sum(images.c.size))
        .join(image_locations, image_locations.c.image_id == images.c.id)
        .where(_live(owned), unindexed(image_locations.c.deleted == sa.false()))
    )
    return stored.scalar_subquery() + _reserved(owned, uploads.c.reserved)


def _stage(owned: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Bytes that wait for their import, or are on their way to where they will."""
    staged = sa.select(_sum(images.c.size)).where(_live(owned), images.c.status.in_(_STAGED))
    return staged.scalar_subquery() + _reserved(owned, uploads.c.reserved_staging)


def _count(owned: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.select(sa.func.count(images.c.id)).where(_live(owned)).scalar_subquery()


def _uploading(owned: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Images whose data is coming; of those with data, what is copied to more stores."""
    copying = sa.exists().where(
        image_properties.c.image_id == images.c.id,
        image_properties.c.name == IMPORT_LOCK,
        unindexed(image_properties.c.deleted == sa.false()),
    )
    under_way = images.c.status.in_(_UNDER_WAY) | copying
    counted = sa.select(sa.func.count(images.c.id)).where(_live(owned), under_way)
    return counted.scalar_subquery()


def _reserved(
    owned: sa.ColumnElement[bool], column: sa.ColumnElement[int]
) -> sa.ColumnElement[int]:
    """By uploads under way; that of an image that was deleted meanwhile has its bytes still."""
    found = sa.select(_sum(column)).join(images, images.c.id == uploads.c.image_id).where(owned)
    return found.scalar_subquery()


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(column), 0)


_COUNTS = {
    Resource.SIZE: _size,
    Resource.STAGE: _stage,
    Resource.COUNT: _count,
    Resource.UPLOADING: _uploading,
}
