"""Members of an image: the projects it is shared with.

Deletes are soft, and a project that is added again takes up its row, with its time of creation, as
Glance has it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db.engine import Database, transaction
from headrace.db.hints import exactly, unindexed
from headrace.db.images import NOT_DELETED, hold
from headrace.db.schema import image_members
from headrace.model import Image, Member, MemberStatus

_COLUMNS = (
    image_members.c.image_id,
    image_members.c.member,
    image_members.c.status,
    image_members.c.created_at,
    image_members.c.updated_at,
)
_NOT_DELETED = unindexed(image_members.c.deleted == sa.false())


def list_all(database: Database, image_id: str) -> list[Member]:
    """The members of an image, in the order in which they were first added."""
    statement = (
        sa.select(*_COLUMNS)
        .where(image_members.c.image_id == image_id, _NOT_DELETED)
        .order_by(image_members.c.id)
    )
    with database.read() as connection:
        return [_member(row) for row in connection.execute(statement)]


def show(database: Database, image_id: str, project: str) -> Member:
    """One member; raises MemberNotFound."""
    with database.read() as connection:
        return _show(connection, image_id, project)


@transaction
def create(connection: Connection, image: Image, project: str, most: int, now: datetime) -> Member:
    """Make a project a member, pending; an image has ``most`` at most (negative: any number).

    Raises MemberExists, QuotaExceeded, ImageChanged when the image is no longer what ``image``
    says, ImageNotFound when it was deleted.
    """
    hold(connection, image)  # which also puts in a line all who add members
    rows = connection.execute(
        sa.select(image_members.c.id, image_members.c.deleted)
        .where(*_of(image.id, project))
        .order_by(image_members.c.id)
    ).all()
    if any(not row.deleted for row in rows):
        raise errors.MemberExists(image_id=image.id, project=project)
    _check_quota(connection, image.id, most)
    new = {"status": MemberStatus.PENDING.value, "can_share": False, "updated_at": now}
    if rows:
        connection.execute(
            sa.update(image_members)
            .where(image_members.c.id == rows[0].id)
            .values(**new, **NOT_DELETED)
        )
    else:
        connection.execute(
            sa.insert(image_members).inline(),
            {"image_id": image.id, "member": project, "created_at": now, **new, **NOT_DELETED},
        )
    return _show(connection, image.id, project)


@transaction
def update(
    connection: Connection, image_id: str, project: str, status: MemberStatus, now: datetime
) -> Member:
    """Set a member's status; raises MemberNotFound."""
    connection.execute(
        sa.update(image_members)
        .where(*_of(image_id, project), _NOT_DELETED)
        .values(status=status.value, updated_at=now)
    )
    return _show(connection, image_id, project)


@transaction
def delete(connection: Connection, image: Image, project: str, now: datetime) -> None:
    """Let a project be a member no longer.

    Raises MemberNotFound, ImageChanged when the image is no longer what ``image`` says,
    ImageNotFound when it was deleted.
    """
    hold(connection, image)
    done = connection.execute(
        sa.update(image_members)
        .where(*_of(image.id, project), _NOT_DELETED)
        .values(deleted=True, deleted_at=now, updated_at=now)
    )
    if not done.rowcount:
        raise errors.MemberNotFound(image_id=image.id, project=project)


def _show(connection: Connection, image_id: str, project: str) -> Member:
    row = connection.execute(
        sa.select(*_COLUMNS)
        .where(*_of(image_id, project), _NOT_DELETED)
        .order_by(image_members.c.id)
    ).first()
    if row is None:
        raise errors.MemberNotFound(image_id=image_id, project=project)
    return _member(row)


def _check_quota(connection: Connection, image_id: str, most: int) -> None:
    """Raises QuotaExceeded when the image has as many members as it may have."""
    if most < 0:
        return
    count = connection.execute(
        sa.select(sa.func.count())
        .select_from(image_members)
        .where(image_members.c.image_id == image_id, _NOT_DELETED)
    ).scalar_one()
    if count >= most:
        raise errors.QuotaExceeded(quota="image_member_quota", limit=most, wanted=count + 1)


def _of(image_id: str, project: str) -> tuple[sa.ColumnElement[bool], ...]:
    return image_members.c.image_id == image_id, exactly(image_members.c.member == project)


def _member(row: Sequence[Any]) -> Member:
    image_id, project, status, created_at, updated_at = row
    return Member(
        image_id=image_id,
        project=project,
        status=MemberStatus(status),
        created_at=created_at,
        updated_at=updated_at or created_at,
    )
