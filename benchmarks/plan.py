"""What a run is given: how many rounds, and where it may write."""

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.row import MIB

T = TypeVar("T")

TMPFS = Path("/dev/shm")


@dataclass(frozen=True)
class Plan:
    """``rounds`` is how often everything is measured; ``disk`` is a directory on a disk that is
    removed after the run, ``memory`` one on a tmpfs (None where there is none)."""

    rounds: int
    disk: Path
    memory: Path | None

    def roomiest(self, size: int) -> Path:
        """In memory if ``size`` bytes fit there twice over, else on disk."""
        if self.memory is not None and self.memory_has(2 * size):
            return self.memory
        return self.disk

    def memory_has(self, size: int) -> bool:
        """Whether ``size`` bytes of memory are to be had, page cache included."""
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(line for line in meminfo if line.startswith("MemAvailable:"))
        return int(free.split()[1]) * 1024 > size


def interleaved(rounds: int, measures: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Take every measure once a round, each round in an order of its own.

    The order is random (but the same in every run): what runs after what shows in the figures.  A
    first round is thrown away: it warms caches and whatever a server does only once.
    """
    order = random.Random(rounds)
    names = list(measures)
    taken: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds + 1):
        order.shuffle(names)
        for name in names:
            sample = measures[name]()
            if number:
                taken[name].append(sample)
    return taken


def random_file(path: Path, size: int) -> None:
    """Fill ``path`` with ``size`` bytes that no file system can make smaller, and settle it."""
    with path.open("wb") as file:
        for _ in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size)))
        file.flush()
        os.fsync(file.fileno())


def sparse_file(path: Path, size: int) -> None:
    """A file of one hole."""
    with path.open("wb") as file:
        file.truncate(size)


def warm(path: Path) -> None:
    """Have the whole file in the page cache."""
    buffer = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def settle() -> None:
    """Wait until nothing written earlier is still on its way to the disk."""
    os.sync()
    time.sleep(0.2)
