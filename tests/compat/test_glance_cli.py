"""The command `glance` of python-glanceclient on a running server.

Its --os-auth-type none does not work in 4.13: it asks for a user name all the same.  With a token
it asks for nothing else, and without authentication the server does not look at it.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.compat.conftest import Clients, Finished
from tools.serving import Serving

pytestmark = pytest.mark.slow

Run = Callable[..., Finished]

RAW = ("--disk-format", "raw", "--container-format", "bare")


@pytest.fixture
def glance(clients: Clients, server: Serving) -> Run:
    endpoint = ("--os-image-url", server.url, "--os-auth-token", "none")
    return lambda *words, **how: clients.run("glance", *endpoint, *words, **how)


def fields(done: Finished) -> dict[str, str]:
    """The table that a command printed; a value of several lines is joined."""
    assert done.status == 0, done.stderr
    found: dict[str, str] = {}
    last = ""
    for name, value in re.findall(r"^\| (.*?) +\| (.*?) +\|$", done.text, re.MULTILINE):
        last = name.strip() or last
        found[last] = found.get(last, "") + value.strip()
    return found


def test_round_trip(glance: Run, image_file: Path, tmp_path: Path) -> None:
    data = image_file.read_bytes()
    made = fields(
        glance(
            "image-create", "--name", "glance", *RAW, "--file", image_file, "--progress",
            "--tags", "a", "--property", "note=x=y,z", "--min-disk", "1",
        )
    )  # fmt: skip
    image_id = made["id"]
    assert (made["status"], made["size"], made["min_disk"]) == ("active", str(len(data)), "1")
    assert (made["note"], made["tags"]) == ("x=y,z", '["a"]')

    listed = glance("image-list", "--property-filter", "note=x=y,z", "--limit", "5")
    assert list(fields(listed)) == ["ID", image_id]

    glance("image-update", image_id, "--name", "renamed", "--remove-property", "note")
    shown = fields(glance("image-show", image_id))
    assert shown["name"] == "renamed"
    assert "note" not in shown

    target = tmp_path / "down"
    assert glance("image-download", image_id, "--file", target, "--progress").status == 0
    assert target.read_bytes() == data
    assert glance("image-download", image_id).stdout == data

    assert glance("image-delete", image_id).status == 0
    gone = glance("image-show", image_id)
    assert (gone.status, "404" in gone.stderr) == (1, True)


def test_stores(clients: Clients, several: Serving, image_file: Path) -> None:
    endpoint = ("--os-image-url", several.url, "--os-auth-token", "none")

    def glance(*words: str | Path) -> Finished:
        return clients.run("glance", *endpoint, *words)

    assert "Solid state" in glance("stores-info").text
    assert "data_dir" in glance("stores-info", "--detail").text
    made = fields(
        glance("image-create", "--name", "x", *RAW, "--file", image_file, "--store", "cheap")
    )
    assert (made["status"], made["stores"]) == ("active", "cheap")
    refused = glance("image-create", *RAW, "--file", image_file, "--store", "slow")
    assert (refused.status, "slow" in refused.stderr) == (1, True)
    last = glance("stores-delete", made["id"], "--store", "cheap")
    assert (last.status, "Unable to delete" in last.stderr) == (1, True)

    registered = several.state_dir / "listed" / "glance.img"
    registered.write_bytes(image_file.read_bytes())
    assert glance("location-add", made["id"], "--url", f"file://{registered}").status == 0
    assert glance("stores-delete", made["id"], "--store", "cheap").status == 0
    shown = fields(glance("image-show", made["id"]))
    assert shown["direct_url"] == f"file://{registered}"
    assert not (several.state_dir / "cheap" / made["id"]).exists()


@pytest.fixture
def terminal() -> Iterator[int]:
    """A terminal: whatever else stdin is, the command takes it for the image's data."""
    ends = os.openpty()
    yield ends[1]
    for end in ends:
        os.close(end)


def test_upload_to_a_queued_image(glance: Run, image_file: Path, terminal: int) -> None:
    image_id = fields(glance("image-create", "--name", "later", *RAW, stdin=terminal))["id"]
    with image_file.open("rb") as file:
        assert glance("image-upload", image_id, stdin=file).status == 0
    shown = fields(glance("image-show", image_id))
    assert (shown["status"], shown["size"]) == ("active", str(image_file.stat().st_size))

    again = glance("image-upload", image_id, "--file", image_file)
    assert (again.status, "409" in again.stderr) == (1, True)
    glance("image-update", image_id, "--protected", "True")
    refused = glance("image-delete", image_id)
    assert (refused.status, "not permitted" in refused.stderr) == (1, True)


def test_explain(glance: Run) -> None:
    assert "disk_format" in glance("explain", "image").text


def rows(done: Finished) -> list[list[str]]:
    """The rows below the head of the table that a command printed."""
    assert done.status == 0, done.stderr
    lines = [line for line in done.text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_members(glance: Run, terminal: int) -> None:
    image_id = fields(glance("image-create", "--name", "members", stdin=terminal))["id"]
    assert rows(glance("member-create", image_id, "yours")) == [[image_id, "yours", "pending"]]
    assert rows(glance("member-update", image_id, "yours", "accepted")) == [
        [image_id, "yours", "accepted"]
    ]
    assert rows(glance("member-list", "--image-id", image_id)) == [[image_id, "yours", "accepted"]]
    assert fields(glance("member-get", image_id, "yours"))["status"] == "accepted"
    listed = glance("image-list", "--visibility", "shared", "--member-status", "all")
    assert image_id in fields(listed)
    assert glance("member-delete", image_id, "yours").status == 0
    again = glance("member-delete", image_id, "yours")
    assert (again.status, "404" in again.stderr) == (1, True)
    assert rows(glance("member-list", "--image-id", image_id)) == []


def test_tags_and_actions(glance: Run, image_file: Path) -> None:
    made = glance("image-create", "--name", "tags", *RAW, "--file", image_file, "--tags", "old")
    image_id = fields(made)["id"]
    assert rows(glance("image-tag-update", image_id, "new")) == [[image_id, "['new', 'old']"]]
    assert glance("image-tag-delete", image_id, "old").status == 0
    assert fields(glance("image-show", image_id))["tags"] == '["new"]'
    assert image_id in fields(glance("image-list", "--tag", "new"))

    assert glance("image-deactivate", image_id).status == 0
    assert fields(glance("image-show", image_id))["status"] == "deactivated"
    assert glance("image-reactivate", image_id).status == 0
    assert fields(glance("image-show", image_id))["status"] == "active"

    glance("image-update", image_id, "--hidden", "true")
    assert image_id not in fields(glance("image-list"))
    assert image_id in fields(glance("image-list", "--hidden", "true"))


def test_imports(glance: Run, server: Serving, image_file: Path) -> None:
    size = str(image_file.stat().st_size)
    assert '"glance-direct"' in fields(glance("import-info"))["import-methods"]
    assert glance("usage").status == 0
    # `image-create` takes what is no terminal for data, and there is no terminal here.
    record = {"disk_format": "raw", "container_format": "bare"}
    with urlopen(f"{server.url}/v2/images", json.dumps(record).encode()) as made:
        image_id = json.load(made)["id"]
    assert glance("image-stage", image_id, "--file", image_file, "--progress").status == 0
    staged = fields(glance("image-show", image_id))
    assert (staged["status"], staged["size"]) == ("uploading", size)
    assert glance("image-import", image_id, "--import-method", "glance-direct").status == 0
    active(glance, image_id)
    with image_file.open("rb") as data:
        method = ("--import-method", "glance-direct")
        created = fields(glance("image-create-via-import", *RAW, *method, stdin=data))
    active(glance, created["id"])
    assert "api_image_import" in glance("task-list").text
    with urlopen(f"{server.url}/v2/images", json.dumps(record).encode()) as made:
        other = json.load(made)["id"]
    web = ("--import-method", "web-download", "--uri", "http://169.254.169.254/")
    refused = glance("image-import", other, *web)
    assert (refused.status, "400" in refused.stderr) == (1, True)


def active(glance: Run, image_id: str) -> None:
    deadline = time.monotonic() + 60  # a hang guard
    while fields(glance("image-show", image_id))["status"] != "active":
        assert time.monotonic() < deadline
