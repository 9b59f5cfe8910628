"""A service whose images are in S3, and in a directory besides."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.stores.bucket import Bucket
from tests.cli.conftest import run
from tests.contract.stores import buckets
from tests.deploy.beside import added, call, downloaded, lives, settings, told
from tests.deploy.wire import Wire
from tests.needs import require_strace
from tools import strace
from tools.serving import Serving, serving
from tools.swift import KEY, USER, Swift

pytestmark = pytest.mark.slow

MIB = 1 << 20
DATA = os.urandom(12 * MIB + 1234)
RECORD = b'{"disk_format": "raw", "container_format": "bare"}'
OCTETS = "Content-Type: application/octet-stream"


@contextlib.contextmanager
def service(swift: Swift, directory: Path, *under: str) -> Iterator[Serving]:
    """A service of that directory, and of the bucket of that name."""
    env = {
        **settings("objects", "s3", directory),
        "OS_OBJECTS__S3_STORE_HOST": swift.url,
        "OS_OBJECTS__S3_STORE_ACCESS_KEY": USER,
        "OS_OBJECTS__S3_STORE_SECRET_KEY": KEY,
        "OS_OBJECTS__S3_STORE_BUCKET": directory.name,
        "OS_OBJECTS__S3_STORE_CREATE_BUCKET_ON_PUT": "true",
        "OS_OBJECTS__S3_STORE_LARGE_OBJECT_SIZE": "8",
        "OS_OBJECTS__S3_STORE_LARGE_OBJECT_CHUNK_SIZE": "5",
    }
    with serving(directory, env=env, under=list(under)) as running:
        yield running


@pytest.fixture(scope="module")
def server(swift: Swift, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with service(swift, tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "image.img"
    path.write_bytes(DATA)
    return path


def held(swift: Swift, server: Serving) -> list[str]:
    """All that is in the bucket, and what has not ended there."""
    return buckets.held(Bucket("s3", swift.url, server.state_dir.name, USER, KEY))


def test_the_life_of_an_image(server: Serving, swift: Swift, file: Path) -> None:
    image_id = added(server, f"path={file}")
    assert held(swift, server) == [image_id]
    record = json.loads(call(server, "show", image_id, "--json").out)
    host = swift.url.removeprefix("http://")
    assert record["direct_url"] == f"s3://{host}/{server.state_dir.name}/{image_id}"
    assert (record["stores"], record["size"]) == ("objects", len(DATA))
    lives(server, image_id, DATA, "objects", lambda: held(swift, server))


def test_an_image_whose_size_nobody_knows(server: Serving, swift: Swift) -> None:
    image_id = added(server, stdin=DATA)
    assert downloaded(server, image_id) == DATA
    call(server, "delete", "--force", image_id)
    assert held(swift, server) == []


def test_what_is_refused_leaves_nothing(server: Serving, swift: Swift) -> None:
    words = ("add", "name=image", "disk_format=qcow2", "container_format=bare")
    assert run(*words, stdin=DATA, env={"HEADRACE_URL": server.url}).status != 0
    assert held(swift, server) == []


def test_nobody_names_a_location_in_it(server: Serving, swift: Swift) -> None:
    """OSSA-2014-041, OSSA-2015-002."""
    place = f"{swift.url.removeprefix('http://')}/{server.state_dir.name}"
    for url in (
        f"s3://{place}/0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b",
        f"s3+https://access:secret@{place}/0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b",
        "s3://s3.amazonaws.com/bucket/key",
    ):
        words = ("add", "name=image", "disk_format=raw", "container_format=bare")
        refused = run(*words, f"location={url}", env={"HEADRACE_URL": server.url})
        assert refused.status != 0
        assert "secret" not in refused.err


def test_administrators_are_told_of_its_parts(server: Serving) -> None:
    with Wire(server.port) as wire:
        stores = wire.request("GET", "/v2/info/stores/detail").json["stores"]
    told = next(each for each in stores if each["id"] == "objects")
    assert (told["type"], told["default"]) == ("s3", "true")
    assert told["properties"] == {
        "s3_store_large_object_size": 8 * MIB,
        "s3_store_large_object_chunk_size": 5 * MIB,
        "s3_store_thread_pools": 10,
    }


def test_keys_are_told_nowhere(swift: Swift, tmp_path: Path, file: Path) -> None:
    """OSSA-2013-002, OSSA-2014-004; and locations that a Glance wrote may hold keys."""
    old = "old/Key", "old/Secret@"
    host = swift.url.removeprefix("http://")
    with service(swift, tmp_path / "secret") as server:
        image_id = added(server, f"path={file}")
        location = f"s3://{':'.join(old)}@{host}/secret/{image_id}"
        everything = told(server, image_id, DATA, location, lambda: swift.empty("secret"))
    assert f"s3://{host}/secret/{image_id}" in everything
    for secret in (KEY, *old, "Signature="):
        assert secret not in everything


def test_bytes_go_in_and_on_without_a_copy(swift: Swift, tmp_path: Path) -> None:
    """From the client's socket by splice, to the store's by sendfile."""
    prefix = tmp_path / "strace" / "server"
    prefix.parent.mkdir()
    directory = tmp_path / "traced"
    under = strace.command(require_strace(), prefix)
    with service(swift, directory, *under) as server, Wire(server.port) as wire:
        image = wire.request("POST", "/v2/images", body=RECORD).json["id"]
        with strace.counting(prefix) as moved:
            assert wire.request("PUT", f"/v2/images/{image}/file", OCTETS, body=DATA).status == 204
    assert moved["sendfile"] == len(DATA), moved
    assert len(DATA) - MIB <= moved["splice"] <= len(DATA), moved
    others = sum(moved.values()) - moved["sendfile"] - moved["splice"]
    assert others <= MIB, moved
