"""Indexes of lists hold what is tested of each image that a walk meets.

Whether an image is listed depends on its status, visibility and owner.  Where they lie beside the
sort key, no row is read of an image that is not: of a million a row costs SQLite 2.7 µs, and the
next entry of an index 0.1.  The index by id holds the sort keys, too, for images that are collected
by their ids, whose rows lie nowhere near each other.

MySQL and MariaDB cannot undo a CREATE or a DROP: what a crash left half done is completed.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "headrace_0003"
down_revision = "headrace_0002"

_EMPTY_OR_VALUE = {
    "name": "coalesce(name, '')",
    "size": "coalesce(size, 0)",
    "updated_at": "coalesce(updated_at, created_at)",
    "disk_format": "coalesce(disk_format, '')",
    "container_format": "coalesce(container_format, '')",
}

_LIVING = ("deleted", "os_hidden")
_TESTED = ("status", "visibility", "owner")
# What each began with.
_INDEXES: dict[str, tuple[str, ...]] = {
    "headrace_images_created_at": (*_LIVING, "created_at", "id"),
    **{
        f"headrace_images_{key}": (*_LIVING, key, "created_at", "id")
        for key in ("status", *_EMPTY_OR_VALUE)
    },
    **{
        f"headrace_images_{key}": (key, *_LIVING, "created_at", "id")
        for key in ("owner", "visibility")
    },
}
_KEYS = ("created_at", "name", "size", "updated_at", "disk_format", "container_format")


def upgrade() -> None:
    on_mysql = op.get_bind().dialect.name == "mysql"
    _make_anew("headrace_images_id", [*_LIVING, "id", *_TESTED, *_KEYS], on_mysql)
    for name, columns in _INDEXES.items():
        tested = [each for each in _TESTED if each not in columns]
        found = columns if on_mysql else [_expression(column) for column in columns]
        _make_anew(name, [*found, *tested], on_mysql)


def downgrade() -> None:
    """There is nothing to do: the way down ends where headrace_0001 drops them, wide or narrow."""


def _make_anew(name: str, columns: Sequence[str | sa.TextClause], on_mysql: bool) -> None:
    if not on_mysql or _exists(name):
        op.drop_index(name, "images")
    op.create_index(name, "images", list(columns))


def _exists(name: str) -> bool:
    return any(index["name"] == name for index in sa.inspect(op.get_bind()).get_indexes("images"))


def _expression(column: str) -> str | sa.TextClause:
    return sa.text(_EMPTY_OR_VALUE[column]) if column in _EMPTY_OR_VALUE else column
