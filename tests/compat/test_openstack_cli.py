"""The command `openstack` (python-openstackclient) on a running server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import Clients, Finished
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
