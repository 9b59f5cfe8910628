"""Stores in a real Swift, whose address processes are told by their environment."""

import os
from pathlib import Path
from typing import Any

from headrace.model import IMAGE_ID
from headrace.stores.swift import SwiftStore
from headrace.stores.swift_account import Access, Account, Reference
from headrace.stores.swift_place import Containers, Place
from tools.swift import KEY, USER

ADDRESS = "HEADRACE_TEST_SWIFT"
SEGMENT = 2 << 20
"""More than the suite's images have: what is open outlives its deletion only within a segment."""


def reference(**more: Any) -> Reference:
    return Reference(os.environ[ADDRESS], USER, KEY, "1", **more)


def container(directory: Path) -> str:
    """A container of the test's own."""
    return f"{directory.parent.parent.name}-{directory.parent.name}"


def store(directory: Path, **how: Any) -> SwiftStore:
    """A store of the container that goes with the directory."""
    given: dict[str, Any] = {
        "references": {"ref1": reference()},
        "default": "ref1",
        "access": Access(),
        "containers": Containers(container(directory), create=True),
        "windows": str(directory.parent),
        "segment": SEGMENT,
    }
    return SwiftStore("swift", **(given | how))


def names(directory: Path) -> list[str]:
    """The ids of images, and the uploads of which there is something and no image."""
    account = Account("Swift", reference(), Access())
    listed = [str(each["name"]) for each in account.names(container(directory))]
    images = [name for name in listed if IMAGE_ID.fullmatch(name)]
    made = {f"{name}/{Place(account, container(directory), name).upload()}" for name in images}
    uploads = {name.rpartition("/")[0] for name in listed if name not in images}
    return sorted([*images, *uploads - made])
