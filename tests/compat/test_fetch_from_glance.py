"""`headrace fetch`, with a real Glance 33 as the image service."""

import json
import os
import socket
from pathlib import Path

import pytest

from benchmarks import glance
from tests.cli.conftest import run
from tests.needs import require_environment

pytestmark = pytest.mark.long  # a Glance of its own

MIB = 1 << 20


def test_an_image_of_a_glance_is_fetched_resumed_and_had_without_it(tmp_path: Path) -> None:
    require_environment(".venv-glance")
    data, target = tmp_path / "data", tmp_path / "disk"
    data.write_bytes(os.urandom(3 * MIB + 1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    glance.prepare(tmp_path / "glance", port)
    with glance.serving(tmp_path / "glance") as service:
        env = {"HEADRACE_URL": service.url, "HEADRACE_CACHE_DIR": str(tmp_path / "cache")}
        image_id = run("add", f"path={data}", env=env).image_id
        assert run("fetch", image_id, env=env).status == 0
        # As a killed fetch would have left it.
        assert run("fetched", "delete", image_id, env=env).status == 0
        left = tmp_path / "cache" / "incomplete" / image_id
        left.write_bytes(data.read_bytes()[:MIB])
        left.chmod(0o600)
        done = run("--json", "fetch", image_id, "--to", target, env=env)
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert (told["resumed"], told["verified"]) == (MIB, "sha512")
    assert target.read_bytes() == data.read_bytes()
    again = run("fetch", image_id, "--to", target, "--force", env=env)
    assert again.status == 0
    assert "cannot reach" in again.err
