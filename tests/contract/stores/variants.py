"""The stores that keep the promises of stores.base, each a way of making one for a directory."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headrace.stores.base import Store
from headrace.stores.filesystem import FilesystemStore
from tests.contract.stores import buckets, rbds, swifts
from tests.contract.stores.parted import PartedStore


def _files(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


@dataclass(frozen=True)
class Variant:
    """``names`` are those of all that is held: an image's id, and whatever else there is.

    ``exclusive`` is whether of those who commit at the same time only one is told that it has.
    ``leftovers`` is what a sweep has to remove of a writer that was killed.  ``server`` is the
    fixture of what it needs to run.  ``sockets`` is whether those it opens are its own: librados
    connects and lets go when it likes.
    """

    make: Callable[[Path], Store]
    names: Callable[[Path], list[str]] = _files
    exclusive: bool = True
    leftovers: int = 0
    server: str | None = None
    sockets: bool = True


VARIANTS = {
    "unnamed": Variant(lambda directory: FilesystemStore("file", directory)),
    "named": Variant(
        lambda directory: FilesystemStore("file", directory, unnamed=False), leftovers=1
    ),
    "parted": Variant(lambda directory: PartedStore("parted", directory)),
    "swift": Variant(swifts.store, swifts.names, exclusive=False, server="swift_address"),
    "rbd": Variant(rbds.store, rbds.names, leftovers=1, server="ceph_address", sockets=False),
    "s3": Variant(
        partial(buckets.store, buckets.SWIFT),
        partial(buckets.names, buckets.SWIFT),
        exclusive=False,
        server="s3_address",
    ),
    "rgw": Variant(
        partial(buckets.store, buckets.RGW),
        partial(buckets.names, buckets.RGW),
        server="rgw_address",
    ),
}
