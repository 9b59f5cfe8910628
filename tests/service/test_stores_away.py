"""What is done and said while a store refuses, or says nothing at all."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace import errors
from headrace.db import images as rows
from headrace.db import imports, uploads
from headrace.model import Location, Status, Task
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.registry import Label, Registry
from headrace.stores.s3 import S3Store
from tests.service.conftest import ADMIN, Service, serving
from tests.service.test_races import Paused

GUARD = 60.0  # seconds; a hang guard
BUCKET = "/images"
DENIED = b"<Error><Code>AccessDenied</Code></Error>"


class Bucket(ThreadingHTTPServer):
    """Has an object under every key, and lists none.

    May refuse to delete some, be silent, refuse everything, or say that it is denied.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: set[str] = set()
        self.deleted: list[str] = []
        self.denied = False
        self.silent = False
        self.away = False
        self.listed = 0
        self.asked = threading.Event()
        self.goes_on = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        if self.server.denied:
            self._answer(403, DENIED)
            return
        if "uploads" not in self.path:
            self.server.listed += 1
            self._be_silent()
        self._answer(200, b"<List/>")

    def do_HEAD(self) -> None:
        self._be_silent()
        self._answer(404 if self.server.denied else 200)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(403, DENIED)

    def do_DELETE(self) -> None:
        key = urlsplit(self.path).path.removeprefix(f"{BUCKET}/")
        if key in self.server.kept:
            self._answer(403, DENIED)
        else:
            self.server.deleted.append(key)
            self._answer(204)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _be_silent(self) -> None:
        if self.server.silent:
            self.server.asked.set()
            self.server.goes_on.wait(GUARD)

    def _answer(self, status: int, body: bytes = b"") -> None:
        if self.server.away:
            status, body = 503, b""
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


def remote(bucket: Bucket, windows: Path) -> S3Store:
    return S3Store(
        "s3", f"127.0.0.1:{bucket.server_port}", BUCKET[1:], "access", "secret",
        windows=str(windows), stall=GUARD, pause=0.0,
        left=timedelta(0),  # or it would not be swept again for an hour
    )  # fmt: skip


@pytest.fixture
def service(tmp_path: Path, bucket: Bucket) -> Iterator[Service]:
    yield from serving(tmp_path, Registry([remote(bucket, tmp_path)], default="s3"))


@pytest.fixture
def both(tmp_path: Path, bucket: Bucket) -> Iterator[Service]:
    """The same with a directory, too."""
    stores = [FilesystemStore("file", tmp_path / "images"), remote(bucket, tmp_path)]
    labels = {store.id: Label() for store in stores}
    yield from serving(tmp_path, Registry(stores, "file", labels))


def interrupted(service: Service, stores: tuple[str, ...] | None = None) -> str:
    """The id of an image whose upload was another machine's, which is gone."""
    image = rows.show(service.database, service.record(), ADMIN.viewer)
    uploads.claim(
        service.database, image, image.id, "elsewhere/1/2", service.clock(), stores=stores
    )
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


def test_an_upload_waits_for_the_store_that_it_was_meant_for_and_no_other(
    both: Service, bucket: Bucket
) -> None:
    here, there = interrupted(both, ("file",)), interrupted(both, ("s3",))
    (both.datadir / here).write_bytes(b"published, not recorded")
    bucket.away = True
    both.housekeeping.sweep()
    assert (status(both, here), status(both, there)) == (Status.QUEUED, Status.SAVING)
    assert both.files() == []
    bucket.away = False
    both.housekeeping.sweep()
    assert (status(both, there), bucket.deleted) == (Status.QUEUED, [there])


def test_one_that_may_be_in_several_waits_for_all(both: Service, bucket: Bucket) -> None:
    image_id = interrupted(both, ("file", "s3"))
    bucket.away = True
    both.housekeeping.sweep()
    assert status(both, image_id) is Status.SAVING
    bucket.away = False
    both.housekeeping.sweep()
    assert (status(both, image_id), bucket.deleted) == (Status.QUEUED, [image_id])


def test_a_copy_is_removed_though_the_store_is_away_that_has_the_data(
    both: Service, bucket: Bucket
) -> None:
    image_id = interrupted(both, ("s3",))
    uploads.activate(
        both.database, image_id, image_id, location=Location(both.registry.get("s3").url(image_id)),
        size=4, virtual_size=None, checksum=None, os_hash_algo="sha256", os_hash_value="ab",
        now=both.clock(),
    )  # fmt: skip
    image, now = rows.show(both.database, image_id, ADMIN.viewer), both.clock()
    task = Task(id=image_id, owner="", image_id=image_id, created_at=now, updated_at=now)
    imports.begin(both.database, image, task, "elsewhere/1/2", Status.ACTIVE, {}, stores=("file",))
    (both.datadir / image_id).write_bytes(b"copy")
    both.clock.ahead += timedelta(seconds=600)
    bucket.away = True
    both.housekeeping.sweep()
    assert (uploads.leases(both.database), both.files()) == ([], [])
    assert (status(both, image_id), bucket.deleted) == (Status.ACTIVE, [])


@pytest.mark.parametrize("stores", [None, ("s3", "renamed")])
def test_what_is_not_known_may_be_in_any(
    both: Service, bucket: Bucket, stores: tuple[str, ...] | None
) -> None:
    """Stores are given other names, and a Headrace of before said nothing."""
    image_id = interrupted(both, stores)
    (both.datadir / image_id).write_bytes(b"published, not recorded")
    bucket.away = True
    both.housekeeping.sweep()
    assert (status(both, image_id), both.files()) == (Status.SAVING, [image_id])
    bucket.away = False
    both.housekeeping.sweep()
    assert (status(both, image_id), both.files()) == (Status.QUEUED, [])
    assert bucket.deleted == [image_id]


def test_a_store_is_asked_once_for_all_and_not_for_what_is_elsewhere(
    both: Service, bucket: Bucket
) -> None:
    interrupted(both, ("file",))
    interrupted(both, ())
    both.housekeeping.sweep()
    assert (uploads.leases(both.database), bucket.listed) == ([], 0)
    interrupted(both, ("s3",))
    interrupted(both, ("file", "s3"))
    both.housekeeping.sweep()
    assert (uploads.leases(both.database), bucket.listed) == ([], 1)


def test_it_is_told_how_many_wait_for_which_store(
    both: Service, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    for stores in (("s3",), ("file", "s3"), ("file",)):
        interrupted(both, stores)
    bucket.away = True
    both.housekeeping.sweep()
    told = [each for each in caplog.messages if "wait" in each]
    assert [each.partition(":")[0] for each in told] == ["2 interrupted uploads wait for store s3"]


def test_an_upload_that_is_refused_is_one_line_of_the_log(
    service: Service, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    image_id = service.record()
    bucket.denied = True
    with pytest.raises(errors.StoreUnwritable) as refused:
        service.content.upload(ADMIN, image_id, Paused(b"data"))
    why = "the store may not be written: store s3 is refused (403 AccessDenied)"
    assert str(refused.value) == why
    assert caplog.messages == [f"upload of image {image_id} failed: {why}"]


def test_a_download_that_is_refused_is_one_line_of_the_log(
    service: Service, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    image_id = interrupted(service)
    uploads.activate(
        service.database, image_id, image_id, location=Location(service.store.url(image_id)),
        size=4, virtual_size=None, checksum=None, os_hash_algo="sha256", os_hash_value="ab",
        now=service.clock(),
    )  # fmt: skip
    bucket.denied = True
    with pytest.raises(errors.ServiceUnavailable):
        service.content.download(ADMIN, image_id)
    why = "service unavailable: store s3 is refused (403 AccessDenied)"
    assert caplog.messages == [f"image {image_id} cannot be read: {why}"]


def test_sweeps_that_are_refused_are_one_line_of_the_log(
    service: Service, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it is away; when it has been back it is another one."""
    why = "service unavailable: store s3 is refused (403 AccessDenied)"
    for denied in (True, True, False, True):
        bucket.denied = denied
        service.housekeeping.sweep()
    assert caplog.messages == [f"store s3 was not swept: {why}"] * 2
