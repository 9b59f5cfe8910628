"""What a cache has after a kill, seen from outside."""

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from headrace.model import is_image_id

_PARTS = ("", "incomplete", "invalid")


def taken(path: Path) -> int:
    """The bytes of images that lie in a cache, while nobody gives or takes names there."""
    index = sqlite3.connect(path / "cache.db", timeout=60, isolation_level=None)
    with contextlib.closing(index):
        index.execute("BEGIN IMMEDIATE")
        return sum(
            each.stat().st_size
            for part in _PARTS
            for each in os.scandir(path / part)
            if each.is_file() and (part == "invalid" or is_image_id(each.name))
        )


def check_tidy(path: Path, contents: Mapping[str, bytes]) -> set[str]:
    """All that lies in a cache is whole, right and on record; returns which images.

    Nobody may use it.  ``contents`` are the data of all images that may be there.
    """
    for part in _PARTS[1:]:
        assert os.listdir(path / part) == []
    whole = {name for name in os.listdir(path) if is_image_id(name)}
    for image_id in whole:
        assert (path / image_id).stat().st_mode & 0o222 == 0, image_id
        assert (path / image_id).read_bytes() == contents[image_id], image_id
    with contextlib.closing(sqlite3.connect(path / "cache.db")) as index:
        assert index.execute("SELECT * FROM headrace_reservations").fetchall() == []
        noted = index.execute("SELECT image_id, size FROM cached_images").fetchall()
    assert dict(noted) == {image_id: len(contents[image_id]) for image_id in whole}
    return whole
