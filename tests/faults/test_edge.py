"""A service whose store is another one: an edge of a centre that asks for who it is."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.accounts import write_accounts
from tests.deploy.wire import Answer
from tests.faults.conftest import Start
from tests.faults.service import Service, wait_until

OCTETS = "Content-Type: application/octet-stream"
DATA = os.urandom(3 << 20)


ROOT = "Authorization: Basic cm9vdDpyb290LXNlY3JldA=="


def request(service: Service, method: str, path: str, body: object = None) -> Answer:
    """A request of the centre's administrator, which may be anybody's at the edge."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = OCTETS if isinstance(body, bytes) else "Content-Type: application/json"
    return service.request(method, path, kind, ROOT, body=data)


@dataclass
class Relay:
    """Between edge and centre; cuts the next answers after so many bytes."""

    port: int
    cut: list[int]
    heads: list[bytes]


@contextlib.contextmanager
def relayed(port: int) -> Iterator[Relay]:
    def carry(near: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            near,
            socket.create_connection(("127.0.0.1", port)) as far,
        ):
            head = near.recv(65536)
            relay.heads.append(head)
            far.sendall(head)
            left = relay.cut.pop(0) if relay.cut else None
            while data := far.recv(65536):
                if left is not None and left < len(data):
                    return
                near.sendall(data)
                left = None if left is None else left - len(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=carry, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = Relay(listener.getsockname()[1], [], [])
        threading.Thread(target=accept, daemon=True).start()
        yield relay
        listener.shutdown(socket.SHUT_RDWR)


@dataclass
class Edge:
    centre: Service
    edge: Service
    relay: Relay
    image_id: str
    has_own_record: bool

    @property
    def path(self) -> str:
        return f"/v2/images/{self.image_id}/file"


@pytest.fixture(params=["shared", "own"])
def edge(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> Iterator[Edge]:
    """An edge whose database is the centre's, and one with a record of its own."""
    write_accounts(tmp_path / "users", ("root", "p", "admin"), ("edge", "p", "member"))
    auth = {
        "OS_HEADRACE__AUTH_STRATEGY": "http_basic",
        "OS_HEADRACE__HTTP_BASIC_AUTH_USER_FILE": str(tmp_path / "users"),
    }
    centre = start(state_dir=tmp_path / "centre", env=auth)
    clouds = {
        "centre": {
            "auth_type": "http_basic",
            "auth": {"username": "edge", "password": "edge-secret"},
        }
    }
    (tmp_path / "clouds.yaml").write_text(json.dumps({"clouds": clouds}))
    with relayed(centre.server.port) as relay:
        env = auth | {
            "OS_CLIENT_CONFIG_FILE": str(tmp_path / "clouds.yaml"),
            "OS_DEFAULT__ENABLED_BACKENDS": "near:file,centre:imageapi",
            "OS_GLANCE_STORE__DEFAULT_BACKEND": "near",
            "OS_NEAR__FILESYSTEM_STORE_DATADIR": str(tmp_path / "near"),
            "OS_CENTRE__IMAGEAPI_ENDPOINT": f"http://127.0.0.1:{relay.port}",
            "OS_CENTRE__IMAGEAPI_CLOUD": "centre",
        }
        if request.param == "shared":
            env |= {
                "OS_DATABASE__CONNECTION": f"sqlite:///{tmp_path}/centre/headrace.db",
                "OS_CENTRE__IMAGEAPI_STANDS_FOR": f"file://{tmp_path}/centre/images",
            }
        service = start(state_dir=tmp_path / "edge", env=env)
        own = request.param == "own"
        yield Edge(centre, service, relay, prepare(centre, service, own=own), own)


def prepare(centre: Service, edge: Service, *, own: bool) -> str:
    """An active image at the centre, that the edge knows; its id."""
    record = {"disk_format": "raw", "container_format": "bare", "visibility": "public"}
    image_id = str(request(centre, "POST", "/v2/images", record).json["id"])
    assert request(centre, "PUT", f"/v2/images/{image_id}/file", DATA).status == 204
    if own:
        made = request(edge, "POST", "/v2/images", {**record, "id": image_id})
        assert made.status == 201, made.body
        named = {"url": f"imageapi://{image_id}"}
        answer = request(edge, "POST", f"/v2/images/{image_id}/locations", named)
        assert answer.status == 202, answer.body
        path = f"/v2/images/{image_id}"
        wait_until(lambda: request(edge, "GET", path).json["status"] == "active", "the check")
        wait_until(lambda: request(edge, "GET", path).json["os_hash_value"], "the hash")
    return image_id


def test_what_the_centre_has_the_edge_has(edge: Edge) -> None:
    answer = edge.edge.request("GET", edge.path, ROOT)
    assert (answer.status, answer.body) == (200, DATA)
    part = edge.edge.request("GET", edge.path, ROOT, "Range: bytes=1000-200999")
    assert (part.status, part.body) == (206, DATA[1000:201000])

    edge.relay.heads.clear()
    edge.relay.cut[:] = [1 << 20, 100, 5000]
    answer = edge.edge.request("GET", edge.path, ROOT)
    assert (answer.status, answer.body) == (200, DATA), "what breaks off is asked for from there"
    assert [b"Range: bytes=" in head for head in edge.relay.heads] == [False, True, True, True]

    if edge.has_own_record:
        assert request(edge.edge, "DELETE", f"/v2/images/{edge.image_id}").status == 204
    assert edge.centre.request("GET", edge.path, ROOT).body == DATA
    assert "edge-secret" not in edge.edge.server.log.read_text()


def test_what_the_centre_refuses_or_cannot_send_nobody_gets(edge: Edge) -> None:
    path = f"/v2/images/{edge.image_id}/actions"
    assert request(edge.centre, "POST", f"{path}/deactivate").status == 204
    answer = edge.edge.request("GET", edge.path, ROOT)
    assert (answer.status, DATA[:100] in answer.body) == (503, False)
    assert request(edge.centre, "POST", f"{path}/reactivate").status == 204

    edge.centre.server.stop()
    answer = edge.edge.request("GET", edge.path, ROOT)
    assert answer.status == 503
    assert str(edge.relay.port).encode() not in answer.body


def test_only_administrators_name_its_images(start: Start, tmp_path: Path) -> None:
    write_accounts(tmp_path / "users", ("root", "p", "admin"), ("user", "q", "member"))
    service = start(
        env={
            "OS_HEADRACE__AUTH_STRATEGY": "http_basic",
            "OS_HEADRACE__HTTP_BASIC_AUTH_USER_FILE": str(tmp_path / "users"),
            "OS_DEFAULT__ENABLED_BACKENDS": "near:file,centre:imageapi",
            "OS_GLANCE_STORE__DEFAULT_BACKEND": "near",
            "OS_NEAR__FILESYSTEM_STORE_DATADIR": str(tmp_path / "near"),
            "OS_CENTRE__IMAGEAPI_ENDPOINT": "http://127.0.0.1:1",
        }
    )
    user = "Authorization: Basic dXNlcjp1c2VyLXNlY3JldA=="
    record = {"disk_format": "raw", "container_format": "bare"}
    made = service.request(
        "POST", "/v2/images", "Content-Type: application/json", user,
        body=json.dumps(record).encode(),
    )  # fmt: skip
    image_id = made.json["id"]
    named = json.dumps({"url": f"imageapi://{image_id}"}).encode()
    answer = service.request(
        "POST", f"/v2/images/{image_id}/locations", "Content-Type: application/json", user,
        body=named,
    )  # fmt: skip
    assert answer.status in (400, 403)
