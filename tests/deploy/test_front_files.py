"""Behind nginx and Apache: which files they send themselves, besides the default store's."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.stores.origin_server import Origin, running
from tests.deploy.conftest import MIB, OCTETS, Deployed, path, require_host
from tests.deploy.test_cache import remote
from tests.deploy.wire import Wire
from tests.faults.service import wait_until
from tests.needs import require_strace
from tools import hosts, strace

pytestmark = pytest.mark.slow

DATA = os.urandom(24 * MIB + 41)
CONF = """\
[DEFAULT]
enabled_backends = fast:file, cheap:file, web:http
image_cache_dir = state/cache
image_cache_max_size = 67108864
do_secure_hash = false
[glance_store]
default_backend = fast
[fast]
filesystem_store_datadir = state/images
[cheap]
filesystem_store_datadir = state/cheap
[import_filtering_opts]
allowed_hosts = 127.0.0.1
allowed_ports =
"""
NAMED = {"nginx": "x-accel-redirect", "apache": "x-sendfile"}


@pytest.fixture(scope="module", params=NAMED)
def front(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    require_host(request.param)
    with hosts.running(request.param, conf=CONF) as host:
        yield Deployed(host, DATA)


@pytest.fixture(params=NAMED)
def traced(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """The same under strace."""
    require_host(request.param)
    with hosts.running(request.param, conf=CONF, tracer=require_strace()) as host:
        yield Deployed(host, DATA)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running() as found:
        yield found


def named(front: Deployed, image: str) -> str | None:
    """What Headrace tells the server in front to send, if it leaves that to it."""
    with Wire(front.host.state_dir / "headrace.sock") as wire:
        answer = wire.request("GET", path(image))
    found = answer.headers.get(NAMED[front.host.name])
    assert (answer.body == b"") == (found is not None)
    return found


def place(front: Deployed, directory: str, image: str, location: str) -> str:
    """How an image's file is named to it."""
    if front.host.name == "nginx":
        return f"/headrace-images/{location}{image}"
    return str(front.host.state_dir / directory / image)


def cached(front: Deployed, origin: Origin) -> tuple[str, Path]:
    """An image that was fetched from the origin, and its file in the cache."""
    image = remote(front, origin, DATA)
    assert front.ask("GET", path(image)).body == DATA
    entry = front.host.state_dir / "cache" / image
    wait_until(entry.exists, "its end")
    return image, entry


def test_each_store_that_is_a_directory(front: Deployed) -> None:
    assert named(front, front.whole) == place(front, "images", front.whole, "")
    image = front.create()
    fields = (OCTETS, "x-image-meta-store: cheap")
    assert front.ask("PUT", path(image), *fields, body=DATA).status == 204
    assert named(front, image) == place(front, "cheap", image, "cheap/")
    assert front.ask("GET", path(image)).body == DATA
    answer = front.ask("GET", path(image), "Range: bytes=5-99")
    assert (answer.status, answer.body) == (206, DATA[5:100])


def test_a_hit_of_the_cache(front: Deployed, origin: Origin) -> None:
    image, _ = cached(front, origin)
    assert named(front, image) == place(front, "cache", image, ".cache/")
    assert front.ask("GET", path(image)).body == DATA
    answer = front.ask("GET", path(image), "Range: bytes=5-99")
    assert (answer.status, answer.body) == (206, DATA[5:100])
    assert len(origin.asked) == 1


@pytest.mark.parametrize("target", [".cache/{}", ".cache/../.cache/{}", ".cache/cache.db"])
def test_the_cache_is_closed_to_clients(front: Deployed, origin: Origin, target: str) -> None:
    image, _ = cached(front, origin)
    assert front.ask("GET", f"/headrace-images/{target.format(image)}").status == 404


def test_what_it_sends_stays_until_it_is_sent(front: Deployed, origin: Origin) -> None:
    """Also when it is removed from the cache meanwhile: its room is taken."""
    image, entry = cached(front, origin)
    inode = entry.stat().st_ino
    aside = front.host.state_dir / "cache" / "invalid" / f"{image}.{inode}"
    with front.connect(receive_buffer=MIB) as wire:
        wire.send(wire.head("GET", path(image)))
        wire.wait_for_head()
        assert front.ask("DELETE", f"/v2/cache/{image}").status == 204
        assert not entry.exists()
        assert aside.stat().st_ino == inode
        assert wire.answer().body == DATA


def test_a_hit_leaves_by_the_fronts_sendfile(traced: Deployed, origin: Origin) -> None:
    """No other call of its touches the entry, and no call of ours."""
    image, _ = cached(traced, origin)
    programs = (traced.host.ours, traced.host.sender)

    def moved() -> list[Counter[str]]:
        for program in programs:
            strace.settle(traced.host.place.prefix(program))
        return [strace.on_file(traced.host.place.prefix(program), image) for program in programs]

    before = moved()
    assert traced.ask("GET", path(image)).body == DATA
    ours, fronts = (now - then for now, then in zip(moved(), before, strict=True))
    assert ours == {}
    assert fronts == {"sendfile": len(DATA)}
