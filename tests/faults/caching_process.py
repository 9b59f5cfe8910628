"""Processes that use a cache until they are killed: fill, read, remove and evict at random.

Arguments: directory, size of the cache.  Each is told its seed.
"""

import contextlib
import hashlib
import random
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial

from headrace import errors
from headrace.cache.directory import Directory
from headrace.cache.filling import Fill
from headrace.client.partial import Expected
from headrace.transfer.engine import Source
from tests.faults.cached import CONTENTS
from tests.faults.forked import serve

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


def use(path: str, size: int, seed: str) -> None:
    directory = Directory(path, size)
    directory.clean()
    chance = random.Random(int(seed))
    while True:
        image_id = chance.choice(list(CONTENTS))
        data = CONTENTS[image_id]
        deed = chance.random()
        if extent := directory.open(image_id, len(data)):
            with contextlib.closing(extent):
                assert extent.read() == data, image_id
        else:
            fill(directory, image_id, data, chance)
        if deed < 0.05:
            directory.delete(image_id)
        elif deed < 0.1:
            directory.clean(dead_for=0.05)
        elif deed < 0.15:
            directory.add_hits({image_id: 1})


serve(partial(use, sys.argv[1], int(sys.argv[2])), wrong=f"{sys.argv[1]}.wrong")
