"""Processes that share a cache are killed anywhere: no wrong byte, no room beyond the bound, and
nothing left that is of no use.
"""

import random
import time
from pathlib import Path

import pytest

from headrace.cache.directory import Directory
from tests.faults.cached import CONTENTS, MAX_SIZE
from tests.faults.forked import Forks
from tests.faults.leftovers import check_tidy, taken

PROCESS = Path(__file__).with_name("caching_process.py")


def check_cleaned(path: Path) -> None:
    """After a start: all that is there is whole and right, and on record."""
    directory = Directory(path, MAX_SIZE)
    directory.clean()
    whole = check_tidy(path, CONTENTS)
    assert {each.image_id for each in directory.cached()} == whole


def kill(path: Path, times: int, seed: int) -> None:
    """Kill one of two processes again and again, and look at what they left."""
    chance = random.Random(seed)
    Directory(path, MAX_SIZE)
    with Forks(PROCESS, path, MAX_SIZE) as users:
        for number in range(times):
            with users.one(str(seed + number)):
                with users.one(str(-seed - number)):
                    end = time.monotonic() + chance.uniform(0.0, 0.15)
                    while time.monotonic() < end:
                        assert taken(path) <= MAX_SIZE
                assert taken(path) <= MAX_SIZE
            check_cleaned(path)
            assert not path.with_suffix(".wrong").exists()


def test_a_few_kills(tmp_path: Path) -> None:
    kill(tmp_path / "cache", 10, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_hundred_kills(tmp_path: Path) -> None:
    kill(tmp_path / "cache", 250, seed=1000)
