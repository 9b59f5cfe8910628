"""What a command loads: no more than it uses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tools.serving import Serving, environment

SERVER_HALF = {
    "alembic",
    "falcon",
    "gunicorn",
    "headrace.api",
    "headrace.db",
    "headrace.server",
    "headrace.service",
    "headrace.stores",
    "msgspec",
    "oslo_config",
    "oslo_utils",
    "sqlalchemy",
}
TELLING = """
import contextlib, io, json, sys
from headrace.cli.main import run
with contextlib.redirect_stdout(io.StringIO()):
    assert run(sys.argv[1:]) == 0
print(json.dumps(sorted(sys.modules)))
"""


def loaded(*words: str, env: dict[str, str] | None = None) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", TELLING, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment(env),
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("words", [["--help"], ["version"], ["completion", "zsh"]])
def test_what_asks_no_service_loads_no_http(words: list[str]) -> None:
    assert not loaded(*words) & (SERVER_HALF | {"http.client", "rich", "ssl", "headrace.client"})


def test_a_fetch_loads_nothing_of_the_server(server: Serving, tmp_path: Path) -> None:
    source = tmp_path / "image"
    source.write_bytes(b"data")
    env = {"HEADRACE_URL": server.url, "HEADRACE_CACHE_DIR": str(tmp_path / "cache")}
    image_id = run("add", f"path={source}", env=env).image_id
    found = loaded("fetch", image_id, env=env)
    assert not found & (SERVER_HALF | {"rich", "requests", "urllib.request", "yaml"})
    assert "headrace.cache.host" in found


def test_a_list_loads_neither_the_server_nor_what_draws(server: Serving) -> None:
    found = loaded("index", env={"HEADRACE_URL": server.url})
    assert not found & (
        SERVER_HALF | {"rich", "keystoneauth1", "requests", "urllib.request", "yaml"}
    )
    assert "http.client" in found
