"""Tasks: what was asked of the service to be done behind the answer, and what became of it.

Rows are written by whoever does the work (db.imports); here they are read.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db.engine import Database, transaction
from headrace.db.schema import task_info, tasks
from headrace.model import Task, TaskQuery, TaskStatus

_COLUMNS = (
    tasks.c.id,
    tasks.c.type,
    tasks.c.status,
    tasks.c.owner,
    tasks.c.image_id,
    tasks.c.request_id,
    tasks.c.user_id,
    tasks.c.expires_at,
    tasks.c.created_at,
    tasks.c.updated_at,
    task_info.c.input,
    task_info.c.result,
    task_info.c.message,
)
_AT_ONCE = 1000
_UPDATED = sa.func.coalesce(tasks.c.updated_at, tasks.c.created_at)
_ALL = (
    sa.select(*_COLUMNS)
    .select_from(tasks.outerjoin(task_info, task_info.c.task_id == tasks.c.id))
    .where(tasks.c.deleted == sa.false())
)


def show(database: Database, task_id: str) -> Task:
    """The task; raises NotFound."""
    with database.read() as connection:
        row = connection.execute(_ALL.where(tasks.c.id == task_id)).one_or_none()
    if row is None:
        raise errors.NotFound(f"task {task_id} not found")
    return _task(row)


def of_image(database: Database, image_id: str) -> list[Task]:
    """All tasks about an image, oldest first."""
    statement = _ALL.where(tasks.c.image_id == image_id).order_by(tasks.c.created_at, tasks.c.id)
    with database.read() as connection:
        return [_task(row) for row in connection.execute(statement)]


def list_page(database: Database, query: TaskQuery) -> list[Task]:
    """One page of all tasks; raises InvalidQuery (no such marker)."""
    column = _UPDATED if query.sort_key == "updated_at" else tasks.c[query.sort_key]
    statement = _ALL
    if query.status is not None:
        statement = statement.where(tasks.c.status == query.status)
    if query.type is not None:
        statement = statement.where(tasks.c.type == query.type)
    order = [column, tasks.c.id]
    with database.read() as connection:
        if query.marker is not None:
            marker = connection.execute(
                sa.select(column).where(tasks.c.id == query.marker, tasks.c.deleted == sa.false())
            ).one_or_none()
            if marker is None:
                raise errors.InvalidQuery(name="marker", reason="it is not the id of a task")
            value = marker[0]
            after = (column < value) if query.descending else (column > value)
            beyond = (
                (tasks.c.id < query.marker) if query.descending else (tasks.c.id > query.marker)
            )
            statement = statement.where(after | ((column == value) & beyond))
        statement = statement.order_by(
            *(each.desc() if query.descending else each.asc() for each in order)
        ).limit(query.limit)
        return [_task(row) for row in connection.execute(statement)]


def forget(database: Database, now: datetime) -> None:
    """Delete the tasks whose time is over: softly, as Glance does."""
    over = sa.select(tasks.c.id).where(tasks.c.expires_at < now, tasks.c.deleted == sa.false())
    with database.read() as connection:
        found = connection.execute(over.limit(_AT_ONCE)).scalars().all()
    if found:
        _forget(database, found, now)


@transaction
def _forget(connection: Connection, task_ids: Collection[str], now: datetime) -> None:
    # By their ids: MySQL locks every row that a search without an index comes by.
    connection.execute(
        sa.update(tasks).where(tasks.c.id.in_(task_ids)).values(deleted=True, deleted_at=now)
    )


def _task(row: Sequence[Any]) -> Task:
    (
        id_, type_, status, owner, image_id, request_id, user_id, expires_at, created_at,
        updated_at, given, result, message,
    ) = row  # fmt: skip
    return Task(
        id=id_,
        type=type_,
        status=TaskStatus(status),
        owner=owner,
        image_id=image_id,
        request_id=request_id,
        user_id=user_id,
        expires_at=expires_at,
        created_at=created_at,
        updated_at=updated_at or created_at,
        input=_json(given),
        result=_json(result),
        message=message or "",
    )


def _json(text: str | None) -> object:
    return msgspec.json.decode(text) if text else None
