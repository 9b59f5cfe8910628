"""Images to cache, and how their bytes are brought."""

import contextlib
import hashlib
import os
import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from headrace import errors
from headrace.cache.directory import Directory, Entry
from headrace.cache.filling import Fetch, Fill, Outcome
from headrace.client.partial import Expected
from headrace.transfer.engine import Reader, Source

KIB = 1024


def image(number: int) -> str:
    return str(uuid.UUID(int=number))


def content(image_id: str, size: int) -> bytes:
    """Bytes that no other image has."""
    return random.Random(image_id).randbytes(size)


def expected(image_id: str, size: int) -> Expected:
    digest = hashlib.sha512(content(image_id, size)).hexdigest()
    return Expected(image_id, size, "sha512", digest)


def bringing(data: bytes, ask: Callable[[int], None] = lambda offset: None) -> Fetch:
    """Brings ``data``; ``ask(offset)`` is told."""

    def fetch(offset: int) -> AbstractContextManager[Iterable[Source]]:
        ask(offset)
        return contextlib.nullcontext([data[offset:]])

    return fetch


def begin(directory: Directory, image_id: str, size: int) -> Entry:
    entry = directory.begin(image_id, size)
    assert entry is not None
    return entry


def fill(directory: Directory, image_id: str, size: int) -> Outcome:
    """Have an image in the cache."""
    entry = begin(directory, image_id, size)
    return Fill(entry, expected(image_id, size), bringing(content(image_id, size))).run()


def read(directory: Directory, image_id: str, size: int) -> bytes | None:
    """What the cache has of an image."""
    extent = directory.open(image_id, size)
    if extent is None:
        return None
    with contextlib.closing(extent):
        return extent.read()


class Pieces:
    """A Readable of pieces; it breaks off where one is an error."""

    def __init__(self, pieces: Iterable[bytes | Exception]) -> None:
        self._pieces = iter(pieces)

    def readinto(self, buffer: memoryview, /) -> int:
        piece = next(self._pieces, b"")
        if isinstance(piece, Exception):
            raise piece
        buffer[: len(piece)] = piece
        return len(piece)


@contextlib.contextmanager
def broken(pieces: Iterable[bytes | Exception]) -> Iterator[Iterable[Source]]:
    yield [Reader(Pieces(pieces))]


def gone() -> errors.TransferError:
    return errors.TransferError(reason="its origin broke off", moved=0)


def lies_in(directory: Directory) -> set[str]:
    """The names of all that lies in a cache."""
    names = set()
    for part in ("", "incomplete", "invalid", "queue"):
        with os.scandir(os.path.join(directory.path, part)) as found:
            names |= {os.path.join(part, each.name) for each in found if each.is_file()}
    return names - {"cache.db"}
