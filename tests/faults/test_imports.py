"""kill -9 in the middle of an import: no image stays in importing, nothing is left over."""

import http.server
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.service import BLOCK, GUARD, Service, leases, wait_until
from tests.image_files import qcow2
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
def service(directory: Path, *options: str, **env: str) -> Iterator[Service]:
    with serving(directory, "--workers", "2", *options, env=HERE | env) as server:
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


def test_kill_in_the_middle_of_a_conversion(tmp_path: Path) -> None:
    """What converts is gone with who asked for it."""
    program, pid = tmp_path / "bin" / "qemu-img", tmp_path / "pid"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $$ >{pid}.new\nmv {pid}.new {pid}\nexec sleep 1000\n")
    program.chmod(0o755)
    plugins = {
        "OS_IMAGE_IMPORT_OPTS__IMAGE_IMPORT_PLUGINS": "[image_conversion]",
        "PATH": f"{program.parent}:{os.environ['PATH']}",
    }
    with service(tmp_path, **plugins) as first:
        image_id = first.create(disk_format="qcow2")
        stage(first, image_id, qcow2())
        begin(first, image_id, name="glance-direct")
        wait_until(pid.exists, "the conversion")
        first.server.kill()
    wait_until(lambda: not is_running(int(pid.read_text())), "the end of the program")
    with service(tmp_path) as second:
        assert second.status(image_id) == "queued"
        assert (leases(second.server), staged(second.server)) == ([], [])
        second.check_store()


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_service_that_stops_lets_imports_finish(origin: str, tmp_path: Path) -> None:
    with service(tmp_path, "--drain-timeout", "60") as first:
        image_id = first.create()
        begin(first, image_id, name="web-download", uri=origin)
        assert Origin.going.wait(GUARD)
        os.kill(first.server.pid, signal.SIGTERM)
        wait_until(lambda: "1 imports and fills go on" in first.server.log.read_text(), "the stop")
        Origin.done.set()
        assert first.server.stop() == 0
    with service(tmp_path) as second:
        assert second.status(image_id) == "active"
        assert [task["status"] for task in tasks(second, image_id)] == ["success"]
        second.check_store()


def test_what_does_not_finish_in_time_is_undone_before_the_service_is_gone(
    origin: str, tmp_path: Path
) -> None:
    with service(tmp_path, "--drain-timeout", "1") as first:
        image_id = first.create()
        begin(first, image_id, name="web-download", uri=origin)
        assert Origin.going.wait(GUARD)
        assert first.server.stop() == 0
        assert "gave 1 imports and fills up" in first.server.log.read_text()
        assert "do not end" not in first.server.log.read_text()
        database = sqlite3.connect(first.server.state_dir / "headrace.db")
        assert database.execute("SELECT status FROM images").fetchall() == [("queued",)]
        assert database.execute("SELECT status FROM tasks").fetchall() == [("failure",)]
        assert database.execute("SELECT * FROM headrace_uploads").fetchall() == []
        database.close()
        assert (first.files(), staged(first.server)) == (set(), [])


@pytest.mark.parametrize("way", ["SIGHUP", "max_requests"])
def test_a_worker_that_is_replaced_finishes_its_imports(
    origin: str, tmp_path: Path, way: str
) -> None:
    """However long they take: the drain time-out is for a service that stops."""
    most = "20" if way == "max_requests" else "0"
    with service(tmp_path, "--drain-timeout", "0.1", OS_HEADRACE__MAX_REQUESTS=most) as running:
        image_id = running.create()
        before = set(running.server.pids())
        begin(running, image_id, name="web-download", uri=origin)
        assert Origin.going.wait(GUARD)
        if way == "SIGHUP":
            os.kill(running.server.pid, signal.SIGHUP)
        else:
            wait_until(
                lambda: (
                    [running.status(image_id) for _ in range(20)]
                    and "1 imports and fills go on" in running.server.log.read_text()
                ),
                "the worker's share",
            )
        wait_until(lambda: set(running.server.pids()) - before, "new workers")
        wait_until(
            lambda: "1 imports and fills go on" in running.server.log.read_text(), "the old one"
        )
        assert running.status(image_id) == "importing"
        Origin.done.set()
        wait_until(lambda: running.status(image_id) == "active", "the import")
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
