"""Database rows as the values of model, and who may see which row.

The statements are written once and compiled once: each call binds values and converts rows by
position.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace.db.hints import exactly, unindexed
from headrace.db.schema import (
    image_locations,
    image_members,
    image_properties,
    image_tags,
    images,
)
from headrace.model import Image, Location, Status, Visibility

# What `image` unpacks, in its order.
COLUMNS = (
    images.c.id,
    images.c.status,
    images.c.name,
    images.c.visibility,
    images.c.owner,
    images.c.protected,
    images.c.os_hidden,
    images.c.size,
    images.c.virtual_size,
    images.c.checksum,
    images.c.os_hash_algo,
    images.c.os_hash_value,
    images.c.container_format,
    images.c.disk_format,
    images.c.min_disk,
    images.c.min_ram,
    images.c.created_at,
    images.c.updated_at,
)

_PROPERTY, _TAG, _LOCATION = range(3)


@dataclass(slots=True)
class Parts:
    """What belongs to an image in other tables."""

    tags: set[str] = field(default_factory=set)
    properties: dict[str, str] = field(default_factory=dict)
    locations: dict[int, Location] = field(default_factory=dict)


def image(row: Sequence[Any], parts: Parts) -> Image:
    """The image whose ``COLUMNS`` are ``row``."""
    (
        id_, status, name, visibility, owner, protected, os_hidden, size, virtual_size, checksum,
        os_hash_algo, os_hash_value, container_format, disk_format, min_disk, min_ram,
        created_at, updated_at,
    ) = row  # fmt: skip
    locations = parts.locations
    return Image(
        id=id_,
        status=Status(status),
        name=name,
        visibility=Visibility(visibility),
        owner=owner,
        protected=protected,
        os_hidden=os_hidden,
        size=size,
        virtual_size=virtual_size,
        checksum=checksum,
        os_hash_algo=os_hash_algo,
        os_hash_value=os_hash_value,
        container_format=container_format,
        disk_format=disk_format,
        min_disk=min_disk,
        min_ram=min_ram,
        tags=frozenset(parts.tags),
        properties=parts.properties,
        # In the order they were added: a UNION promises none.
        locations=tuple(locations[key] for key in sorted(locations)),
        created_at=created_at,
        updated_at=updated_at or created_at,
    )


def location(url: str, meta_data: str | None) -> Location:
    """The location of a row; a backend without metadata leaves NULL."""
    return Location(url, msgspec.json.decode(meta_data) if meta_data else {})


def is_visible(*, is_admin: bool, has_project: bool) -> sa.ColumnElement[bool]:
    """Whether a viewer of this kind may see an image by its id.

    His project is the statement's parameter ``viewer``.
    """
    if is_admin:
        return sa.true()
    may = images.c.owner.is_(None) | images.c.visibility.in_(
        [Visibility.PUBLIC.value, Visibility.COMMUNITY.value]
    )
    if not has_project:
        return may
    project = sa.bindparam("viewer", type_=sa.String)
    shared_with_me = sa.exists().where(
        image_members.c.image_id == images.c.id,
        exactly(image_members.c.member == project),
        unindexed(image_members.c.deleted == sa.false()),
    )
    return (
        may
        | exactly(images.c.owner == project)
        | ((images.c.visibility == Visibility.SHARED.value) & shared_with_me)
    )


def _parts(
    of_images: Mapping[sa.Table, sa.ColumnElement[bool]],
) -> sa.CompoundSelect[*tuple[Any, ...]]:
    def part(kind: int, table: sa.Table, *columns: Any) -> sa.Select[*tuple[Any, ...]]:
        number = sa.literal_column(str(kind), sa.Integer)
        return sa.select(table.c.image_id, number, table.c.id, *columns).where(
            of_images[table], unindexed(table.c.deleted == sa.false())
        )

    return sa.union_all(
        part(_PROPERTY, image_properties, image_properties.c.name, image_properties.c.value),
        part(_TAG, image_tags, image_tags.c.value, sa.null()),
        part(_LOCATION, image_locations, image_locations.c.value, image_locations.c.meta_data)
        .where(image_locations.c.status == sa.literal_column("'active'")),
    )  # fmt: skip


_TABLES = (image_properties, image_tags, image_locations)
_PARTS_OF_ONE = _parts({table: table.c.image_id == sa.bindparam("id") for table in _TABLES})
_PARTS_OF_MANY = _parts(
    {table: table.c.image_id.in_(sa.bindparam("ids", expanding=True)) for table in _TABLES}
)


def parts_of_one(connection: Connection, image_id: str) -> Parts:
    """The parts of an image, in one statement."""
    return _collect(connection.execute(_PARTS_OF_ONE, {"id": image_id})).get(image_id) or Parts()


def parts_of_many(connection: Connection, image_ids: list[str]) -> dict[str, Parts]:
    """The parts of all these images that have any, in one statement."""
    return _collect(connection.execute(_PARTS_OF_MANY, {"ids": image_ids}))


def _collect(rows: Iterable[Sequence[Any]]) -> dict[str, Parts]:
    found: dict[str, Parts] = {}
    for image_id, kind, key, first, second in rows:
        parts = found.get(image_id)
        if parts is None:
            parts = found[image_id] = Parts()
        if kind == _PROPERTY:
            parts.properties[first] = second or ""  # NULL is shown as ""
        elif kind == _TAG:
            parts.tags.add(first)
        else:
            parts.locations[key] = location(first, second)
    return found
