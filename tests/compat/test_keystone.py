"""OpenStack's clients, told of a real Keystone and nothing else: its catalog has the service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import PROGRAMS, Clients, Finished
from tools.keystone import PASSWORD, REGION, Keystone
from tools.serving import Serving, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("server"), env=keystone.env()) as running:
        keystone.register(running.url)
        yield running


def cloud(keystone: Keystone, user: str = "member") -> dict[str, str]:
    """What a user of the project ``demo`` has in his environment."""
    return {
        "OS_AUTH_URL": keystone.url,
        "OS_IDENTITY_API_VERSION": "3",
        "OS_REGION_NAME": REGION,
        "OS_USERNAME": user,
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "demo",
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
    }


def answer(done: Finished) -> Any:
    assert done.status == 0, done.stderr
    return json.loads(done.text)


def test_openstack(
    clients: Clients, server: Serving, keystone: Keystone, image_file: Path, tmp_path: Path
) -> None:
    def image(*words: str | Path, user: str = "member") -> Finished:
        return clients.run("openstack", "image", *words, env=cloud(keystone, user))

    made = answer(
        image("create", "osc", "--file", image_file, "--disk-format", "raw", "-f", "json")
    )
    assert (made["status"], made["owner"]) == ("active", keystone.ids["demo"])
    listed = answer(image("list", "-f", "json", user="reader"))
    assert [each["ID"] for each in listed] == [made["id"]]
    target = tmp_path / "down"
    assert image("save", made["id"], "--file", target).status == 0
    assert target.read_bytes() == image_file.read_bytes()
    refused = image("delete", made["id"], user="reader")
    assert (refused.status, "403" in refused.stderr) == (1, True)
    assert image("delete", made["id"]).status == 0


def test_glance(
    clients: Clients, server: Serving, keystone: Keystone, image_file: Path, tmp_path: Path
) -> None:
    def glance(*words: str | Path) -> Finished:
        return clients.run("glance", *words, env=cloud(keystone))

    words = ("--name", "by glance", "--disk-format", "raw", "--container-format", "bare")
    assert glance("image-create", *words, "--file", image_file).status == 0
    (line,) = (line for line in glance("image-list").text.splitlines() if "by glance" in line)
    image_id = line.split()[1]
    target = tmp_path / "down"
    assert glance("image-download", image_id, "--file", target).status == 0
    assert target.read_bytes() == image_file.read_bytes()
    assert glance("image-delete", image_id).status == 0


def test_libraries(clients: Clients, server: Serving, keystone: Keystone, image_file: Path) -> None:
    done = clients.run("python", PROGRAMS / "with_keystone.py", image_file, env=cloud(keystone))
    assert done.status == 0, done.stderr
