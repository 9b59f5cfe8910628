"""Processes that use a cache until they are killed: fill, read, remove and evict at random.

Arguments: directory, size of the cache.  For each line on standard input, a seed, it forks one that
does and says its process number.  One that finds bytes in the cache that nobody put there says so
in the file ``wrong`` beside the directory.
"""

import contextlib
import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Iterator

from headrace import errors
from headrace.cache.directory import Directory
from headrace.cache.filling import Fill
from headrace.client.partial import Expected
from headrace.transfer.engine import Source
from tests.faults.cached import IMAGES, content

PIECE = 8 << 10


def pieces(data: bytes, chance: random.Random) -> Iterator[Source]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
        if chance.random() < 0.1:
            time.sleep(0.001)


@contextlib.contextmanager
def bringing(data: bytes, chance: random.Random) -> Iterator[Iterable[Source]]:
    yield pieces(data, chance)


def fill(directory: Directory, image_id: str, data: bytes, chance: random.Random) -> None:
    with contextlib.suppress(errors.StoreFull):  # all the others are in use
        if entry := directory.begin(image_id, len(data)):
            expected = Expected(image_id, len(data), "md5", hashlib.md5(data).hexdigest())
            Fill(entry, expected, lambda offset: bringing(data[offset:], chance)).run()


def use(path: str, size: int, seed: int) -> None:
    directory = Directory(path, size)
    directory.clean()
    chance = random.Random(seed)
    while True:
        image_id = chance.choice(IMAGES)
        data = content(image_id)
        deed = chance.random()
        if extent := directory.open(image_id, len(data)):
            with contextlib.closing(extent):
                if extent.read() != data:
                    with open(f"{path}.wrong", "a") as wrong:
                        print(image_id, file=wrong)
        else:
            fill(directory, image_id, data, chance)
        if deed < 0.05:
            directory.delete(image_id)
        elif deed < 0.1:
            directory.clean(dead_for=0.05)
        elif deed < 0.15:
            directory.add_hits({image_id: 1})


def main(path: str, size: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the dead are gone
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            use(path, size, int(line))
        print(child, flush=True)


main(sys.argv[1], int(sys.argv[2]))
