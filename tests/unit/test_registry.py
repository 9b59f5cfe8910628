"""Which store a location lies in."""

from pathlib import Path

import pytest

from headrace import errors
from headrace.model import Location
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.registry import Registry

IMAGE_ID = "0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    stores = [FilesystemStore(name, tmp_path / name) for name in ("fast", "slow")]
    return Registry(stores, default="slow")


def test_stores_are_found_by_id(registry: Registry) -> None:
    assert registry.get("fast").id == "fast"
    assert registry.default is registry.get("slow")
    assert [store.id for store in registry.all()] == ["fast", "slow"]
    for unknown in ("", "Fast"):
        with pytest.raises(errors.StoreNotFound):
            registry.get(unknown)


def test_the_default_store_must_exist(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreNotFound):
        Registry([FilesystemStore("fast", tmp_path)], default="slow")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [({"store": "slow"}, "slow"), ({"store": "fast"}, "fast"), ({}, "fast"),
     ({"store": "gone"}, "fast"), ({"store": ["slow"]}, "fast")],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["file", "filesystem"])
def test_a_location_lies_in_the_store_it_names_else_in_the_first_of_its_scheme(
    registry: Registry, metadata: dict[str, object], expected: str, scheme: str
) -> None:
    location = Location(f"{scheme}:///somewhere/{IMAGE_ID}", metadata)
    assert registry.for_location(location).id == expected


@pytest.mark.parametrize("url", ["", "rbd://pool/image", "/a/path", "files:///x"])
def test_a_scheme_that_no_store_has(registry: Registry, url: str) -> None:
    with pytest.raises(errors.StoreNotFound):
        registry.for_location(Location(url))
