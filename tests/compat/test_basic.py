"""OpenStack's clients on a server that asks for names and passwords: auth_type http_basic."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import write_accounts
from tests.cli.conftest import run
from tests.compat.conftest import Clients
from tools.serving import Serving, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("guarded")
    users = (("alice", "mine", "member"), ("rita", "mine", "reader"))
    write_accounts(directory / "htpasswd", *users)
    with serving(directory, "--auth", "http_basic") as server:
        yield server


def test_openstack(clients: Clients, guarded: Serving, image_file: Path, tmp_path: Path) -> None:
    env = {
        "OS_AUTH_TYPE": "http_basic",
        "OS_ENDPOINT": f"{guarded.url}/v2",
        "OS_USERNAME": "alice",
    }
    right = env | {"OS_PASSWORD": "alice-secret"}
    words = ("openstack", "image", "create", "osc", "--file", image_file, "-f", "json")
    made = clients.run(*words, env=right)
    assert made.status == 0, made.stderr
    image = json.loads(made.text)
    assert (image["status"], image["owner"]) == ("active", "mine")
    target = tmp_path / "down"
    saved = clients.run("openstack", "image", "save", image["id"], "--file", target, env=right)
    assert saved.status == 0, saved.stderr
    assert target.read_bytes() == image_file.read_bytes()
    wrong = clients.run("openstack", "image", "list", env=env | {"OS_PASSWORD": "wrong"})
    assert (wrong.status != 0, "401" in wrong.stderr) == (True, True), wrong.stderr
    same = run("index", env=right)
    assert (same.status, image["id"] in same.out) == (0, True), same.err


def test_openstacksdk(clients: Clients, guarded: Serving, image_file: Path, tmp_path: Path) -> None:
    clients.call("basic.py", "openstacksdk", guarded.url, image_file, tmp_path / "down")


def test_glanceclient(clients: Clients, guarded: Serving, image_file: Path) -> None:
    clients.call("basic.py", "glance", guarded.url, image_file)
