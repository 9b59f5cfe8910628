"""Glance 33 and Headrace on one database, one image directory and one glance-api.conf.

Side by side, and one after the other, whoever began.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.db import schema
from headrace.db.engine import connect
from tests.cli.conftest import run
from tests.compat.peer import Peer
from tests.conftest import NewDatabase, Serve
from tests.deploy.wire import Answer, Wire
from tests.faults.service import BLOCK, Service, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATCH = "Content-Type: application/openstack-images-v2.1-json-patch"
OCTETS = "Content-Type: application/octet-stream"
# What a Glance adds to an image according to its settings, or of its own stores.
NOT_COMPARED = {"stores", "direct_url", "locations"}


@pytest.fixture(params=["sqlite", "mariadb"])
def peer(request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path) -> Peer:
    return Peer(tmp_path / "glance", new_database(request.param))


class Door:
    """A deployment with a Glance, a Headrace, or both in front of it."""

    def __init__(self, peer: Peer, serve: Serve, state_dir: Path) -> None:
        self.peer = peer
        self._serve = serve
        self._state_dir = state_dir

    @contextmanager
    def headrace(self) -> Iterator[Service]:
        service = Service(
            self._serve("--config-file", str(self.peer.conf), state_dir=self._state_dir)
        )
        yield service
        assert service.server.stop() == 0

    def run(self, *words: str) -> str:
        """What ``headrace …`` writes, given the settings; it must succeed."""
        done = run(*words, "--config-file", self.peer.conf, "--state-dir", self._state_dir)
        assert done.status == 0, done.err
        return done.out


@pytest.fixture
def door(peer: Peer, serve: Serve, tmp_path: Path) -> Door:
    return Door(peer, serve, tmp_path / "state")


def patch(service: Service, image_id: str, *changes: dict[str, object]) -> Any:
    answer = service.request(
        "PATCH", f"/v2/images/{image_id}", PATCH, body=json.dumps(changes).encode()
    )
    assert answer.status == 200, answer.body
    return answer.json


def seen(service: Service) -> dict[str, dict[str, Any]]:
    """Every image as a client sees it, in an order of its own making."""
    return {image_id: _comparable(image) for image_id, image in service.images().items()}


def _comparable(image: dict[str, Any]) -> dict[str, Any]:
    compared = {name: value for name, value in image.items() if name not in NOT_COMPARED}
    return {**compared, "tags": sorted(image["tags"])}


def data(service: Service, image_id: str) -> bytes:
    answer = service.request("GET", f"/v2/images/{image_id}/file")
    assert answer.status == 200, answer.body
    return answer.body


def status(service: Service, image_id: str) -> int:
    return service.request("GET", f"/v2/images/{image_id}").status


def furnish(glance: Service, peer: Peer) -> dict[str, bytes]:
    """Images in all states that a Glance's life leaves; the data of those that have any."""
    held = {}
    for number in range(3):
        content = os.urandom(70_000 + number)
        image_id = glance.active(
            content, name=f"glance-{number}", tags=["kept", "gone"], kept="1", gone="2",
            os_distro="debian", min_ram=number, visibility=("shared", "private", "public")[number],
        )  # fmt: skip
        patch(
            glance, image_id, {"op": "remove", "path": "/gone"},
            {"op": "replace", "path": "/tags", "value": ["kept", "new"]},
        )  # fmt: skip
        held[image_id] = content
    shared = next(iter(held))
    member = glance.request("POST", f"/v2/images/{shared}/members", body=b'{"member": "other"}')
    assert member.status == 200, member.body
    glance.create(name="queued", protected=True)
    glance.delete(glance.active(b"deleted", name="deleted", tags=["t"], p="q"))
    add_task(peer, shared)
    return held


def add_task(peer: Peer, image_id: str) -> None:
    """A task as an import leaves it."""
    database = connect(peer.database)
    with database.write() as connection:
        now = datetime(2026, 1, 2)
        task = {
            "id": "task-1", "type": "api_image_import", "status": "success", "owner": "mine",
            "image_id": image_id, "created_at": now, "updated_at": now, "deleted": False,
        }  # fmt: skip
        connection.execute(sa.insert(schema.tasks), task)
        connection.execute(sa.insert(schema.task_info), {"task_id": "task-1", "input": "{}"})
    database.close()


def check_changes(one: Service, other: Service) -> None:
    """What is done at one is so at the other, for every kind of change."""
    content = os.urandom(300_000)
    image_id = one.active(content, name="made", tags=["a", "b"], key="1", other="x")
    assert _comparable(other.show(image_id)) == _comparable(one.show(image_id))
    assert data(other, image_id) == content
    patch(
        other, image_id, {"op": "remove", "path": "/key"},
        {"op": "replace", "path": "/name", "value": "renamed"},
        {"op": "replace", "path": "/tags", "value": ["b", "c"]},
    )  # fmt: skip
    assert _comparable(other.show(image_id)) == _comparable(one.show(image_id))
    again = patch(one, image_id, {"op": "add", "path": "/key", "value": "2"})
    assert (again["key"], again["name"], sorted(again["tags"])) == ("2", "renamed", ["b", "c"])
    assert _comparable(other.show(image_id)) == _comparable(again)
    other.delete(image_id)
    assert status(one, image_id) == 404
    taken = {"id": image_id, "disk_format": "raw", "container_format": "bare"}
    for service in (one, other):
        answer = service.request("POST", "/v2/images", body=json.dumps(taken).encode())
        assert answer.status == 409, "the id of a deleted image is taken again"

    later = one.create(name="later")
    assert other.upload(later, content).status == 204
    assert data(one, later) == content
    assert one.upload(later, content).status == 409


def check_upload_excludes(one: Service, other: Service) -> None:
    """While one uploads to an image, the other does not."""
    image_id = one.create(name="both")
    with one.connect() as wire:
        begin(wire, image_id, 3 * BLOCK)
        wait_until(lambda: other.status(image_id) == "saving", "the upload's beginning")
        assert other.upload(image_id, b"late").status == 409
        wire.send(bytes(BLOCK))
        assert finish(wire).status == 204
    assert data(other, image_id) == bytes(3 * BLOCK)


def begin(wire: Wire, image_id: str, length: int) -> None:
    fields = (OCTETS, f"Content-Length: {length}")
    wire.send(wire.head("PUT", f"/v2/images/{image_id}/file", *fields), bytes(length - BLOCK))


def finish(wire: Wire) -> Answer:
    return wire.answer("PUT")


def test_glance_and_headrace_side_by_side(door: Door) -> None:
    """A Glance's deployment gets a Headrace beside it, and is handed back."""
    peer = door.peer
    peer.manage("db", "sync")
    with peer.serving() as glance:
        held = furnish(glance, peer)
        with door.headrace() as headrace:
            assert seen(headrace) == seen(glance)
            for image_id, content in held.items():
                assert data(headrace, image_id) == content
            members = f"/v2/images/{next(iter(held))}/members"
            assert glance.request("GET", members).json["members"][0]["member_id"] == "other"
            for one, other in ((headrace, glance), (glance, headrace)):
                check_changes(one, other)
                check_upload_excludes(one, other)
            assert seen(headrace) == seen(glance)
            log = headrace.server.log.read_text()
        check_complaints(log)
        check_store(door, "store", "check", "--verify")
        expected = seen(glance)
        door.run("db", "hand-back", "--force")
        assert "up to date" in peer.manage("db", "check")
        assert seen(glance) == expected
        made = glance.active(b"alone", name="alone")
        assert data(glance, made) == b"alone"
        for image_id, content in held.items():
            assert data(glance, image_id) == content
            glance.delete(image_id)
        active = {key for key, image in glance.images().items() if image["status"] == "active"}
        assert peer.files == active


def test_a_deployment_that_headrace_began_is_handed_to_glance(door: Door) -> None:
    peer = door.peer
    door.run("db", "sync")
    with door.headrace() as headrace:
        held = {}
        for number in range(3):
            content = os.urandom(70_000 + number)
            image_id = headrace.active(content, name=f"headrace-{number}", tags=["a"], p="1")
            patch(headrace, image_id, {"op": "remove", "path": "/p"})
            held[image_id] = content
        headrace.delete(headrace.active(b"deleted"))
        headrace.create(name="queued")
        expected = seen(headrace)
    door.run("db", "hand-back", "--force")
    assert "up to date" in peer.manage("db", "check")
    peer.manage("db", "sync")
    with peer.serving() as glance:
        assert seen(glance) == expected
        for image_id, content in held.items():
            assert data(glance, image_id) == content
        first = next(iter(held))
        patch(glance, first, {"op": "add", "path": "/p", "value": "2"})
        glance.delete(glance.active(b"glance's"))
        glance.delete(next(reversed(held)))
        expected = seen(glance)
    with door.headrace() as headrace:
        assert seen(headrace) == expected
        assert data(headrace, first) == held[first]
        door.run("db", "purge", "--age", "0")
        assert seen(headrace) == expected
    check_store(door, "store", "check", "--verify")


def check_complaints(log: str) -> None:
    """What the settings ask of a Glance only is told once each, and nothing secret with it."""
    lines = [line for line in log.splitlines() if "headrace.config" in line]
    for words in ("[DEFAULT] transport_url", "[DEFAULT] log_file", "[database] max_retries",
                  "[keystone_authtoken]", "[oslo_messaging_notifications]", "[oslo_policy]",
                  "[paste_deploy]"):  # fmt: skip
        assert len([line for line in lines if words in line]) == 1, words
    assert "s3cret" not in log


def check_store(door: Door, *words: str) -> None:
    found = json.loads(door.run(*words, "--json"))
    assert found["faults"] == []
    assert found["checked"]["hashed_bytes"] > 0
