"""What every store is: somewhere image data is written once, read many times, deleted."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NoReturn, Protocol, runtime_checkable

from headrace import errors
from headrace.stores.remote import Remote
from headrace.transfer.engine import FileSink
from headrace.transfer.extent import Extent

Data = Extent | Remote
"""An image's data on its way out: of a file, or of an origin elsewhere."""


class Writer(Protocol):
    """Data on its way into a store; nobody sees it before ``commit``.

    Always ends by ``abort``, which after a ``commit`` only lets go, so that a ``finally`` may call
    it; between the two, ``retract`` takes the commit back.
    """

    @property
    def sink(self) -> FileSink:
        """Where the bytes go: a regular file, from offset 0, which may be read back."""
        ...

    @property
    def landed(self) -> int:
        """Bytes that were in the sink from the start: all of them, if it is an adopted file."""
        ...

    def advance(self, total: int) -> None:
        """Take note that the first ``total`` bytes have landed in the sink.

        May be called with any growing totals, or never; a store may use it to bring them where they
        belong, so that ``commit`` has less to wait for.  It may wait for that, and raise what
        ``commit`` raises.
        """
        ...

    def follow(self, read: Callable[[], int]) -> None:
        """Have ``read()`` tell how many of the first bytes nobody will read back any more."""
        ...

    @property
    def lost(self) -> range:
        """The bytes that cannot be read back any more: none of a file, of which all stays."""
        ...

    def commit(self) -> str:
        """Make the data durable and visible under its name; returns its location URL.

        Raises DataExists when the name is taken (never replaces), StoreFull, StoreUnwritable;
        UploadIncomplete when an adopted file has changed since.
        """
        ...

    def retract(self) -> None:
        """Remove what ``commit`` published, and never what another writer published since."""
        ...

    def abort(self) -> None:
        """Let go; data that was not committed is forgotten, nothing of it is left."""
        ...


class Store(Protocol):
    """A store; safe to use from many threads and processes at once."""

    @property
    def id(self) -> str:
        """The store's identifier, as in ``enabled_backends``."""
        ...

    @property
    def kind(self) -> str:
        """The store's type, as in ``enabled_backends``."""
        ...

    @property
    def local(self) -> bool:
        """Whether its data are files of this machine."""
        ...

    @property
    def writable(self) -> bool:
        """Whether it takes data at all."""
        ...

    @property
    def properties(self) -> dict[str, object]:
        """What administrators are told of it beside its type."""
        ...

    def holds(self, url: str) -> bool:
        """Whether a location URL is one of this store, by its text alone."""
        ...

    def metadata(self, url: str) -> dict[str, object]:
        """What is to be noted beside a location of this store."""
        ...

    def check(self, url: str) -> None:
        """Raises InvalidLocation unless a caller may name ``url`` as a location of this store.

        Connects to nothing and opens nothing.
        """
        ...

    def create(self, image_id: str, size: int | None) -> Writer:
        """Begin to write ``size`` bytes (None: unknown) of an image.

        Raises DataExists, StoreFull (also when ``size`` cannot fit), StoreUnwritable;
        StoreReadOnly of a store that never takes data.
        """
        ...

    def adopt(self, image_id: str, fd: int) -> Writer | None:
        """Take the whole file open as ``fd``, which nobody will write again, as an image's data.

        None when it cannot become this store's, so that it must be copied.  Raises as ``create``.
        """
        ...

    def open(self, url: str) -> Data:
        """The whole data at a location of this store.

        Raises NotFound when there is none, StoreNotFound for a location outside this store,
        ServiceUnavailable when it cannot be read now.  No error tells the location.
        """
        ...

    def delete(self, url: str) -> None:
        """Remove the data at a location; raises NotFound and StoreNotFound like ``open``.

        A store that takes no data has none to remove: what lies there is somebody else's.
        """
        ...

    def url(self, image_id: str) -> str:
        """The location URL that ``create(image_id, …).commit()`` returns."""
        ...

    def held(self) -> Iterator[str]:
        """The ids of the images that the store holds data of, in no order."""
        ...

    def sweep(self) -> int:
        """Remove what crashed writers left behind, and nothing that a live one is writing.

        Returns how many leftovers were removed.  Raises ServiceUnavailable.
        """
        ...


@runtime_checkable
class Cloning(Protocol):
    """What a store has besides whose data others are made of without being copied."""

    def in_use(self, url: str) -> bool:
        """Whether the data at a location cannot be removed now, as far as can be found out."""
        ...

    def made(self, url: str) -> datetime:
        """When what lies at a location was made (naive UTC, by the store's clock).

        Raises as ``open``.
        """
        ...


class ReadOnly:
    """What stores have in common that never take data."""

    writable = False
    local = False

    def __init__(self, id: str) -> None:
        self._id = id

    @property
    def id(self) -> str:
        return self._id

    @property
    def properties(self) -> dict[str, object]:
        return {}

    def metadata(self, url: str) -> dict[str, object]:
        return {}

    def create(self, image_id: str, size: int | None) -> NoReturn:
        raise errors.StoreReadOnly(store=self._id)

    def adopt(self, image_id: str, fd: int) -> NoReturn:
        raise errors.StoreReadOnly(store=self._id)

    def url(self, image_id: str) -> NoReturn:
        raise errors.StoreReadOnly(store=self._id)

    def delete(self, url: str) -> None:
        """Let go of the location."""

    def held(self) -> Iterator[str]:
        """Nothing that is the store's own."""
        return iter(())

    def sweep(self) -> int:
        return 0
