"""What the records say of data, for all images: to be compared with what the stores hold."""

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from headrace.db import rows
from headrace.db.engine import Database
from headrace.db.hints import unindexed
from headrace.db.schema import image_locations, images
from headrace.model import Image, Status

_PAGE = 500
_WITH_DATA = (Status.ACTIVE.value, Status.DEACTIVATED.value)
_ARRIVING = (Status.SAVING.value, Status.UPLOADING.value, Status.IMPORTING.value)


def with_data(database: Database) -> Iterator[Image]:
    """Every image that has data, with its locations, by id; a page of them a statement."""
    last = ""
    while True:
        statement = (
            sa.select(*rows.COLUMNS)
            .where(
                images.c.id > last,
                unindexed(images.c.deleted == sa.false()),
                unindexed(images.c.status.in_(_WITH_DATA)),
            )
            .order_by(images.c.id)
            .limit(_PAGE)
        )
        with database.read() as connection:
            found = connection.execute(statement).all()
            parts = rows.parts_of_many(connection, [row[0] for row in found]) if found else {}
        yield from (rows.image(row, parts.get(row[0]) or rows.Parts()) for row in found)
        if len(found) < _PAGE:
            return
        last = found[-1][0]


def unowned(database: Database, image_ids: Sequence[str]) -> set[str]:
    """Those of the ids whose data belongs to no record, and to no upload or deletion under way."""
    owning = sa.select(images.c.id).where(
        images.c.id.in_(image_ids),
        images.c.deleted == sa.false(),
        images.c.status.in_((*_WITH_DATA, *_ARRIVING)),
    )
    deleting = sa.select(image_locations.c.image_id).where(
        image_locations.c.image_id.in_(image_ids),
        image_locations.c.status == Status.PENDING_DELETE.value,
    )
    with database.read() as connection:
        owned = connection.execute(sa.union_all(owning, deleting)).scalars().all()
    return {*image_ids} - {*owned}
