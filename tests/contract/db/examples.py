"""Images to test with, and a count of the statements that a call costs."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from headrace.db import schema
from headrace.db.engine import Database
from headrace.model import Image, Viewer

# Whole seconds: MySQL keeps no more in Glance's columns.
NOW = datetime(2026, 1, 2, 3, 4, 5)
LATER = datetime(2026, 1, 2, 3, 5)
ADMIN = Viewer(None, is_admin=True)


def image(**values: Any) -> Image:
    return Image(
        **{"id": str(uuid.uuid4()), "owner": "mine", "created_at": NOW, "updated_at": NOW, **values}
    )


def add_member(
    database: Database, image_id: str, member: str, status: str = "pending", deleted: bool = False
) -> None:
    with database.write() as connection:
        connection.execute(
            sa.insert(schema.image_members).inline(),
            {
                "image_id": image_id,
                "member": member,
                "can_share": False,
                "status": status,
                "created_at": NOW,
                "deleted": deleted,
            },
        )


def stored(database: Database, table: sa.Table, image_id: str) -> list[dict[str, Any]]:
    """The rows of an image in a table, deleted ones too."""
    key = table.c.id if table is schema.images else table.c.image_id
    order = table.c.image_id if table is schema.uploads else table.c.id
    with database.read() as connection:
        found = connection.execute(sa.select(table).where(key == image_id).order_by(order))
        return [dict(row) for row in found.mappings()]


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Collects the statements sent to the database, without those that bracket a transaction."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement not in ("BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"):
            seen.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)
