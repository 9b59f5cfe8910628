"""Which store a location lies in."""

from pathlib import Path

import pytest

from headrace import errors
from headrace.model import Location
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.registry import Label, Registry

IMAGE_ID = "0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    stores = [FilesystemStore(name, tmp_path / name) for name in ("fast", "slow")]
    return Registry(stores, "slow", {"fast": Label("Solid state", weight=10)})


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


@pytest.mark.parametrize("metadata", [{"store": "slow"}, {"store": "fast"}, {}, {"store": "gone"},
                                      {"store": ["slow"]}])  # fmt: skip
@pytest.mark.parametrize("scheme", ["file", "filesystem"])
def test_a_location_lies_in_the_store_whose_directory_it_names(
    registry: Registry, tmp_path: Path, metadata: dict[str, object], scheme: str
) -> None:
    """Whatever stands beside it: what is wrong there is mended by the URL."""
    location = Location(f"{scheme}://{tmp_path}/slow/{IMAGE_ID}", metadata)
    assert registry.for_location(location).id == "slow"
    assert registry.mended(location).metadata == {"store": "slow"}


@pytest.mark.parametrize(
    "url", ["", "rbd://pool/image", "/a/path", "files:///x", f"file:///elsewhere/{IMAGE_ID}"]
)
def test_what_no_store_holds(registry: Registry, url: str) -> None:
    location = Location(url, {"store": "fast"})
    with pytest.raises(errors.StoreNotFound):
        registry.for_location(location)
    assert registry.mended(location) is location


def test_the_heaviest_is_read_first_unless_another_is_preferred(
    registry: Registry, tmp_path: Path
) -> None:
    slow, fast = (Location(f"file://{tmp_path}/{each}/{IMAGE_ID}") for each in ("slow", "fast"))

    def order(*preferred: str) -> list[object]:
        return [each.metadata["store"] for each in registry.ordered([slow, fast], preferred)]

    assert order() == ["fast", "slow"]
    assert order("slow") == ["slow", "fast"]
    assert order("fast", "slow") == ["fast", "slow"]


def test_a_service_with_one_store_notes_and_orders_nothing(tmp_path: Path) -> None:
    store = FilesystemStore("file", tmp_path)
    registry = Registry([store], default="file")
    assert registry.place(store, store.url(IMAGE_ID)).metadata == {}
    assert registry.chosen("whatever") is store
    with pytest.raises(errors.UnknownStore):
        Registry([store], "file", {}).chosen("whatever")
