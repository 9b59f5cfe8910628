"""The stores that keep the promises of stores.base, each a way of making one in a directory."""

from collections.abc import Callable
from pathlib import Path

from headrace.stores.base import Store
from headrace.stores.filesystem import FilesystemStore
from tests.contract.stores.parted import PartedStore

VARIANTS: dict[str, Callable[[Path], Store]] = {
    "unnamed": lambda directory: FilesystemStore("file", directory),
    "named": lambda directory: FilesystemStore("file", directory, unnamed=False),
    "parted": lambda directory: PartedStore("parted", directory),
}
