"""Transfers of image data: those under way in this process, and the count of those that are over.

A transfer costs something when it begins and when it ends, nothing in between: how far it is, is
read from it when somebody asks.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count

import msgspec

from headrace import errors
from headrace.metrics import Metrics
from headrace.model import Image
from headrace.stores.base import Data

DOWN, UP, IMPORT = "download", "upload", "import"


class Flight(msgspec.Struct, frozen=True):
    """A transfer under way, as it was when it was asked for: sizes in bytes, time in seconds.

    ``size`` is None of an upload that does not say it.  ``moved`` is what was handed to the kernel
    of a download, and is in the store of an upload.  The ``way`` of an import is its method, and it
    has no ``client``.  ``process`` and ``number`` tell it from others of the service.
    """

    process: int
    number: int
    image: str
    name: str | None
    client: str
    direction: str
    way: str
    size: int | None
    moved: int
    seconds: float


class Transfer:
    """A transfer under way; of a download, the extent knows how far it is.

    ``landed`` is how many bytes of an upload or import are there: an attribute to be set, since
    that is done for every MiB.
    """

    __slots__ = (
        "_extent", "_size", "_way", "client", "counted", "direction", "image", "landed", "name",
        "number", "started",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        image: str,
        name: str | None,
        client: str,
        size: int | None = None,
        extent: Data | None = None,
        way: str = "copy",
        direction: str = DOWN,
    ) -> None:
        self.number = number
        self.image = image
        self.name = name
        self.client = client
        self.direction = direction
        self.started = time.monotonic()
        self.counted = 0
        self._extent = extent
        self.landed = 0
        self._size = size
        self._way = way

    @property
    def size(self) -> int | None:
        return self._size if self._extent is None else self._extent.length

    @property
    def moved(self) -> int:
        return self.landed if self._extent is None else self._extent.sent

    @property
    def way(self) -> str:
        return self._way if self._extent is None else self._extent.way

    def expect(self, size: int | None) -> None:
        """Take note of how long an import is."""
        self._size = size

    def went(self, way: str) -> None:
        """Take note of how an upload was moved indeed."""
        self._way = way


class Traffic:
    """The transfers of this process; safe to use from many threads."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._under_way: dict[int, Transfer] = {}
        self._downloads: Counter[str] = Counter()  # by client

    def begin_download(self, image: Image, client: str, extent: Data, most: int = 0) -> None:
        """Take note of a download, which is over when the extent is closed.

        Raises TooManyDownloads when the client has ``most`` under way already (0: any number).
        """
        transfer = Transfer(next(self._numbers), image.id, image.name, client, extent=extent)
        with self._lock:
            if most and self._downloads[client] >= most:
                raise errors.TooManyDownloads(limit=most)
            self._downloads[client] += 1
            self._under_way[transfer.number] = transfer
        extent.on_close(lambda sent, ok: self._download_is_over(transfer, ok))

    @contextlib.contextmanager
    def upload(self, image: str, client: str, size: int | None, way: str) -> Iterator[Transfer]:
        """An upload, while the context lasts; ``way`` is how it is to be moved."""
        number = next(self._numbers)
        transfer = Transfer(number, image, None, client, size=size, way=way, direction=UP)
        with self._during(transfer):
            yield transfer

    @contextlib.contextmanager
    def job(self, image: Image, method: str) -> Iterator[Transfer]:
        """An import, while the context lasts."""
        number = next(self._numbers)
        transfer = Transfer(number, image.id, image.name, "", way=method, direction=IMPORT)
        with self._during(transfer):
            yield transfer

    @contextlib.contextmanager
    def _during(self, transfer: Transfer) -> Iterator[None]:
        with self._lock:
            self._under_way[transfer.number] = transfer
        result = "failed"
        try:
            yield
            result = "done"
        finally:
            self._end(transfer, result)

    def flights(self) -> list[Flight]:
        """What is under way; the bytes moved so far are counted now."""
        with self._lock:
            transfers = list(self._under_way.values())
        for transfer in transfers:
            self._count(transfer, transfer.moved)
        now = time.monotonic()
        return [
            Flight(
                self._metrics.slot, each.number, each.image, each.name, each.client,
                each.direction, each.way, each.size, each.moved, now - each.started,
            )
            for each in transfers
        ]  # fmt: skip

    def _download_is_over(self, transfer: Transfer, ok: bool | None) -> None:
        with self._lock:
            self._downloads[transfer.client] -= 1
            if not self._downloads[transfer.client]:
                del self._downloads[transfer.client]
        if ok is None:
            self._end(transfer, "left", transfer.size)
        else:
            self._end(transfer, "done" if ok else "failed")

    def _end(self, transfer: Transfer, result: str, moved: int | None = None) -> None:
        with self._lock:
            del self._under_way[transfer.number]
        self._count(transfer, transfer.moved if moved is None else moved)
        self._metrics.transfers.labels(transfer.direction, transfer.way, result).inc()

    def _count(self, transfer: Transfer, moved: int) -> None:
        with self._lock:
            more, transfer.counted = moved - transfer.counted, max(moved, transfer.counted)
        if more > 0:
            self._metrics.bytes.labels(transfer.direction, transfer.way).inc(more)
