"""The imageapi store against services that are not ours; tests/faults has an edge of ours."""

import contextlib
from collections.abc import Iterator

import pytest

from headrace import errors
from headrace.client import clouds
from headrace.client.clouds import Cloud
from headrace.stores.imageapi import ImageApiStore
from tests.contract.stores.origin_server import Origin, running
from tests.contract.stores.storing import IMAGE_ID

URL = f"imageapi://{IMAGE_ID}"
PATH = f"/v2/images/{IMAGE_ID}/file"


@pytest.fixture
def centre() -> Iterator[Origin]:
    with running() as found:
        found.data[PATH] = b"data"
        yield found


@pytest.fixture
def store(centre: Origin) -> ImageApiStore:
    return ImageApiStore("centre", lambda: clouds.connect(Cloud(), centre.url("")))


def test_data_come_as_they_are(store: ImageApiStore) -> None:
    with contextlib.closing(store.open(URL)) as data:
        assert data.read() == b"data"


def test_an_image_that_has_none(store: ImageApiStore, centre: Origin) -> None:
    centre.data[PATH], centre.statuses[PATH] = b"", 204
    with pytest.raises(errors.NotFound):
        store.open(URL)


def test_data_whose_size_is_not_said_are_not_missing(store: ImageApiStore, centre: Origin) -> None:
    """Or they would be nothing to who asks, instead of an error."""
    centre.heads[PATH] = {"Transfer-Encoding": "chunked"}
    centre.pieces = lambda data: [b"4\r\n", data, b"\r\n0\r\n\r\n"]
    with pytest.raises(errors.ServiceUnavailable, match="size"):
        store.open(URL)
