"""The image cache by the commands of OpenStack's clients."""

import hashlib
import time
from collections.abc import Callable, Iterator

import pytest

from headrace.client import Connection
from tests.compat.conftest import Clients, Finished
from tests.contract.stores.origin_server import running
from tests.several_stores import several_stores
from tools.serving import serving

pytestmark = pytest.mark.slow

Run = Callable[..., Finished]
DATA = b"data elsewhere" * 1000
GUARD = 60.0  # seconds; a hang guard


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a service with a cache, and an image that lies elsewhere."""
    directory = tmp_path_factory.mktemp("cached")
    env = several_stores(directory) | {
        "OS_DEFAULT__IMAGE_CACHE_DIR": str(directory / "cache"),
        "OS_DEFAULT__DO_SECURE_HASH": "false",
    }
    with running() as origin, serving(directory, env=env) as server:
        origin.data["/image"] = DATA
        service = Connection(server.url)
        record = {"name": "far", "disk_format": "raw", "container_format": "bare"}
        image_id = str(service.request("POST", "/v2/images", body=record).json()["id"])
        hashes = {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(DATA).hexdigest()}
        place = {"url": origin.url("/image"), "validation_data": hashes}
        service.request("POST", f"/v2/images/{image_id}/locations", body=place)
        service.close()
        yield server.url, image_id


def until(listed: Callable[[], Finished], word: str) -> None:
    """Wait until a list has a word."""
    deadline = time.monotonic() + GUARD
    while word not in (done := listed()).text:
        assert done.status == 0, done.stderr
        assert time.monotonic() < deadline


def must(done: Finished) -> None:
    assert done.status == 0, done.stderr


def test_glance(clients: Clients, cached: tuple[str, str]) -> None:
    url, image_id = cached

    def glance(*words: str) -> Finished:
        return clients.run("glance", "--os-image-url", url, "--os-auth-token", "none", *words)

    must(glance("cache-queue", image_id))
    until(lambda: glance("cache-list"), "cached")
    assert image_id in glance("cache-list").text
    must(glance("cache-delete", image_id))
    assert image_id not in glance("cache-list").text
    must(glance("cache-clear"))
    must(glance("cache-clear", "--target", "queue"))
    must(glance("cache-clean"))
    must(glance("cache-prune"))


def test_openstack(clients: Clients, cached: tuple[str, str]) -> None:
    url, image_id = cached

    def cached_image(*words: str) -> Finished:
        options = ("--os-auth-type", "none", "--os-endpoint", url)
        return clients.run("openstack", *options, "cached", "image", *words)

    must(cached_image("queue", image_id))
    until(lambda: cached_image("list"), "cached")
    must(cached_image("delete", image_id))
    assert image_id not in cached_image("list").text
    must(cached_image("clear"))
