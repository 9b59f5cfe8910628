"""What an image's record tells of where its data lies."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from headrace.api.whereabouts import Whereabouts
from headrace.model import Image, Location, Status, Viewer
from headrace.service.context import Context
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.registry import Label, Registry

IMAGE_ID = "0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b"
ADMIN, USER = Context(Viewer(is_admin=True)), Context(Viewer(project_id="me"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    stores = [FilesystemStore(name, tmp_path / name) for name in ("cheap", "fast")]
    return Registry(stores, "fast", {"fast": Label(weight=5)})


@pytest.fixture
def image(registry: Registry) -> Image:
    places = [registry.get(each).url(IMAGE_ID) for each in ("cheap", "fast")]
    now = datetime(2026, 1, 1)
    return Image(
        id=IMAGE_ID,
        status=Status.ACTIVE,
        locations=(Location(places[0]), Location(places[1], {"store": "fast"})),
        created_at=now,
        updated_at=now,
    )


def test_by_default_users_learn_the_stores_only(registry: Registry, image: Image) -> None:
    """The heaviest first, and one that is not noted by its URL."""
    told = Whereabouts(registry, direct_url=False, locations=False).of(image, USER)
    assert told == {"stores": "fast,cheap"}


def test_addresses_are_told_where_they_are_to_be(registry: Registry, image: Image) -> None:
    cheap, fast = (each.url for each in image.locations)
    assert Whereabouts(registry, direct_url=True, locations=True).of(image, USER) == {
        "stores": "fast,cheap",
        "direct_url": fast,
        "locations": [
            {"url": fast, "metadata": {"store": "fast"}},
            {"url": cheap, "metadata": {"store": "cheap"}},
        ],
    }


def test_where_there_is_no_data_there_is_no_place(registry: Registry, image: Image) -> None:
    empty = Image(id=IMAGE_ID, created_at=image.created_at, updated_at=image.updated_at)
    told = Whereabouts(registry, direct_url=True, locations=True).of(empty, USER)
    assert told == {"locations": []}


def test_one_store_has_no_name(image: Image, tmp_path: Path) -> None:
    one = Registry([FilesystemStore("file", tmp_path / "fast")], default="file")
    assert Whereabouts(one, direct_url=False, locations=False).of(image, USER) == {}


def test_a_deactivated_image_tells_users_nothing(registry: Registry, image: Image) -> None:
    hidden = replace(image, status=Status.DEACTIVATED)
    whereabouts = Whereabouts(registry, direct_url=True, locations=True)
    assert whereabouts.of(hidden, USER) == {}
    assert whereabouts.of(hidden, ADMIN) != {}
