"""The command `openstack` (python-openstackclient) on a running server."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.compat.conftest import Clients, Finished
from tests.compat.identity import identity
from tools.serving import Serving

pytestmark = pytest.mark.slow

Run = Callable[..., Finished]


@pytest.fixture
def image(clients: Clients, server: Serving) -> Run:
    """``openstack image …``"""
    endpoint = ("--os-auth-type", "none", "--os-endpoint", server.url)
    return lambda *words: clients.run("openstack", *endpoint, "image", *words)


def answer(done: Finished) -> Any:
    assert done.status == 0, done.stderr
    return json.loads(done.text)


def test_round_trip(image: Run, image_file: Path, tmp_path: Path) -> None:
    data = image_file.read_bytes()
    made = answer(
        image(
            "create", "osc", "--file", image_file, "--disk-format", "raw", "--tag", "a",
            "--property", "note=x", "--property", "other=y", "--min-ram", "512", "-f", "json",
        )
    )  # fmt: skip
    image_id = made["id"]
    assert (made["status"], made["size"], made["min_ram"]) == ("active", len(data), 512)
    assert (made["properties"]["note"], made["tags"]) == ("x", ["a"])

    listed = answer(image("list", "--long", "--property", "note=x", "-f", "json"))
    assert [(each["ID"], each["Size"], each["Status"]) for each in listed] == [
        (image_id, len(data), "active")
    ]

    changes = ("--name", "renamed", "--property", "note=z", "--tag", "b", "--protected")
    assert image("set", image_id, *changes).status == 0
    shown = answer(image("show", "renamed", "-f", "json"))
    assert (shown["properties"]["note"], sorted(shown["tags"])) == ("z", ["a", "b"])
    refused = image("delete", image_id)
    assert (refused.status, "403" in refused.stderr) == (1, True)

    assert image("unset", image_id, "--property", "other").status == 0
    assert "other" not in answer(image("show", image_id, "-f", "json"))["properties"]

    target = tmp_path / "down"
    assert image("save", image_id, "--file", target).status == 0
    assert target.read_bytes() == data

    assert image("set", image_id, "--unprotected").status == 0
    assert image("delete", image_id).status == 0
    gone = image("show", image_id)
    assert (gone.status, "No Image found" in gone.stderr) == (1, True)


def test_tags_and_actions(image: Run, image_file: Path) -> None:
    made = image("create", "tags", "--file", image_file, "--disk-format", "raw", "-f", "json")
    image_id = answer(made)["id"]
    assert image("set", image_id, "--tag", "a", "--tag", "b").status == 0
    assert image("unset", image_id, "--tag", "a").status == 0
    assert answer(image("show", image_id, "-f", "json"))["tags"] == ["b"]
    assert answer(image("list", "--tag", "b", "-f", "json"))[0]["ID"] == image_id

    assert image("set", image_id, "--deactivate").status == 0
    assert answer(image("show", image_id, "-f", "json"))["status"] == "deactivated"
    assert image("set", image_id, "--activate").status == 0
    assert answer(image("show", image_id, "-f", "json"))["status"] == "active"

    assert image("set", image_id, "--hidden", "--community").status == 0
    shown = answer(image("show", image_id, "-f", "json"))
    assert (shown["properties"]["os_hidden"], shown["visibility"]) == (True, "community")
    assert answer(image("list", "--hidden", "--community", "-f", "json"))[0]["ID"] == image_id
    assert image("set", image_id, "--unhidden", "--private").status == 0
    assert image("delete", image_id).status == 0


@pytest.fixture
def image_of_cloud(clients: Clients, server: Serving, tmp_path: Path) -> Iterator[Run]:
    """``openstack image …`` where there is an identity service, too."""
    with identity() as url:
        cloud = {
            "auth_type": "none",
            "auth": {"endpoint": server.url},
            "identity_api_version": "3",
            "identity_endpoint_override": url,
        }
        config = tmp_path / "clouds.json"
        config.write_text(json.dumps({"clouds": {"alone": cloud}}))
        env = {"OS_CLIENT_CONFIG_FILE": str(config)}
        yield lambda *words: clients.run(
            "openstack", "--os-cloud", "alone", "image", *words, env=env
        )


def test_members(image_of_cloud: Run) -> None:
    image = image_of_cloud
    image_id = answer(image("create", "members", "-f", "json"))["id"]
    made = answer(image("add", "project", image_id, "yours", "-f", "json"))
    assert (made["image_id"], made["member_id"], made["status"]) == (image_id, "yours", "pending")
    for word, status in (
        ("--accept", "accepted"),
        ("--reject", "rejected"),
        ("--pending", "pending"),
    ):
        assert image("set", image_id, word, "--project", "yours").status == 0
        listed = answer(image("member", "list", image_id, "-f", "json"))
        assert [(each["Member ID"], each["Status"]) for each in listed] == [("yours", status)]
    assert answer(image("member", "get", image_id, "yours", "-f", "json"))["status"] == "pending"
    shared = answer(image("list", "--shared", "--member-status", "all", "-f", "json"))
    assert image_id in {each["ID"] for each in shared}
    again = image("add", "project", image_id, "yours")
    assert (again.status, "409" in again.stderr) == (1, True)
    assert image("remove", "project", image_id, "yours").status == 0
    assert answer(image("member", "list", image_id, "-f", "json")) == []
    assert image("delete", image_id).status == 0


def test_stores(clients: Clients, several: Serving) -> None:
    endpoint = ("--os-auth-type", "none", "--os-endpoint", several.url)
    listed = answer(clients.run("openstack", *endpoint, "image", "stores", "list", "-f", "json"))
    assert [each["ID"] for each in listed] == ["fast", "cheap", "web"]


def test_imports(image: Run, server: Serving, image_file: Path) -> None:
    # `image create` takes what is no terminal for data, and there is no terminal here.
    record = {"name": "imported", "disk_format": "raw", "container_format": "bare"}
    with urlopen(f"{server.url}/v2/images", json.dumps(record).encode()) as made:
        image_id = json.load(made)["id"]
    assert image("stage", image_id, "--file", image_file).status == 0
    assert answer(image("show", image_id, "-f", "json"))["status"] == "uploading"
    told = image("import", image_id, "--method", "glance-direct", "-f", "json")
    assert told.status == 0, told.stderr
    deadline = time.monotonic() + 60  # a hang guard
    while answer(image("show", image_id, "-f", "json"))["status"] != "active":
        assert time.monotonic() < deadline
    assert "glance-direct" in image("import", "info").text
    task = answer(image("task", "list", "-f", "json"))[0]
    assert task["Type"] == "api_image_import"
    assert answer(image("task", "show", task["ID"], "-f", "json"))["status"] == "success"
