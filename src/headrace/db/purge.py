"""Removing rows that were deleted softly, for good.

An image's own row stays unless that is asked for: it is what keeps its id from being taken by
another image, which whoever remembers the id would then trust (OSSN-0075).
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace.db.engine import Database, transaction
from headrace.db.schema import (
    image_locations,
    image_members,
    image_properties,
    image_tags,
    images,
    task_info,
    tasks,
    uploads,
)
from headrace.model import Status

_PARTS = (image_properties, image_tags, image_members, image_locations)
_BATCH = 500  # rows of one transaction, so that nobody waits long for its locks


def purge(
    database: Database, before: datetime, *, most: int | None = None, image_rows: bool = False
) -> dict[str, int]:
    """Remove rows that were deleted before then (naive UTC), at most ``most`` of each table.

    With ``image_rows`` those of images, too, that have no parts left.  What says where data lies
    that is still to be deleted is kept.  Returns how many rows went, by table.
    """
    tables = (*_PARTS, tasks, images) if image_rows else (*_PARTS, tasks)
    return {table.name: _purge_table(database, table, before, most) for table in tables}


def _purge_table(database: Database, table: sa.Table, before: datetime, most: int | None) -> int:
    gone = 0
    while most is None or gone < most:
        number = _BATCH if most is None else min(_BATCH, most - gone)
        done = _purge_batch(database, table, before, number)
        gone += done
        if done < number:
            break
    return gone


@transaction
def _purge_batch(connection: Connection, table: sa.Table, before: datetime, number: int) -> int:
    statement = sa.select(table.c.id).where(*_may_go(table, before)).limit(number)
    ids = list(connection.execute(statement.with_for_update()).scalars())
    if not ids:
        return 0
    if table is tasks:
        connection.execute(sa.delete(task_info).where(task_info.c.task_id.in_(ids)))
    return connection.execute(sa.delete(table).where(table.c.id.in_(ids))).rowcount


def _may_go(table: sa.Table, before: datetime) -> list[sa.ColumnElement[bool]]:
    conditions = [table.c.deleted == sa.true(), table.c.deleted_at < before]
    if table is image_locations:
        conditions.append(table.c.status != Status.PENDING_DELETE.value)
    elif table is images:
        conditions.append(table.c.status == Status.DELETED.value)
        conditions += [
            ~sa.exists().where(part.c.image_id == images.c.id) for part in (*_PARTS, uploads)
        ]
    return conditions
