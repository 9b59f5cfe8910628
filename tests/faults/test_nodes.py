"""Two services that share a database and an image directory, and nothing else: nodes of one."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.db import uploads
from headrace.db.engine import Database, connect
from tests.conftest import KINDS, NewDatabase
from tests.deploy.wire import Answer, Wire
from tests.faults.conftest import Start
from tests.faults.service import BLOCK, Service, wait_until
from tests.needs import require_command, require_root

OCTETS = "Content-Type: application/octet-stream"


@dataclass
class Nodes:
    near: Service
    far: Service
    database: Database

    def leases(self) -> list[str]:
        return [lease.image_id for lease in uploads.leases(self.database)]


@pytest.fixture(params=KINDS[1:])
def url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    return new_database(request.param)


@pytest.fixture
def nodes(start: Start, url: str, tmp_path: Path) -> Iterator[Nodes]:
    """Two nodes, the far one on another machine as far as it knows; that takes root."""
    elsewhere = [require_command("unshare"), "--uts", "sh", "-c", 'hostname far; exec "$@"', "sh"]
    env = {
        "OS_DATABASE__CONNECTION": url,
        "OS_GLANCE_STORE__FILESYSTEM_STORE_DATADIR": str(tmp_path / "near" / "images"),
        "OS_HEADRACE__UPLOAD_LEASE": "3",
    }
    near = start(state_dir=tmp_path / "near", env=env)
    # exec: what unshare has started becomes the server.
    under = elsewhere if os.geteuid() == 0 else ()
    far = start(state_dir=tmp_path / "far", env=env, under=under)
    far.server.under = False
    database = connect(url)
    yield Nodes(near, far, database)
    database.close()


def begin(service: Service, image_id: str, length: int) -> Wire:
    """An upload of ``length`` bytes, of which the first MiB is sent."""
    wire = service.connect()
    fields = (OCTETS, f"Content-Length: {length}")
    wire.send(wire.head("PUT", f"/v2/images/{image_id}/file", *fields), bytes(BLOCK))
    wait_until(lambda: service.status(image_id) == "saving", "the upload's beginning")
    return wire


def test_what_one_does_the_other_knows(nodes: Nodes) -> None:
    data = os.urandom(3 * BLOCK + 1)
    image_id = nodes.near.active(data, name="shared", tags=["a"], note="x")
    assert nodes.far.show(image_id) == nodes.near.show(image_id)
    assert nodes.far.request("GET", f"/v2/images/{image_id}/file").body == data
    part = nodes.far.request("GET", f"/v2/images/{image_id}/file", "Range: bytes=5-99")
    assert (part.status, part.body) == (206, data[5:100])
    later = nodes.near.create()
    assert nodes.far.upload(later, data).status == 204
    assert nodes.near.request("GET", f"/v2/images/{later}/file").body == data
    assert nodes.near.images() == nodes.far.images()
    nodes.far.delete(image_id)
    assert nodes.near.request("GET", f"/v2/images/{image_id}").status == 404
    assert nodes.near.files() == {later}


def test_one_of_two_uploads_wins(nodes: Nodes) -> None:
    bodies = [os.urandom(BLOCK), os.urandom(BLOCK)]
    for _ in range(10):
        image_id = nodes.near.create()

        def upload(service: Service, data: bytes, image_id: str = image_id) -> Answer:
            return service.upload(image_id, data)

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(upload, (nodes.near, nodes.far), bodies))
        assert sorted(answer.status for answer in answers) == [204, 409]
        winner = bodies[[answer.status for answer in answers].index(204)]
        assert nodes.far.request("GET", f"/v2/images/{image_id}/file").body == winner
    nodes.near.check_store()
    assert nodes.leases() == []


def test_an_upload_under_way_elsewhere_is_left_alone(nodes: Nodes) -> None:
    image_id = nodes.far.create()
    with begin(nodes.far, image_id, 2 * BLOCK) as wire:
        first = uploads.leases(nodes.database)[0].heartbeat
        wait_until(lambda: uploads.leases(nodes.database)[0].heartbeat > first, "a heartbeat")
        assert nodes.near.upload(image_id, b"other").status == 409
        wire.send(bytes(BLOCK))
        assert wire.answer("PUT").status == 204
    assert nodes.near.request("GET", f"/v2/images/{image_id}/file").body == bytes(2 * BLOCK)


@pytest.mark.parametrize("killed", ["near", "far"])
def test_the_upload_of_a_killed_node_is_taken_back_by_the_other(nodes: Nodes, killed: str) -> None:
    """At once on this machine, where the process is seen to be gone; elsewhere by its lease."""
    if killed == "far":
        require_root()
    victim, other = (nodes.near, nodes.far) if killed == "near" else (nodes.far, nodes.near)
    kept = victim.active(b"kept")
    image_id = victim.create()
    with begin(victim, image_id, 2 * BLOCK):
        assert nodes.leases() == [image_id]
        os.killpg(victim.server.process.pid, signal.SIGKILL)
        victim.server.process.wait(60)
    wait_until(lambda: other.status(image_id) == "queued", "taking the upload back")
    assert nodes.leases() == []
    assert nodes.near.files() == {kept}
    assert other.upload(image_id, b"again").status == 204
    assert other.request("GET", f"/v2/images/{image_id}/file").body == b"again"
    assert nodes.near.files() == {kept, image_id}
