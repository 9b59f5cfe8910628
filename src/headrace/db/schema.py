"""The tables: Glance's layout at its head 2024_1_contract01, and the tables of our own.

Names, types, defaults and constraints of ``GLANCE`` are Glance's to the letter, since a Glance may
work on the same database before, beside or after us.  What is ours lives in ``OWN``, and in indexes
that the own migrations put on Glance's tables; all of it is prefixed ``headrace_``, and nothing of
it refers to Glance's tables by a foreign key, which would get in the way of their migrations.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.dialects import mysql

from headrace.model import Visibility

GLANCE_HEAD = "2024_1_contract01"
GLANCE_VERSION_TABLE = "alembic_version"
OWN_REVISIONS = ("headrace_0001", "headrace_0002", "headrace_0003", "headrace_0004")
OWN_HEAD = OWN_REVISIONS[-1]
OWN_VERSION_TABLE = "headrace_alembic_version"

# Characters of a property's value that are indexed: PostgreSQL refuses an index row above 2,704
# bytes, InnoDB above 3,072, and a value may be of any length.
VALUE_PREFIX = 128

GLANCE = sa.MetaData()
OWN = sa.MetaData()

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8"}
# SQLite numbers rows by itself only where the type is exactly INTEGER.
_BIG_KEY = sa.BigInteger().with_variant(Integer(), "sqlite")
# MySQL's DATETIME has whole seconds unless told otherwise, and Glance's columns are not.
_PRECISE = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _boolean() -> sa.Boolean:
    return sa.Boolean(create_constraint=True)


def _boolean_of_images() -> sa.Boolean:
    """Glance's migrations have made the table anew on SQLite and lost its checks there."""
    return sa.Boolean().with_variant(_boolean(), "mysql")


def _times() -> list[Column[object]]:
    return [Column("created_at", sa.DateTime, nullable=False), Column("updated_at", sa.DateTime)]


def _times_and_deleted() -> list[Column[object]]:
    return [
        *_times(),
        Column("deleted_at", sa.DateTime),
        Column("deleted", _boolean(), nullable=False),
    ]


def _image_id() -> Column[str]:
    return Column("image_id", String(36), ForeignKey("images.id"), nullable=False)


def _namespace_id() -> Column[int]:
    return Column("namespace_id", Integer, ForeignKey("metadef_namespaces.id"), nullable=False)


images = sa.Table(
    "images",
    GLANCE,
    Column("id", String(36), primary_key=True),
    Column("name", String(255)),
    Column("size", _BIG_KEY),
    Column("status", String(30), nullable=False),
    *_times(),
    Column("deleted_at", sa.DateTime),
    Column("deleted", _boolean_of_images(), nullable=False),
    Column("disk_format", String(20)),
    Column("container_format", String(20)),
    Column("checksum", String(32)),
    Column("owner", String(255)),
    Column("min_disk", Integer, nullable=False),
    Column("min_ram", Integer, nullable=False),
    Column("protected", _boolean_of_images(), nullable=False, server_default=sa.false()),
    Column("virtual_size", _BIG_KEY),
    Column(
        "visibility",
        sa.Enum(*(each.value for each in Visibility), name="image_visibility"),
        nullable=False,
        server_default=Visibility.SHARED.value,
    ),
    Column("os_hidden", sa.Boolean, nullable=False, server_default=sa.false()),
    Column("os_hash_algo", String(64)),
    Column("os_hash_value", String(128)),
    Index("checksum_image_idx", "checksum"),
    Index("visibility_image_idx", "visibility"),
    Index("ix_images_deleted", "deleted"),
    Index("owner_image_idx", "owner"),
    Index("created_at_image_idx", "created_at"),
    Index("updated_at_image_idx", "updated_at"),
    Index("os_hidden_image_idx", "os_hidden"),
    Index("os_hash_value_image_idx", "os_hash_value"),
    **_MYSQL,
)

image_properties = sa.Table(
    "image_properties",
    GLANCE,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("name", String(255), nullable=False),
    Column("value", Text),
    *_times_and_deleted(),
    UniqueConstraint("image_id", "name", name="ix_image_properties_image_id_name"),
    Index("ix_image_properties_image_id", "image_id"),
    Index("ix_image_properties_deleted", "deleted"),
    **_MYSQL,
)

image_tags = sa.Table(
    "image_tags",
    GLANCE,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("value", String(255), nullable=False),
    *_times_and_deleted(),
    Index("ix_image_tags_image_id", "image_id"),
    Index("ix_image_tags_image_id_tag_value", "image_id", "value"),
    **_MYSQL,
)

image_locations = sa.Table(
    "image_locations",
    GLANCE,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("value", Text, nullable=False),
    *_times_and_deleted(),
    Column("meta_data", Text),
    Column("status", String(30), nullable=False, server_default="active"),
    Index("ix_image_locations_image_id", "image_id"),
    Index("ix_image_locations_deleted", "deleted"),
    **_MYSQL,
)

image_members = sa.Table(
    "image_members",
    GLANCE,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("member", String(255), nullable=False),
    Column("can_share", _boolean(), nullable=False),
    *_times_and_deleted(),
    Column("status", String(20), nullable=False, server_default="pending"),
    UniqueConstraint(
        "image_id", "member", "deleted_at", name="image_members_image_id_member_deleted_at_key"
    ),
    Index("ix_image_members_deleted", "deleted"),
    Index("ix_image_members_image_id", "image_id"),
    Index("ix_image_members_image_id_member", "image_id", "member"),
    **_MYSQL,
)

tasks = sa.Table(
    "tasks",
    GLANCE,
    Column("id", String(36), primary_key=True),
    Column("type", String(30), nullable=False),
    Column("status", String(30), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("expires_at", sa.DateTime),
    *_times_and_deleted(),
    Column("image_id", String(36)),
    Column("request_id", String(64)),
    Column("user_id", String(64)),
    Index("ix_tasks_type", "type"),
    Index("ix_tasks_status", "status"),
    Index("ix_tasks_owner", "owner"),
    Index("ix_tasks_deleted", "deleted"),
    Index("ix_tasks_updated_at", "updated_at"),
    Index("ix_tasks_image_id", "image_id"),
    **_MYSQL,
)

task_info = sa.Table(
    "task_info",
    GLANCE,
    Column("task_id", String(36), ForeignKey("tasks.id"), primary_key=True),
    Column("input", Text),
    Column("result", Text),
    Column("message", Text),
    **_MYSQL,
)

node_reference = sa.Table(
    "node_reference",
    GLANCE,
    Column("node_reference_id", _BIG_KEY, primary_key=True),
    Column("node_reference_url", String(255), nullable=False),
    UniqueConstraint("node_reference_url", name="uq_node_reference_node_reference_url"),
    **_MYSQL,
)

cached_images = sa.Table(
    "cached_images",
    GLANCE,
    Column("id", _BIG_KEY, primary_key=True),
    Column("image_id", String(36), nullable=False),
    Column("last_accessed", sa.DateTime, nullable=False),
    Column("last_modified", sa.DateTime, nullable=False),
    Column("size", sa.BigInteger, nullable=False),
    Column("hits", Integer, nullable=False),
    Column("checksum", String(32)),
    Column(
        "node_reference_id",
        _BIG_KEY,
        ForeignKey("node_reference.node_reference_id"),
        nullable=False,
    ),
    UniqueConstraint(
        "image_id", "node_reference_id", name="ix_cached_images_image_id_node_reference_id"
    ),
    **_MYSQL,
)

metadef_namespaces = sa.Table(
    "metadef_namespaces",
    GLANCE,
    Column("id", Integer, primary_key=True),
    Column("namespace", String(80), nullable=False),
    Column("display_name", String(80)),
    Column("description", Text),
    Column("visibility", String(32)),
    Column("protected", _boolean()),
    Column("owner", String(255), nullable=False),
    *_times(),
    UniqueConstraint("namespace", name="uq_metadef_namespaces_namespace"),
    Index("ix_metadef_namespaces_owner", "owner"),
    **_MYSQL,
)

metadef_objects = sa.Table(
    "metadef_objects",
    GLANCE,
    Column("id", Integer, primary_key=True),
    _namespace_id(),
    Column("name", String(80), nullable=False),
    Column("description", Text),
    Column("required", Text),
    Column("json_schema", Text, nullable=False),
    *_times(),
    UniqueConstraint("namespace_id", "name", name="uq_metadef_objects_namespace_id_name"),
    Index("ix_metadef_objects_name", "name"),
    **_MYSQL,
)

metadef_properties = sa.Table(
    "metadef_properties",
    GLANCE,
    Column("id", Integer, primary_key=True),
    _namespace_id(),
    Column("name", String(80), nullable=False),
    Column("json_schema", Text, nullable=False),
    *_times(),
    UniqueConstraint("namespace_id", "name", name="uq_metadef_properties_namespace_id_name"),
    Index("ix_metadef_properties_name", "name"),
    **_MYSQL,
)

metadef_tags = sa.Table(
    "metadef_tags",
    GLANCE,
    Column("id", Integer, primary_key=True),
    _namespace_id(),
    Column("name", String(80), nullable=False),
    *_times(),
    UniqueConstraint("namespace_id", "name", name="uq_metadef_tags_namespace_id_name"),
    Index("ix_metadef_tags_name", "name"),
    **_MYSQL,
)

metadef_resource_types = sa.Table(
    "metadef_resource_types",
    GLANCE,
    Column("id", Integer, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("protected", _boolean(), nullable=False),
    *_times(),
    UniqueConstraint("name", name="uq_metadef_resource_types_name"),
    **_MYSQL,
)

metadef_namespace_resource_types = sa.Table(
    "metadef_namespace_resource_types",
    GLANCE,
    Column("resource_type_id", Integer, ForeignKey("metadef_resource_types.id"), primary_key=True),
    Column("namespace_id", Integer, ForeignKey("metadef_namespaces.id"), primary_key=True),
    Column("properties_target", String(80)),
    Column("prefix", String(80)),
    *_times(),
    Index("ix_metadef_ns_res_types_namespace_id", "namespace_id"),
    **_MYSQL,
)

# The lease of an upload: who writes the data of a ``saving`` image, and when it last said so.
# A ``saving`` image without one belongs to a Glance beside us.  There are as many rows as uploads
# in progress, so there is nothing to index.  What an upload has reserved of its project's quota, in
# bytes of stores or of the staging area, goes with its lease; NULL where nothing is limited.
# ``stores`` are the ids of those that it may have published in, with commas between them: "" where
# there is none, NULL where that is not known, of a lease of a Headrace that did not say so.
uploads = sa.Table(
    "headrace_uploads",
    OWN,
    Column("image_id", String(36), primary_key=True),
    Column("upload_id", String(36), nullable=False),
    Column("worker", String(255), nullable=False),
    Column("heartbeat", _PRECISE, nullable=False),
    Column("reserved", sa.BigInteger),
    Column("reserved_staging", sa.BigInteger),
    Column("stores", Text),
    **_MYSQL,
)

# A row for each project that ever took something of a quota, to be locked by who does; the project
# of images without an owner is "".
quotas = sa.Table(
    "headrace_quotas",
    OWN,
    Column("owner", String(255), primary_key=True),
    **_MYSQL,
)
