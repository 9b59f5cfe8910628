"""headrace cache, on a service with one and on a service without."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator

import pytest

from headrace.client import Connection
from tests.cli.conftest import Headrace, Outcome, run
from tests.contract.stores.origin_server import Origin, running
from tests.several_stores import several_stores
from tools.serving import Serving, serving

DATA = b"data of an image elsewhere" * 1000
GUARD = 30.0  # seconds; a hang guard


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("cached")
    env = several_stores(directory) | {
        "OS_DEFAULT__IMAGE_CACHE_DIR": str(directory / "cache"),
        "OS_DEFAULT__DO_SECURE_HASH": "false",
    }
    with serving(directory, env=env) as found:
        yield found


@pytest.fixture
def call(cached: Serving) -> Callable[..., Outcome]:
    return lambda *words: run(*words, env={"HEADRACE_URL": cached.url})


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running() as found:
        found.data["/image"] = DATA
        yield found


def remote(cached: Serving, origin: Origin, name: str) -> str:
    service = Connection(cached.url)
    record = {"name": name, "disk_format": "raw", "container_format": "bare"}
    image_id = str(service.request("POST", "/v2/images", body=record).json()["id"])
    hashes = {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(DATA).hexdigest()}
    place = {"url": origin.url("/image"), "validation_data": hashes}
    service.request("POST", f"/v2/images/{image_id}/locations", body=place)
    service.close()
    return image_id


def listed(call: Callable[..., Outcome]) -> dict[str, object]:
    found: dict[str, object] = json.loads(call("cache", "list", "--json").out)
    return found


def test_an_image_is_queued_listed_and_removed(
    call: Callable[..., Outcome], cached: Serving, origin: Origin
) -> None:
    image_id = remote(cached, origin, "far away")
    assert call("cache", "queue", "far away").out == f"Queued image {image_id} far away\n"
    deadline = time.monotonic() + GUARD
    while listed(call)["queued_images"]:
        assert time.monotonic() < deadline
    title, rule, row = call("cache", "list").out.splitlines()
    assert title.split() == ["ID", "Size", "Hits", "Last", "used", "(UTC)"]
    assert set(rule) == {"-", " "}
    assert row.split()[:3] == [image_id, str(len(DATA)), "0"]
    done = call("cache", "delete", image_id)
    assert done.out == f"Removed image {image_id} from the cache\n"
    assert listed(call) == {"cached_images": [], "queued_images": []}


@pytest.mark.parametrize(("option", "left"), [("--queued", 1), ("--cached", 0), ("", 0)])
def test_it_is_cleared(
    call: Callable[..., Outcome], cached: Serving, origin: Origin, option: str, left: int
) -> None:
    image_id = remote(cached, origin, f"cleared {option}")
    call("cache", "queue", image_id)
    deadline = time.monotonic() + GUARD
    while not listed(call)["cached_images"]:
        assert time.monotonic() < deadline
    assert call("cache", "clear", *filter(None, [option])).status == 0
    found = listed(call)["cached_images"]
    assert isinstance(found, list)
    assert len(found) == left
    call("cache", "clear")


def test_it_is_looked_after(call: Callable[..., Outcome]) -> None:
    assert call("cache", "clean").status == 0
    assert call("cache", "prune").out == "0 images removed, 0 bytes\n"
    pruned = json.loads(call("cache", "prune", "--json").out)
    assert pruned == {"total_files_pruned": 0, "total_bytes_pruned": 0}


def test_an_image_that_there_is_not(call: Callable[..., Outcome]) -> None:
    done = call("cache", "delete", "77777777-8888-4999-aaaa-bbbbbbbbbbbb")
    assert (done.status, "not found" in done.err) == (1, True)


def test_a_name_is_no_id(call: Callable[..., Outcome]) -> None:
    done = call("cache", "delete", "77777777-8888-4999-aaaa-bbbbbbbbbbbb", "noble")
    assert (done.status, done.out) == (2, "")
    assert "noble is no image id; see `headrace cache list`" in done.err


def test_a_service_without_a_cache(headrace: Headrace) -> None:
    done = headrace("cache", "list")
    assert (done.status, "no image cache" in done.err) == (1, True)
