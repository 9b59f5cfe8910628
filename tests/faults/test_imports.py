"""kill -9 in the middle of an import: no image stays in importing, nothing is left over."""

import http.server
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.service import BLOCK, GUARD, Service, leases, wait_until
from tools.serving import Serving, serving

OCTETS = "Content-Type: application/octet-stream"
HERE = {
    "OS_IMPORT_FILTERING_OPTS__ALLOWED_HOSTS": "127.0.0.1",
    "OS_IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "",
}


class Origin(http.server.BaseHTTPRequestHandler):
    """Sends without end, slowly, until ``done`` is set; then a short image."""

    going = threading.Event()
    done = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(os.urandom(BLOCK))
            self.going.set()
            while not self.done.wait(0.05):
                self.wfile.write(os.urandom(BLOCK))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[str]:
    Origin.going.clear()
    Origin.done.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/image"
    finally:
        Origin.done.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def service(directory: Path) -> Iterator[Service]:
    with serving(directory, "--workers", "2", env=HERE) as server:
        yield Service(server)


def begin(service: Service, image_id: str, **method: str) -> None:
    body = json.dumps({"method": method}).encode()
    answer = service.request("POST", f"/v2/images/{image_id}/import", body=body)
    assert answer.status == 202, answer.body


def stage(service: Service, image_id: str, data: bytes) -> None:
    answer = service.request("PUT", f"/v2/images/{image_id}/stage", OCTETS, body=data)
    assert answer.status == 204, answer.body


def tasks(service: Service, image_id: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = service.request("GET", f"/v2/images/{image_id}/tasks").json[
        "tasks"
    ]
    return found


def staged(server: Serving) -> list[str]:
    return os.listdir(server.state_dir / "staging")


def test_kill_in_the_middle_of_a_download(origin: str, tmp_path: Path) -> None:
    with service(tmp_path) as first:
        image_id = first.create()
        begin(first, image_id, name="web-download", uri=origin)
        assert Origin.going.wait(GUARD)
        assert first.status(image_id) == "importing"
        first.server.kill()
    Origin.done.set()
    with service(tmp_path) as second:
        assert second.status(image_id) == "queued"
        assert "os_glance_import_task" not in second.show(image_id)
        assert [task["status"] for task in tasks(second, image_id)] == ["failure"]
        second.check_store()
        assert (leases(second.server), staged(second.server)) == ([], [])
        begin(second, image_id, name="web-download", uri=origin)
        wait_until(lambda: second.status(image_id) == "active", "the import")
        second.check_store()


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05, 0.1, 0.2])
def test_kill_in_the_middle_of_an_import_of_staged_data(tmp_path: Path, delay: float) -> None:
    data = os.urandom(48 * BLOCK)
    with service(tmp_path) as first:
        image_id, waiting = first.create(), first.create()
        stage(first, image_id, data)
        stage(first, waiting, b"to be imported after the kill")
        begin(first, image_id, name="glance-direct")
        threading.Event().wait(delay)
        first.server.kill()
    with service(tmp_path) as second:
        assert second.status(image_id) in ("queued", "active")
        assert leases(second.server) == []
        assert staged(second.server) == [waiting]
        assert second.files() == ({image_id} if second.status(image_id) == "active" else set())
        begin(second, waiting, name="glance-direct")
        wait_until(lambda: second.status(waiting) == "active", "the import")
        second.check_store()


def test_a_worker_that_dies_is_cleaned_up_after_by_the_next(origin: str, tmp_path: Path) -> None:
    with service(tmp_path) as running:
        image_id = running.create()
        begin(running, image_id, name="web-download", uri=origin)
        assert Origin.going.wait(GUARD)
        database = sqlite3.connect(running.server.state_dir / "headrace.db")
        ((worker,),) = database.execute("SELECT worker FROM headrace_uploads").fetchall()
        database.close()
        os.kill(int(worker.rsplit("/", 2)[1]), 9)
        wait_until(lambda: running.status(image_id) == "queued", "the rollback")
        assert [task["status"] for task in tasks(running, image_id)] == ["failure"]
        running.check_store()


def test_kill_in_the_middle_of_staging(tmp_path: Path) -> None:
    with service(tmp_path) as first:
        image_id = first.create()
        with first.connect() as wire:
            length = f"Content-Length: {4 * BLOCK}"
            wire.send(wire.head("PUT", f"/v2/images/{image_id}/stage", OCTETS, length))
            wire.send(os.urandom(BLOCK))
            wait_until(lambda: first.status(image_id) == "uploading", "staging")
            first.server.kill()
    with service(tmp_path) as second:
        second.check_store()
        assert second.status(image_id) == "queued"
        assert (leases(second.server), staged(second.server)) == ([], [])


def test_a_client_that_leaves_has_staged_nothing(tmp_path: Path) -> None:
    with service(tmp_path) as running:
        image_id = running.create()
        with running.connect() as wire:
            length = f"Content-Length: {4 * BLOCK}"
            wire.send(wire.head("PUT", f"/v2/images/{image_id}/stage", OCTETS, length))
            wire.send(os.urandom(BLOCK))
            wait_until(lambda: running.status(image_id) == "uploading", "staging")
        wait_until(lambda: running.status(image_id) == "queued", "the end")
        running.check_store()
        assert (leases(running.server), staged(running.server)) == ([], [])
