"""Indexes of lists hold what is tested of each image that a walk meets.

Whether an image is listed depends on its status, visibility and owner.  Where they lie beside the
sort key, no row is read of an image that is not: of a million a row costs SQLite 2.7 µs, and the
next entry of an index 0.1.  The index by id holds the sort keys, too, for images that are collected
by their ids, whose rows lie nowhere near each other.

MySQL and MariaDB cannot undo a CREATE or a DROP: what a crash left half done is completed.
"""

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
# What each index began with; the columns of _TESTED that it had not are what it ends with.
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
_BY_ID = "headrace_images_id"
_OF_ID = (*_LIVING, "id")
_KEYS = ("created_at", "name", "size", "updated_at", "disk_format", "container_format")


def upgrade() -> None:
    _make_anew(_BY_ID, (*_OF_ID, *_TESTED, *_KEYS), plain=True)
    for name, columns in _INDEXES.items():
        _make_anew(name, (*columns, *(each for each in _TESTED if each not in columns)))


def downgrade() -> None:
    _make_anew(_BY_ID, _OF_ID)
    for name, columns in _INDEXES.items():
        _make_anew(name, columns)


def _make_anew(name: str, columns: tuple[str, ...], *, plain: bool = False) -> None:
    on_mysql = op.get_bind().dialect.name == "mysql"
    if not on_mysql or _exists(name):
        op.drop_index(name, "images")
    plain = plain or on_mysql
    op.create_index(
        name, "images", [column if plain else _expression(column) for column in columns]
    )


def _exists(name: str) -> bool:
    return any(index["name"] == name for index in sa.inspect(op.get_bind()).get_indexes("images"))


def _expression(column: str) -> str | sa.TextClause:
    return sa.text(_EMPTY_OR_VALUE[column]) if column in _EMPTY_OR_VALUE else column
