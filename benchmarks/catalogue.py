"""A large catalogue, written into a database of Glance's layout: the same images wherever it is.

Twenty projects.  ``MANY`` owns half of the images, ``FEW`` twenty, whatever the size; ``GUEST`` and
``VISITOR`` own as few, but every second shared image is shared with the one and twenty with the
other.  Each image has six properties, two tags and a location, and there is a deleted one for every
ten.  What an image is depends on its number alone, and is scattered over the numbers.
"""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

MANY, FEW, GUEST, VISITOR = ("many", "few", "guest", "visitor")
ALONE = 20  # images of a project with few, and with a tag that few have
TAGS, BATCH, BASES = 10, 200, 400

_OTHERS = tuple(f"{number:032x}" for number in range(16))
_EPOCH = datetime(2020, 1, 1)
_BITS = (1 << 64) - 1
_NAMES, _DISTRIBUTIONS, _VERSIONS = 50, 8, 40
_COMMON = ("created_at", "updated_at", "deleted_at", "deleted")
_COLUMNS: dict[str, tuple[str, ...]] = {
    "images": (
        "id", "name", "size", "status", *_COMMON, "disk_format", "container_format", "checksum",
        "owner", "min_disk", "min_ram", "protected", "virtual_size", "visibility", "os_hidden",
        "os_hash_algo", "os_hash_value",
    ),
    "image_properties": ("image_id", "name", "value", *_COMMON),
    "image_tags": ("image_id", "value", *_COMMON),
    "image_locations": ("image_id", "value", "meta_data", "status", *_COMMON),
    "image_members": ("image_id", "member", "can_share", "status", *_COMMON),
}  # fmt: skip

Values = tuple[object, ...]


def image_id(number: int) -> str:
    """The id of the image of that number: the same in every catalogue."""
    digits = f"{_draw(number, 0, 1 << 32):08x}{number:024x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def fill(database: Path, count: int) -> None:
    """Add ``count`` images and the deleted ones to an SQLite database.

    Indexes are made anew behind the rows, which is ten times as fast, and nothing is kept for a
    crash to undo.  The planner's statistics are left as they are: operators need not know of them.
    """
    with closing(sqlite3.connect(database)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        for pragma in ("cache_size = -1000000", "journal_mode = OFF", "synchronous = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        _fill(connection, count)
        connection.execute(f"PRAGMA journal_mode = {mode}")


def _fill(connection: sqlite3.Connection, count: int) -> None:
    with connection:
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        for table, columns in _COLUMNS.items():
            places = ", ".join("?" for _ in columns)
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", _rows(table, count)
            )
        for _, sql in indexes:
            connection.execute(sql)


def analyze(database: Path) -> None:
    """Gather the statistics that SQLite's planner goes by, if it has them."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("ANALYZE")


def fill_server(engine: sa.Engine, count: int) -> None:
    """``fill`` for PostgreSQL or MariaDB; with their statistics, which they keep by themselves."""
    with engine.connect() as connection:
        for table, columns in _COLUMNS.items():
            if engine.dialect.name == "postgresql":
                _copy(connection, table, columns, count)
            else:
                _load(connection, table, columns, count)


def _copy(connection: sa.Connection, table: str, columns: tuple[str, ...], count: int) -> None:
    indexes = connection.exec_driver_sql(
        f"SELECT indexname, indexdef FROM pg_indexes WHERE tablename = '{table}'"
        " AND indexname NOT IN (SELECT conname FROM pg_constraint)"
    ).all()
    for name, _ in indexes:
        connection.exec_driver_sql(f"DROP INDEX {name}")
    driver: Any = connection.connection.driver_connection
    with driver.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in _rows(table, count):
            copy.write(_line(row))
    for _, definition in indexes:
        connection.exec_driver_sql(definition)
    connection.exec_driver_sql(f"VACUUM ANALYZE {table}")


def _load(connection: sa.Connection, table: str, columns: tuple[str, ...], count: int) -> None:
    connection.exec_driver_sql("SET foreign_key_checks = 0, unique_checks = 0")
    with tempfile.NamedTemporaryFile("w", dir="/tmp", encoding="utf-8") as file:
        file.writelines(map(_line, _rows(table, count)))
        file.flush()
        Path(file.name).chmod(0o644)  # for the server, another user
        connection.exec_driver_sql(
            f"LOAD DATA INFILE '{file.name}' INTO TABLE {table} CHARACTER SET utf8"
            f" ({', '.join(columns)})"
        )
    connection.exec_driver_sql(f"ANALYZE TABLE {table}")


def _line(row: Values) -> str:
    """A row in the text format that both servers read; no value holds what needs an escape."""
    return "\t".join("\\N" if value is None else str(value) for value in row) + "\n"


def _rows(table: str, count: int) -> Iterator[Values]:
    make: Callable[[int, int], Iterator[Values]] = {
        "images": _image,
        "image_properties": _properties,
        "image_tags": _tags,
        "image_locations": _location,
        "image_members": _members,
    }[table]
    for number in range(count + count // 10):
        yield from make(number, count)


def _draw(number: int, what: int, below: int) -> int:
    """The same every time for a number and a question, and as good as random."""
    mixed = (number * 0x9E3779B97F4A7C15 + what * 0xD1B54A32D192ED03) & _BITS
    mixed = ((mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9) & _BITS
    return (mixed ^ mixed >> 32) % below


def _common(number: int, count: int) -> Values:
    """created_at, updated_at, deleted_at, deleted."""
    deleted = number >= count
    made = _EPOCH + timedelta(seconds=(number - count) * 10 if deleted else number)
    changed = made + timedelta(seconds=_draw(number, 1, 2_000_000))
    return f"{made}", f"{changed}", f"{changed}" if deleted else None, int(deleted)


def _is_every(number: int, count: int, few: int, place: int) -> bool:
    """For ``few`` of ``count`` numbers."""
    return number % (count // few) == place


def _owner(number: int, count: int) -> str:
    for place, project in enumerate((FEW, GUEST, VISITOR)):
        if number < count and _is_every(number, count, ALONE, place):
            return project
    other = _draw(number, 2, 2 * len(_OTHERS))
    return _OTHERS[other] if other < len(_OTHERS) else MANY


def _visibility(number: int) -> str:
    drawn = _draw(number, 3, 100)
    return (
        "public" if drawn < 5 else "community" if drawn < 10 else "shared" if drawn < 20
        else "private"
    )  # fmt: skip


def _status(number: int, count: int) -> str:
    if number >= count:
        return "deleted"
    return {0: "queued", 1: "queued", 2: "saving", 3: "deactivated"}.get(
        _draw(number, 4, 100), "active"
    )


def _image(number: int, count: int) -> Iterator[Values]:
    status = _status(number, count)
    has_data = status not in ("queued", "saving")
    size = 1 + _draw(number, 5, 1 << 36) if has_data else None
    hashed = f"{_draw(number, 6, _BITS):016x}"
    name = _draw(number, 7, 2 * _NAMES)
    yield (
        image_id(number),
        f"release {name}" if name < _NAMES else f"snapshot {number}",
        size,
        status,
        *_common(number, count),
        ("qcow2", "qcow2", "qcow2", "raw", "iso")[_draw(number, 8, 5)] if has_data else None,
        "bare" if has_data else None,
        hashed * 2 if has_data else None,
        _owner(number, count),
        0,
        0,
        int(not _draw(number, 9, 50)),
        size,
        _visibility(number),
        int(not _draw(number, 10, 100)),
        "sha512" if has_data else None,
        hashed * 8 if has_data else None,
    )


def _properties(number: int, count: int) -> Iterator[Values]:
    common = _common(number, count)
    for name, value in {
        "architecture": "x86_64" if _draw(number, 11, 20) else "aarch64",
        "os_distro": f"distribution {_draw(number, 12, _DISTRIBUTIONS)}",
        "os_version": f"{_draw(number, 13, _VERSIONS)}",
        "base": f"{_draw(number, 14, BASES)}",
        "batch": f"{number // BATCH}",
        "build": f"{number}",
    }.items():
        yield image_id(number), name, value, *common


def _tags(number: int, count: int) -> Iterator[Values]:
    common = _common(number, count)
    yield image_id(number), f"tag {_draw(number, 15, TAGS)}", *common
    yield image_id(number), f"rare {number % (count // ALONE)}", *common


def _location(number: int, count: int) -> Iterator[Values]:
    if _status(number, count) not in ("queued", "saving"):
        url = f"file:///nowhere/{image_id(number)}"
        yield image_id(number), url, '{"store": "file"}', "active", *_common(number, count)


def _members(number: int, count: int) -> Iterator[Values]:
    if _visibility(number) != "shared":
        return
    if _draw(number, 16, 2):
        yield image_id(number), GUEST, 0, "accepted", *_common(number, count)
    if not _draw(number, 17, max(count // 200, 1)):
        yield image_id(number), VISITOR, 0, "accepted", *_common(number, count)


def public_image(number: int) -> str:
    """The id of an image that everybody may see, the first from that number on."""
    while _visibility(number) != "public" or not _draw(number, 10, 100):
        number += 1
    return image_id(number)
