"""A service whose images are in a Swift, and in a directory besides."""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.cli.conftest import run
from tests.deploy.beside import added, call, downloaded, lives, settings, told
from tests.faults.service import wait_until
from tools.serving import Serving, serving
from tools.swift import KEY, USER, Swift

pytestmark = pytest.mark.slow

MIB = 1 << 20
DATA = os.urandom(5 * MIB + 1234)


@contextlib.contextmanager
def service(swift: Swift, directory: Path, **more: object) -> Iterator[Serving]:
    """A service of that directory, and of the container of that name."""
    env = {
        **settings("cold", "swift", directory),
        **swift.env("cold", directory.name, swift_store_large_object_chunk_size=1, **more),
    }
    with serving(directory, env=env) as running:
        yield running


@pytest.fixture(scope="module")
def server(swift: Swift, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with service(swift, tmp_path_factory.mktemp("images")) as running:
        yield running


@pytest.fixture
def container(server: Serving) -> str:
    return server.state_dir.name


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "image.img"
    path.write_bytes(DATA)
    return path


def queued(server: Serving) -> str:
    """The id of an image without data."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        record = json.dumps({"disk_format": "raw", "container_format": "bare"})
        connection.request("POST", "/v2/images", record, {"Content-Type": "application/json"})
        return str(json.loads(connection.getresponse().read())["id"])


def begin_upload(sock: socket.socket, image_id: str) -> None:
    """Send the beginning of an image's data."""
    head = (
        f"PUT /v2/images/{image_id}/file HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {99 * MIB}\r\n\r\n"
    )
    sock.sendall(head.encode() + DATA)


def shown(server: Serving, image_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(call(server, "show", image_id, "--json").out)
    return found


def objects(swift: Swift, container: str, image_id: str) -> list[str]:
    return [name for name in swift.names(container) if name.startswith(image_id)]


def test_the_life_of_an_image(server: Serving, swift: Swift, container: str, file: Path) -> None:
    image_id = added(server, f"path={file}")
    assert len(objects(swift, container, image_id)) == 1 + 6
    record = shown(server, image_id)
    assert record["direct_url"] == f"swift+config://ref1/{container}/{image_id}"
    assert (record["stores"], record["size"]) == ("cold", len(DATA))
    lives(server, image_id, DATA, "cold", lambda: objects(swift, container, image_id))


def test_the_one_store_of_a_service_becomes_swift(swift: Swift, tmp_path: Path, file: Path) -> None:
    """Without enabled_backends, as an older Glance is told: what was in a directory is read on."""
    shows = {"OS_DEFAULT__SHOW_MULTIPLE_LOCATIONS": "true"}
    with serving(tmp_path / "state", env=shows) as before:
        old = added(before, f"path={file}")
    env = {
        **shows,
        "OS_GLANCE_STORE__STORES": "file,swift",
        "OS_GLANCE_STORE__DEFAULT_STORE": "swift",
        **swift.env("glance_store", tmp_path.name, swift_store_large_object_chunk_size=1),
    }
    with serving(tmp_path / "state", env=env) as after:
        new = added(after, f"path={file}")
        assert len(objects(swift, tmp_path.name, new)) == 1 + 6
        assert shown(after, new)["locations"] == [
            {"url": f"swift+config://ref1/{tmp_path.name}/{new}", "metadata": {}}
        ]
        assert "stores" not in shown(after, new)
        for image_id in (old, new):
            assert downloaded(after, image_id) == DATA
            call(after, "delete", "--force", image_id)
        assert objects(swift, tmp_path.name, new) == []
        assert os.listdir(tmp_path / "state" / "images") == []


def test_what_nginx_left_for_swift_is_swept(swift: Swift, tmp_path: Path) -> None:
    """Bodies that it received to files, and died."""
    left = tmp_path / "state" / "images" / ".headrace-uploads" / "0000000001"
    left.parent.mkdir(parents=True)
    left.parent.chmod(0o700)
    left.write_bytes(DATA)
    left.chmod(0o600)
    env = {
        "OS_GLANCE_STORE__DEFAULT_STORE": "swift",
        "OS_HEADRACE__UPLOAD_OFFLOAD": "true",
        **swift.env("glance_store", tmp_path.name),
    }
    with serving(tmp_path / "state", env=env):
        wait_until(lambda: not left.exists(), "the sweep")


def test_an_image_whose_size_nobody_knows(server: Serving, swift: Swift, container: str) -> None:
    image_id = added(server, stdin=DATA)
    assert downloaded(server, image_id) == DATA
    assert len(objects(swift, container, image_id)) == 1 + 6
    call(server, "delete", "--force", image_id)


def test_an_import_into_swift(server: Serving, swift: Swift, container: str, file: Path) -> None:
    image_id = queued(server)
    call(server, "import", image_id, f"path={file}")
    assert downloaded(server, image_id) == DATA
    call(server, "delete", "--force", image_id)
    assert objects(swift, container, image_id) == []


def test_what_is_refused_leaves_nothing(server: Serving, swift: Swift, container: str) -> None:
    refused = run(
        "add", "name=image", "disk_format=qcow2", "container_format=bare", stdin=DATA,
        env={"HEADRACE_URL": server.url},
    )  # fmt: skip
    assert refused.status != 0
    assert swift.names(container) == []


def test_nobody_names_a_location_in_it(server: Serving, swift: Swift) -> None:
    """OSSA-2014-041, OSSA-2015-002."""
    for url in (
        f"swift+config://ref1/{server.state_dir.name}/0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b",
        f"swift+http://a:b@127.0.0.1:{swift.port}/auth/v1.0/c/0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b",
    ):
        refused = run(
            "add", "name=image", "disk_format=raw", "container_format=bare", f"location={url}",
            env={"HEADRACE_URL": server.url},
        )  # fmt: skip
        assert refused.status != 0
        assert "a:b" not in refused.err
    assert "a:b" not in server.log.read_text()


def test_keys_and_tokens_are_told_nowhere(swift: Swift, tmp_path: Path, file: Path) -> None:
    """OSSA-2013-002, OSSA-2014-004; and locations that a Glance wrote hold keys."""
    login = f"{quote(USER)}:{quote(KEY)}@{swift.auth_url.removeprefix('http://')}"
    with service(swift, tmp_path / "secret") as server:
        image_id = added(server, f"path={file}")
        location = f"swift+http://{login}/secret/{image_id}"
        everything = told(server, image_id, DATA, location, lambda: swift.empty("secret"))
    assert image_id in everything
    for secret in (KEY, quote(KEY), quote(KEY, safe=""), swift.token()[1]):
        assert secret not in everything
    assert "AUTH_tk" not in everything


def test_a_swift_that_is_away_keeps_the_service_from_nothing_else(
    swift: Swift, tmp_path: Path, file: Path
) -> None:
    directory = tmp_path / "away"
    with service(swift, directory) as server:
        image_id = added(server, f"path={file}", "--store", "near")
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            begin_upload(sock, queued(server))
            wait_until(lambda: len(swift.names("away")) >= 4)
            server.kill()
    with service(swift, directory, swift_store_auth_address="http://127.0.0.1:1/v1") as server:
        assert downloaded(server, image_id) == DATA
        refused = run(
            "add", "name=image", "disk_format=raw", "container_format=bare", f"path={file}",
            env={"HEADRACE_URL": server.url},
        )  # fmt: skip
        assert "store cold does not answer (ConnectionRefusedError)" in refused.err
    swift.empty("away")


def test_what_a_killed_service_had_begun_is_removed_by_the_next(
    swift: Swift, tmp_path: Path
) -> None:
    directory = tmp_path / "killed"
    with service(swift, directory) as server:
        image_id = queued(server)
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            begin_upload(sock, image_id)
            wait_until(lambda: len(swift.names("killed")) >= 4)
            server.kill()
    assert swift.names("killed") != []
    with service(swift, directory) as server:
        wait_until(lambda: swift.names("killed") == [])
        assert shown(server, image_id)["status"] == "queued"
