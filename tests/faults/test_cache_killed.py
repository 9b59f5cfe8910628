"""Processes that share a cache are killed anywhere: no wrong byte, no room beyond the bound, and
nothing left that is of no use.
"""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cache.directory import Directory
from tests.faults.cached import IMAGES, MAX_SIZE, content

PROCESS = Path(__file__).with_name("caching_process.py")


class Users:
    """Processes that use a cache."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parent = subprocess.Popen(
            [sys.executable, PROCESS, path, str(MAX_SIZE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip

    @contextlib.contextmanager
    def one(self, seed: int) -> Iterator[None]:
        """A process that uses the cache and is killed at the end."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        print(seed, file=self._parent.stdin, flush=True)
        number = int(self._parent.stdout.readline())
        try:
            yield
        finally:
            os.kill(number, signal.SIGKILL)  # ProcessLookupError if it died by itself
            with contextlib.suppress(ProcessLookupError):
                while True:
                    os.kill(number, 0)

    def __enter__(self) -> "Users":
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.kill()
        self._parent.communicate()


def allocated(path: Path) -> int:
    """The bytes that the files of a cache have while nobody gives or takes names."""
    index = sqlite3.connect(path / "cache.db", timeout=60, isolation_level=None)
    with contextlib.closing(index):
        index.execute("BEGIN IMMEDIATE")
        files = [each for each in path.rglob("*") if not each.name.startswith("cache.db")]
        return sum(each.stat().st_size for each in files if each.is_file())


def check_cleaned(path: Path) -> None:
    """After a start: all that is there is whole and right, and on record."""
    directory = Directory(path, MAX_SIZE)
    directory.clean()
    whole = {name for name in os.listdir(path) if name in IMAGES}
    for image_id in whole:
        extent = directory.open(image_id, len(content(image_id)))
        assert extent is not None
        with contextlib.closing(extent):
            assert extent.read() == content(image_id)
    for part in ("incomplete", "invalid"):
        assert os.listdir(path / part) == []
    assert {each.image_id for each in directory.cached()} == whole
    with contextlib.closing(sqlite3.connect(path / "cache.db")) as index:
        assert index.execute("SELECT * FROM headrace_reservations").fetchall() == []
        noted = index.execute("SELECT image_id, size FROM cached_images").fetchall()
    assert dict(noted) == {image_id: len(content(image_id)) for image_id in whole}


def kill(path: Path, times: int, seed: int) -> None:
    """Kill one of two processes again and again, and look at what they left."""
    chance = random.Random(seed)
    Directory(path, MAX_SIZE)
    with Users(path) as users:
        for number in range(times):
            with users.one(seed + number):
                with users.one(-seed - number):
                    end = time.monotonic() + chance.uniform(0.0, 0.15)
                    while time.monotonic() < end:
                        assert allocated(path) <= MAX_SIZE
                assert allocated(path) <= MAX_SIZE
            check_cleaned(path)
    assert not path.with_suffix(".wrong").exists()


def test_a_few_kills(tmp_path: Path) -> None:
    kill(tmp_path / "cache", 10, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_hundred_kills(tmp_path: Path) -> None:
    kill(tmp_path / "cache", 250, seed=1000)
