"""The lease table, and the indexes that keep lists cheap in a large catalogue.

Every list is an ordered walk that stops after one page.  Each sort key therefore has an index that
begins with the two columns every list fixes (deleted, os_hidden) and ends with the tie-breakers
(created_at, id); the lists of one owner or one visibility, which narrow before they sort, have
theirs.  Nullable keys sort as empty or 0, so their indexes hold that expression.  MariaDB has no
indexes on expressions: there, and on MySQL for the same SQL, the plain column is indexed.

MySQL and MariaDB cannot undo a CREATE or a DROP: what a crash left half done is completed.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from headrace.db import schema

revision = "headrace_0001"
down_revision = None

_EMPTY_OR_VALUE = {
    "name": "coalesce(name, '')",
    "size": "coalesce(size, 0)",
    "updated_at": "coalesce(updated_at, created_at)",
    "disk_format": "coalesce(disk_format, '')",
    "container_format": "coalesce(container_format, '')",
}
_LEASES = "headrace_uploads"
_INDEXES: dict[str, tuple[str, tuple[str, ...]]] = {
    "headrace_images_id": ("images", ("deleted", "os_hidden", "id")),
    "headrace_images_created_at": ("images", ("deleted", "os_hidden", "created_at", "id")),
    **{
        f"headrace_images_{key}": ("images", ("deleted", "os_hidden", key, "created_at", "id"))
        for key in ("status", *_EMPTY_OR_VALUE)
    },
    **{
        f"headrace_images_{key}": ("images", (key, "deleted", "os_hidden", "created_at", "id"))
        for key in ("owner", "visibility")
    },
    "headrace_image_members_member": (
        "image_members",
        ("member", "status", "image_id", "deleted"),
    ),
    "headrace_image_tags_value": ("image_tags", ("value", "image_id", "deleted")),
    "headrace_image_properties_value": (
        "image_properties",
        ("name", "value", "deleted", "image_id"),
    ),
    "headrace_image_locations_status": ("image_locations", ("status", "image_id")),
}


def upgrade() -> None:
    op.create_table(
        _LEASES,
        sa.Column("image_id", sa.String(36), primary_key=True),
        sa.Column("upload_id", sa.String(36), nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column(
            "heartbeat",
            sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb"),
            nullable=False,
        ),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8",
    )
    on_mysql = op.get_bind().dialect.name == "mysql"
    for name, (table, columns) in _INDEXES.items():
        if on_mysql and not _exists(table, name):
            op.create_index(name, table, list(columns), mysql_length={"value": schema.VALUE_PREFIX})
        elif not on_mysql:
            op.create_index(name, table, [_expression(table, column) for column in columns])


def downgrade() -> None:
    on_mysql = op.get_bind().dialect.name == "mysql"
    for name, (table, _columns) in _INDEXES.items():
        if not on_mysql or _exists(table, name):
            op.drop_index(name, table)
    op.drop_table(_LEASES, if_exists=True)


def _exists(table: str, name: str) -> bool:
    return any(index["name"] == name for index in sa.inspect(op.get_bind()).get_indexes(table))


def _expression(table: str, column: str) -> str | sa.TextClause:
    if table == "images" and column in _EMPTY_OR_VALUE:
        return sa.text(_EMPTY_OR_VALUE[column])
    if table == "image_properties" and column == "value":
        return sa.text(f"substr(value, 1, {schema.VALUE_PREFIX})")
    return column
