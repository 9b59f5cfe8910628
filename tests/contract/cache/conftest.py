"""A cache of 100 KiB."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cache.directory import Directory
from tests.contract.cache.caching import KIB


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    """The test must leave none of its files open."""
    path = tmp_path / "cache"
    yield Directory(path, 100 * KIB)
    assert not [name for name in open_files() if name.startswith(str(path))]


def open_files() -> list[str]:
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return names
