"""What housekeeping does while a store refuses, or says nothing at all."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace.db import images as rows
from headrace.db import uploads
from headrace.model import Status
from headrace.stores.registry import Registry
from headrace.stores.s3 import S3Store
from tests.service.conftest import ADMIN, Service, serving

GUARD = 60.0  # seconds; a hang guard
BUCKET = "/images"


class Bucket(ThreadingHTTPServer):
    """Has an object under every key, and lists none; may refuse to delete some, or be silent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: set[str] = set()
        self.silent = False
        self.asked = threading.Event()
        self.goes_on = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        if "uploads" not in self.path:
            self._be_silent()
        self._answer(200, b"<List/>")

    def do_HEAD(self) -> None:
        self._be_silent()
        self._answer(200)

    def do_DELETE(self) -> None:
        key = urlsplit(self.path).path.removeprefix(f"{BUCKET}/")
        if key in self.server.kept:
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        else:
            self._answer(204)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _be_silent(self) -> None:
        if self.server.silent:
            self.server.asked.set()
            self.server.goes_on.wait(GUARD)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with Bucket() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,))
        thread.start()
        yield found
        found.goes_on.set()
        found.shutdown()
        thread.join(GUARD)


@pytest.fixture
def service(tmp_path: Path, bucket: Bucket) -> Iterator[Service]:
    store = S3Store(
        "s3", f"127.0.0.1:{bucket.server_port}", BUCKET[1:], "access", "secret",
        windows=str(tmp_path), stall=GUARD, pause=0.0,
    )  # fmt: skip
    yield from serving(tmp_path, Registry([store], default="s3"))


def interrupted(service: Service) -> str:
    """The id of an image whose upload was another machine's, which is gone."""
    image = rows.show(service.database, service.record(), ADMIN.viewer)
    uploads.claim(service.database, image, image.id, "elsewhere/1/2", service.clock())
    service.clock.ahead += timedelta(seconds=600)
    return image.id


def status(service: Service, image_id: str) -> Status:
    return rows.show(service.database, image_id, ADMIN.viewer).status


def test_data_that_may_not_be_removed_keeps_no_other_upload_from_being_taken_back(
    service: Service, bucket: Bucket
) -> None:
    first, second = interrupted(service), interrupted(service)
    bucket.kept = {first}
    service.housekeeping.sweep()
    assert (status(service, first), status(service, second)) == (Status.SAVING, Status.QUEUED)
    bucket.kept.clear()
    service.housekeeping.sweep()
    assert status(service, first) is Status.QUEUED


def test_a_silent_store_does_not_lock_the_database(service: Service, bucket: Bucket) -> None:
    image_id = interrupted(service)
    bucket.silent = True
    sweeping = threading.Thread(target=service.housekeeping.sweep)
    sweeping.start()
    try:
        assert bucket.asked.wait(GUARD)
        service.record()
        assert status(service, image_id) is Status.SAVING
    finally:
        bucket.silent = False
        bucket.goes_on.set()
        sweeping.join(GUARD)
    assert status(service, image_id) is Status.QUEUED
