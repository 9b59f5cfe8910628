"""headrace on a service with several stores, and data that stays where it is."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Headrace, Outcome, run
from tests.contract.stores.origin_server import running
from tests.several_stores import several_stores
from tools.serving import Serving, serving

DATA = os.urandom(300_000)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("several")
    with serving(directory, env=several_stores(directory)) as found:
        yield found


@pytest.fixture
def call(several: Serving) -> Callable[..., Outcome]:
    return lambda *words: run(*words, env={"HEADRACE_URL": several.url})


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.img"
    path.write_bytes(DATA)
    return path


def shown(call: Callable[..., Outcome], image_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(call("show", image_id, "--json").out)
    return found


def copied(several: Serving, image_id: str) -> None:
    """Have the image's data in the store cheap as well."""
    target = several.state_dir / "cheap" / image_id
    shutil.copy(several.state_dir / "fast" / image_id, target)
    with closing(sqlite3.connect(several.state_dir / "headrace.db")) as database, database:
        database.execute(
            "INSERT INTO image_locations (image_id, value, meta_data, status, created_at, deleted)"
            " VALUES (?, ?, ?, 'active', '2026-01-01 00:00:00', 0)",
            (image_id, f"file://{target}", '{"store": "cheap"}'),
        )


def test_the_stores_are_listed(call: Callable[..., Outcome]) -> None:
    assert call("stores").out == (
        "ID     Default  Read-only  Description\n"
        "fast   Yes                 Solid state\n"
        "cheap\n"
        "web             Yes\n"
    )
    detail = call("stores", "--detail")
    assert "fast   Yes                 file  10      Solid state\n" in detail.out
    assert "\nweb: no properties\n" in detail.out
    assert json.loads(call("stores", "--json").out)[2] == {"id": "web", "read-only": "true"}


def test_a_service_with_one_store_says_so(headrace: Headrace) -> None:
    done = headrace("stores")
    assert (done.status, done.out) == (1, "")
    assert done.err == "headrace: the service has only one store\n"


@pytest.mark.parametrize("command", ["add", "upload"])
def test_data_goes_into_the_store_it_is_sent_to(
    call: Callable[..., Outcome], several: Serving, image: Path, command: str
) -> None:
    if command == "add":
        image_id = call("add", f"path={image}", "--store", "cheap").image_id
    else:
        image_id = call("add", "name=later").image_id
        assert call("upload", image_id, f"path={image}", "--store", "cheap").status == 0
    assert shown(call, image_id)["stores"] == "cheap"
    assert (several.state_dir / "cheap" / image_id).read_bytes() == DATA
    block = call("show", image_id).out
    assert "\nStores: cheap\n" in block
    assert f"\nLocation: file://{several.state_dir}/cheap/{image_id}\n" in block


def test_a_store_that_takes_nothing_or_is_none(call: Callable[..., Outcome], image: Path) -> None:
    for store_id, code in (("slow", "store.unknown"), ("web", "store.read_only")):
        done = call("add", f"path={image}", "--store", store_id)
        assert done.status == 1
        assert code in done.err
        assert "was removed again" in done.err
    plan = call("add", f"path={image}", "--store", "cheap", "--dry-run")
    assert plan.out.endswith(f"{len(DATA)} bytes, into store cheap\n")


def test_data_comes_from_the_store_that_is_preferred_and_leaves_one(
    call: Callable[..., Outcome], several: Serving, image: Path, tmp_path: Path
) -> None:
    image_id = call("add", f"path={image}").image_id
    copied(several, image_id)
    target = tmp_path / "down"
    for preferred in ("cheap", "cheap,fast"):
        done = call("download", image_id, "--file", str(target), "--prefer", preferred)
        assert (done.status, target.read_bytes()) == (0, DATA), done.err
    assert (
        "store.unknown" in call("download", image_id, "--file", str(target), "--prefer", "slow").err
    )

    done = call("delete", image_id, "--store", "fast", "--force")
    assert done.out.startswith(f"Deleted image {image_id} image.img from store fast")
    assert not (several.state_dir / "fast" / image_id).exists()
    refused = call("delete", image_id, "--store", "cheap", "--force")
    assert refused.status == 1
    assert "image.last_location" in refused.err
    assert shown(call, image_id)["stores"] == "cheap"


def test_a_file_of_the_servers_machine_stays_where_it_is(
    call: Callable[..., Outcome], several: Serving, tmp_path: Path
) -> None:
    file = several.state_dir / "listed" / "noble.img"
    file.write_bytes(DATA)
    done = call("add", f"location=file://{file}", "disk_format=raw")
    assert done.err == ""
    record = shown(call, done.image_id)
    assert (record["name"], record["status"], record["size"]) == ("noble.img", "active", len(DATA))
    target = tmp_path / "down"
    assert call("download", done.image_id, "--file", str(target), "--no-verify").status == 0
    assert target.read_bytes() == DATA

    for url in ("file:///etc/passwd", f"file://{several.state_dir}/listed/none.img"):
        refused = call("add", f"location={url}", "disk_format=raw")
        assert refused.status == 1
        assert "image.invalid_location" in refused.err
        assert "was removed again" in refused.err


def test_data_at_an_origin_elsewhere(call: Callable[..., Outcome], tmp_path: Path) -> None:
    with running() as origin:
        origin.data["/noble.img"] = DATA
        done = call("add", f"location={origin.url('/noble.img')}", "disk_format=raw", "name=far")
        assert done.err == ""
        record = shown(call, done.image_id)
        assert (record["name"], record["size"], record["stores"]) == ("far", len(DATA), "web")
        target = tmp_path / "down"
        received = call("download", done.image_id, "--file", str(target), "--no-verify")
        assert (received.status, target.read_bytes()) == (0, DATA), received.err
    gone = call("download", done.image_id, "--file", str(target), "--no-verify")
    assert gone.status == 1
    assert "127.0.0.1" not in gone.err


def test_a_plan_of_a_location(call: Callable[..., Outcome]) -> None:
    plan = call("add", "location=http://h/x?token=y", "disk_format=raw", "--dry-run")
    assert plan.status == 0
    assert '"name": "x"' in plan.out
    assert '"url": "http://h/x?token=y"' in plan.out
