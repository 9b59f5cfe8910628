"""A large catalogue, written into a database of Glance's layout in one transaction."""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

_EPOCH = datetime(2026, 1, 1)
_IMAGE = """INSERT INTO images
    (id, name, size, status, created_at, updated_at, deleted, disk_format, container_format,
     checksum, owner, min_disk, min_ram, protected, virtual_size, visibility, os_hidden,
     os_hash_algo, os_hash_value)
    VALUES (?, ?, ?, 'active', ?, ?, 0, 'qcow2', 'bare', ?, ?, 0, 0, 0, ?, ?, 0, 'sha512', ?)"""
_PROPERTY = """INSERT INTO image_properties
    (image_id, name, value, created_at, updated_at, deleted) VALUES (?, ?, ?, ?, ?, 0)"""
_TAG = """INSERT INTO image_tags
    (image_id, value, created_at, updated_at, deleted) VALUES (?, ?, ?, ?, 0)"""
_LOCATION = """INSERT INTO image_locations
    (image_id, value, created_at, updated_at, deleted, meta_data, status)
    VALUES (?, ?, ?, ?, 0, '{"store": "file"}', 'active')"""
_VISIBILITIES = ("public", "private", "shared", "community")
_PROPERTIES = ("os_distro", "os_version", "hw_disk_bus")

Values = tuple[object, ...]


def image_id(number: int) -> str:
    """The id of the image of that number: the same in every catalogue."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"bench {number}"))


def fill(database: Path, count: int) -> None:
    """Add ``count`` images, each with three properties, a tag and a location.

    The planner's statistics are left as they are: an operator need not know of them.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(_IMAGE, map(_image, range(count)))
        connection.executemany(_PROPERTY, _properties(count))
        connection.executemany(_TAG, map(_tag, range(count)))
        connection.executemany(_LOCATION, map(_location, range(count)))


def analyze(database: Path) -> None:
    """Gather the statistics that SQLite's planner goes by, if it has them."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("ANALYZE")


def _time(number: int) -> str:
    return f"{_EPOCH + timedelta(seconds=number):%Y-%m-%d %H:%M:%S.%f}"


def _image(number: int) -> Values:
    seed = uuid.uuid5(uuid.NAMESPACE_OID, f"data {number}").hex
    when = _time(number)
    size = 1 << 30
    visibility = _VISIBILITIES[number % len(_VISIBILITIES)]
    name, owner = f"image {number:06}", f"{number % 50:032x}"
    return (
        image_id(number), name, size, when, when, seed, owner, size, visibility, seed * 4,
    )  # fmt: skip


def _properties(count: int) -> Iterator[Values]:
    for number in range(count):
        when = _time(number)
        for name in _PROPERTIES:
            yield image_id(number), name, f"value {number % 7}", when, when


def _tag(number: int) -> Values:
    when = _time(number)
    return image_id(number), f"tag{number % 10}", when, when


def _location(number: int) -> Values:
    when = _time(number)
    return image_id(number), f"file:///nowhere/{image_id(number)}", when, when
