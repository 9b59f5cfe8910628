"""Imports: what is staged, fetched and copied, and what becomes of it when something goes wrong."""

import hashlib
import http.server
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import imports as import_rows
from headrace.db import schema
from headrace.model import IMPORT_LOCK, Image, Status, Task, TaskStatus
from headrace.service import workers
from headrace.service.imports import ImportRequest
from headrace.service.jobs import JobRules
from headrace.stores.filesystem import FilesystemStore, FilesystemWriter
from headrace.stores.registry import Label, Registry
from tests.image_files import qcow2
from tests.service.callers import OWNER, STRANGER
from tests.service.conftest import ADMIN, Service, serving
from tests.service.test_races import Paused, concurrently
from tests.service.test_stores import read

DATA = b"data that is sent first and imported later" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
GUARD = 30.0  # seconds; a hang guard
DIRECT, COPY = ImportRequest("glance-direct"), "copy-image"


def stage(service: Service, data: bytes = DATA, **values: object) -> str:
    image_id = service.record(**values)
    service.staging.stage(ADMIN, image_id, Paused(data), None, lambda _: None)
    return image_id


def idle(service: Service) -> None:
    """Wait until nothing is imported any more."""
    deadline = time.monotonic() + GUARD
    while service.jobs.active():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def settled(service: Service, image_id: str) -> Image:
    """The image once nothing is imported any more."""
    idle(service)
    return service.images.show(ADMIN, image_id)


def imported(service: Service, image_id: str, request: ImportRequest = DIRECT) -> Image:
    service.imports.begin(ADMIN, image_id, request)
    return settled(service, image_id)


def task(service: Service, image_id: str) -> Task:
    (found,) = service.tasks.of_image(ADMIN, image_id)
    return found


def staged(service: Service) -> list[str]:
    return sorted(path.name for path in (service.datadir.parent / "staging").iterdir())


def leases(service: Service) -> int:
    with service.database.read() as connection:
        found = connection.execute(sa.select(sa.func.count()).select_from(schema.uploads))
        return int(found.scalar_one())


def nothing_left(service: Service) -> bool:
    return (service.files(), staged(service), leases(service)) == ([], [], 0)


# --- staging


def test_data_is_staged_and_imported_without_a_copy(service: Service) -> None:
    image_id = stage(service)
    image = service.images.show(ADMIN, image_id)
    assert (image.status, image.size) == (Status.UPLOADING, len(DATA))
    assert staged(service) == [image_id]
    inode = (service.datadir.parent / "staging" / image_id).stat().st_ino
    image = imported(service, image_id)
    assert (image.status, image.size, image.os_hash_value) == (Status.ACTIVE, len(DATA), SHA256)
    assert IMPORT_LOCK not in image.properties
    assert (service.datadir / image_id).stat().st_ino == inode
    assert (staged(service), leases(service)) == ([], 0)
    assert read(service, image_id)[1] == DATA
    done = task(service, image_id)
    assert (done.status, done.result) == (TaskStatus.SUCCESS, {"image_id": image_id})


def test_what_is_not_queued_is_not_staged(service: Service) -> None:
    image_id = stage(service)
    with pytest.raises(errors.StatusConflict):
        service.staging.stage(ADMIN, image_id, Paused(DATA), None, lambda _: None)
    assert staged(service) == [image_id]


def test_staging_that_fails_leaves_nothing(service: Service) -> None:
    image_id = service.record()

    def gone() -> None:
        raise errors.PeerGone(moved=0)

    with pytest.raises(errors.PeerGone):
        service.staging.stage(ADMIN, image_id, Paused(DATA, gone), None, lambda _: None)
    assert service.images.show(ADMIN, image_id).status is Status.QUEUED
    assert nothing_left(service)
    with pytest.raises(errors.SizeMismatch):
        service.staging.stage(ADMIN, image_id, Paused(DATA), 3, lambda _: None)
    assert service.images.show(ADMIN, image_id).status is Status.QUEUED


def test_ossa_2015_004_ossa_2015_013_staged_data_goes_with_its_image(service: Service) -> None:
    image_id = stage(service)
    service.images.delete(ADMIN, image_id)
    assert nothing_left(service)
    image_id = service.record()
    with pytest.raises(errors.ImageGone):
        service.staging.stage(
            ADMIN,
            image_id,
            Paused(DATA, lambda: service.images.delete(ADMIN, image_id)),
            None,
            lambda _: None,
        )
    assert nothing_left(service)


def test_orphans_are_swept_and_what_is_staged_stays(service: Service) -> None:
    image_id, queued = stage(service), service.record()
    directory = service.datadir.parent / "staging"
    for name in (queued, "00000000-0000-0000-0000-000000000009", "note.txt"):
        (directory / name).write_bytes(b"left")
    service.housekeeping.sweep()
    assert staged(service) == sorted([image_id, "note.txt"])


def test_strangers_neither_stage_nor_import(service: Service) -> None:
    image_id = service.record(owner="mine", visibility="public")
    with pytest.raises(errors.Forbidden):
        service.staging.stage(STRANGER, image_id, Paused(DATA), None, lambda _: None)
    service.staging.stage(OWNER, image_id, Paused(DATA), None, lambda _: None)
    with pytest.raises(errors.Forbidden):
        service.imports.begin(STRANGER, image_id, DIRECT)
    with pytest.raises(errors.Forbidden):
        service.tasks.show(OWNER, "any")


# --- what is found in the data


def test_ossa_2015_014_a_backing_file_is_refused_on_import(service: Service) -> None:
    image_id = stage(service, qcow2(backing_offset=512), disk_format="qcow2")
    image = imported(service, image_id)
    assert (image.status, image.size) == (Status.QUEUED, None)
    assert nothing_left(service)
    failed = task(service, image_id)
    assert (failed.status, "backing" in failed.message) == (TaskStatus.FAILURE, True)
    assert failed.expires_at is not None


def test_an_import_may_be_tried_again(service: Service) -> None:
    image_id = stage(service, qcow2(backing_offset=512), disk_format="qcow2")
    imported(service, image_id)
    service.staging.stage(ADMIN, image_id, Paused(qcow2()), None, lambda _: None)
    assert imported(service, image_id).status is Status.ACTIVE


# --- the lock


def test_one_import_at_a_time(service: Service) -> None:
    for _ in range(20):
        image_id = stage(service)
        results = concurrently(*[lambda i=image_id: service.imports.begin(ADMIN, i, DIRECT)] * 3)
        assert [result is None for result in results].count(True) == 1
        assert all(isinstance(each, errors.Conflict) for each in results if each is not None)
        assert settled(service, image_id).status is Status.ACTIVE


def lock_of_glance(service: Service, image_id: str, status: str, age: timedelta) -> None:
    """The lock of an import of a Glance, whose task was heard of some time ago."""
    then = service.clock() - age
    common = {"created_at": then, "updated_at": then, "deleted": False}
    with service.database.write() as connection:
        connection.execute(
            sa.insert(schema.tasks),
            {"id": "theirs", "type": "api_image_import", "status": status, "owner": "x", **common},
        )
        connection.execute(sa.insert(schema.task_info), {"task_id": "theirs"})
        connection.execute(
            sa.insert(schema.image_properties),
            {"image_id": image_id, "name": IMPORT_LOCK, "value": "theirs", **common},
        )


@pytest.mark.parametrize(
    ("status", "minutes", "stolen"),
    [
        ("processing", 59, False),
        ("processing", 61, True),
        ("pending", 61, False),
        ("pending", 121, True),
        ("success", 1, True),
        ("failure", 1, True),
    ],
)
def test_only_a_stale_lock_is_taken(
    service: Service, status: str, minutes: int, stolen: bool
) -> None:
    image_id = stage(service)
    lock_of_glance(service, image_id, status, timedelta(minutes=minutes))
    if not stolen:
        with pytest.raises(errors.ImageBusy):
            service.imports.begin(ADMIN, image_id, DIRECT)
        assert service.images.show(ADMIN, image_id).status is Status.UPLOADING
        return
    assert imported(service, image_id).status is Status.ACTIVE
    theirs = service.tasks.show(ADMIN, "theirs").status
    assert theirs == ("failure" if status in ("pending", "processing") else status)


# --- a process that dies


def begun(service: Service, image_id: str, status: Status) -> Task:
    """A job that a process took, which is dead by now."""
    image = service.images.show(ADMIN, image_id)
    now = service.clock()
    task = Task(
        id="11111111-1111-1111-1111-111111111111",
        owner="",
        image_id=image_id,
        created_at=now,
        updated_at=now,
    )
    dead = f"{workers.identity().rsplit('/', 2)[0]}/1/0"
    import_rows.begin(service.database, image, task, dead, status, {})
    assert import_rows.take(service.database, task.id, now)
    return task


def test_no_image_stays_in_importing_when_a_process_dies(service: Service) -> None:
    image_id = stage(service)
    begun(service, image_id, Status.IMPORTING)
    (service.datadir / image_id).write_bytes(DATA)  # published, and not on record
    service.housekeeping.sweep()
    image = service.images.show(ADMIN, image_id)
    assert (image.status, image.properties) == (Status.QUEUED, {})
    assert task(service, image_id).status is TaskStatus.FAILURE
    assert nothing_left(service)


def test_a_copy_that_nobody_recorded_is_removed(several: Service) -> None:
    image_id = several.record()
    several.content.upload(ADMIN, image_id, Paused(DATA))
    begun(several, image_id, Status.ACTIVE)
    copy = several.datadir.parent / "cheap" / image_id
    copy.write_bytes(DATA)
    several.housekeeping.sweep()
    image = several.images.show(ADMIN, image_id)
    assert (image.status, copy.exists(), read(several, image_id)[1]) == (
        Status.ACTIVE, False, DATA
    )  # fmt: skip
    assert imported(several, image_id, ImportRequest(COPY, stores=("cheap",))).status == "active"


# --- several stores


def test_data_goes_to_all_stores(several: Service) -> None:
    image = imported(several, stage(several), ImportRequest("glance-direct", all_stores=True))
    assert [each.metadata["store"] for each in image.locations] == ["fast", "cheap"]
    places = [several.datadir, several.datadir.parent / "cheap"]
    assert [(place / image.id).read_bytes() == DATA for place in places] == [True, True]
    assert len({(place / image.id).stat().st_ino for place in places}) == 2
    assert image.properties == {
        "os_glance_importing_to_stores": "", "os_glance_failed_import": ""
    }  # fmt: skip


@pytest.mark.parametrize("order", [("fast", "cheap"), ("cheap", "fast")])
def test_one_store_that_fails_fails_all(several: Service, order: tuple[str, str]) -> None:
    image_id = stage(several)
    taken = several.datadir.parent / "cheap" / image_id
    taken.write_bytes(b"somebody's")
    image = imported(several, image_id, ImportRequest("glance-direct", stores=order))
    assert (image.status, image.locations) == (Status.QUEUED, ())
    assert (several.files(), taken.read_bytes()) == ([], b"somebody's")
    assert image.properties["os_glance_importing_to_stores"] == ""
    assert "cheap" in image.properties["os_glance_failed_import"]


@pytest.mark.parametrize("order", [("fast", "cheap"), ("cheap", "fast")])
def test_one_store_may_fail_alone(several: Service, order: tuple[str, str]) -> None:
    image_id = stage(several)
    (several.datadir.parent / "cheap" / image_id).write_bytes(b"somebody's")
    image = imported(
        several, image_id, ImportRequest("glance-direct", stores=order, all_must_succeed=False)
    )
    assert image.status is Status.ACTIVE
    assert [each.metadata["store"] for each in image.locations] == ["fast"]
    assert image.properties["os_glance_failed_import"] == "cheap"
    assert task(several, image_id).status is TaskStatus.SUCCESS


def test_an_image_is_copied_to_other_stores(several: Service) -> None:
    image_id = several.record()
    several.content.upload(ADMIN, image_id, Paused(DATA))
    with pytest.raises(errors.BadRequest):
        several.imports.begin(ADMIN, image_id, ImportRequest(COPY, stores=("fast",)))
    image = imported(several, image_id, ImportRequest(COPY, all_stores=True))
    assert [each.metadata["store"] for each in image.locations] == ["fast", "cheap"]
    assert read(several, image_id)[1] == DATA
    several.imports.begin(ADMIN, image_id, ImportRequest(COPY, all_stores=True))
    assert len(several.tasks.of_image(ADMIN, image_id)) == 1  # nothing to do
    with pytest.raises(errors.Forbidden):
        several.imports.begin(STRANGER, image_id, ImportRequest(COPY, all_stores=True))


def test_a_copy_of_another_size_is_none(several: Service) -> None:
    image_id = several.record()
    several.content.upload(ADMIN, image_id, Paused(DATA))
    (several.datadir / image_id).write_bytes(DATA[:-1])
    image = imported(several, image_id, ImportRequest(COPY, stores=("cheap",)))
    assert (image.status, len(image.locations)) == (Status.ACTIVE, 1)
    assert not (several.datadir.parent / "cheap" / image_id).exists()
    assert task(several, image_id).status is TaskStatus.FAILURE


# --- several stores at a time


class Meeting(FilesystemStore):
    """A store that waits until another is written, too."""

    def __init__(self, id: str, datadir: Path, both: threading.Barrier) -> None:
        super().__init__(id, datadir)
        self._both = both

    def create(self, image_id: str, size: int | None) -> FilesystemWriter:
        self._both.wait(GUARD)
        return super().create(image_id, size)


@pytest.fixture
def at_a_time(tmp_path: Path) -> Iterator[Service]:
    """A service that writes to two stores at a time: to left and right, once fast has the data."""
    both = threading.Barrier(2)
    stores = [
        FilesystemStore("fast", tmp_path / "images"),
        Meeting("left", tmp_path / "left", both),
        Meeting("right", tmp_path / "right", both),
    ]
    registry = Registry(stores, "fast", {store.id: Label() for store in stores})
    yield from serving(tmp_path, registry, job_rules=JobRules(2, stores=2))


def test_stores_are_written_at_a_time(at_a_time: Service) -> None:
    for request in (
        ImportRequest("glance-direct", all_stores=True),
        ImportRequest("glance-direct", all_stores=True, all_must_succeed=False),
    ):
        image = imported(at_a_time, stage(at_a_time), request)
        assert image.status is Status.ACTIVE
        assert {each.metadata["store"] for each in image.locations} == {"fast", "left", "right"}
        for name in ("images", "left", "right"):
            assert (at_a_time.datadir.parent / name / image.id).read_bytes() == DATA
        assert set(image.properties.values()) == {""}


def test_an_image_is_copied_to_stores_at_a_time(at_a_time: Service) -> None:
    image_id = at_a_time.record()
    at_a_time.content.upload(ADMIN, image_id, Paused(DATA))
    image = imported(at_a_time, image_id, ImportRequest(COPY, all_stores=True))
    assert {each.metadata["store"] for each in image.locations} == {"fast", "left", "right"}


@pytest.mark.parametrize("all_must_succeed", [True, False])
def test_one_of_the_stores_at_a_time_fails(at_a_time: Service, all_must_succeed: bool) -> None:
    image_id = stage(at_a_time)
    taken = at_a_time.datadir.parent / "left" / image_id
    taken.write_bytes(b"somebody's")
    request = ImportRequest("glance-direct", all_stores=True, all_must_succeed=all_must_succeed)
    image = imported(at_a_time, image_id, request)
    assert taken.read_bytes() == b"somebody's"
    there = {each.metadata["store"] for each in image.locations}
    if all_must_succeed:
        assert (image.status, there, at_a_time.files()) == (Status.QUEUED, set(), [])
        assert os.listdir(at_a_time.datadir.parent / "right") == []
    else:
        assert (image.status, there) == (Status.ACTIVE, {"fast", "right"})
        assert image.properties["os_glance_failed_import"] == "left"


# --- a service that stops


def test_a_stop_undoes_what_goes_on_and_what_waits(service: Service) -> None:
    """Also what is fetched without a length, which must not seem to be at its end."""
    going, go = threading.Event(), threading.Event()

    def waits(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(DATA)
        handler.wfile.flush()
        going.set()
        go.wait(GUARD)

    fetched = service.record()
    with origin(waits) as uri:
        service.imports.begin(ADMIN, fetched, ImportRequest("web-download", uri))
        assert going.wait(GUARD)
        service.jobs.stop()
        late = stage(service)
        service.imports.begin(ADMIN, late, DIRECT)
        for image_id in (fetched, late):
            assert settled(service, image_id).status is Status.QUEUED
            assert task(service, image_id).message == errors.ServiceStops.text
        assert nothing_left(service)
        go.set()


# --- tasks


def test_tasks_are_kept_for_their_time(tmp_path: Path) -> None:
    """Those that went well and those that failed; then the housekeeping forgets them."""
    registry = Registry([FilesystemStore("file", tmp_path / "images")], "file")
    rules = JobRules(2, task_life=timedelta(hours=3))
    for service in serving(tmp_path, registry, job_rules=rules):
        good = imported(service, stage(service)).id
        bad = imported(service, stage(service, qcow2(backing_offset=512), disk_format="qcow2")).id
        for image_id in (good, bad):
            kept = task(service, image_id)
            assert kept.expires_at is not None
            assert round((kept.expires_at - kept.updated_at) / timedelta(hours=1), 2) == 3
        service.clock.ahead = timedelta(hours=2, minutes=59)
        service.housekeeping.sweep()
        assert service.tasks.of_image(ADMIN, good) != []
        service.clock.ahead = timedelta(hours=3, minutes=1)
        service.housekeeping.sweep()
        assert service.tasks.of_image(ADMIN, good) == service.tasks.of_image(ADMIN, bad) == []


# --- fetching

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def origin(answer: Answer, certificate: Path | None = None) -> Iterator[str]:
    """The address of an origin on this machine that answers like that; with TLS by its key."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        scheme = "http" if certificate is None else "https"
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}/image"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sending(data: bytes, *headers: tuple[str, str], status: int = 200) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        with suppress(OSError):  # the service has had enough
            handler.wfile.write(data)

    return answer


LENGTH = ("Content-Length", str(len(DATA)))


def download(service: Service, answer: Answer, **values: object) -> Image:
    image_id = service.record(**values)
    with origin(answer) as uri:
        return imported(service, image_id, ImportRequest("web-download", uri))


def test_ossa_2014_004_secrets_of_an_address_are_not_on_record(service: Service) -> None:
    image_id = service.record()
    with origin(sending(DATA, LENGTH)) as uri:
        secret = uri.replace("http://", "http://user:hush@") + "?signature=hush"
        given = {"method": {"name": "web-download", "uri": secret}}
        request = ImportRequest("web-download", secret, given=given)
        assert imported(service, image_id, request).status is Status.ACTIVE
        told = task(service, image_id).input
    assert isinstance(told, dict)
    assert told["import_req"] == {"method": {"name": "web-download", "uri": uri}}


@pytest.mark.parametrize("headers", [(LENGTH,), ()])
def test_data_is_fetched(service: Service, headers: tuple[tuple[str, str], ...]) -> None:
    image = download(service, sending(DATA, *headers))
    assert (image.status, image.size, image.os_hash_value) == (Status.ACTIVE, len(DATA), SHA256)
    assert read(service, image.id)[1] == DATA


@pytest.mark.parametrize(
    "answer",
    [
        sending(DATA[:-1], LENGTH),
        sending(DATA, LENGTH, status=404),
        sending(DATA, LENGTH, ("Content-Encoding", "gzip")),
        sending(b"5\r\nhel", ("Transfer-Encoding", "chunked")),
        sending(b"", ("Location", "http://169.254.169.254/"), status=302),
        sending(b"", ("Location", "file:///etc/passwd"), status=302),
    ],
    ids=["short", "404", "encoded", "broken chunk", "OSSA-2026-004 redirect", "redirect to a file"],
)
def test_data_that_cannot_be_fetched_leaves_nothing(service: Service, answer: Answer) -> None:
    image = download(service, answer)
    assert (image.status, image.size) == (Status.QUEUED, None)
    assert nothing_left(service)
    failed = task(service, image.id)
    assert failed.status is TaskStatus.FAILURE
    assert "169.254" not in failed.message


@pytest.mark.parametrize(
    "headers",
    [(), (("Content-Length", str(1 << 40)),), (("Transfer-Encoding", "chunked"),)],
    ids=["no length", "a length", "chunked"],
)
def test_unbounded_web_download_ends_at_the_cap(
    service: Service, headers: tuple[tuple[str, str], ...]
) -> None:
    block = b"x" * (1 << 20)
    chunked = headers[:1] == (("Transfer-Encoding", "chunked"),)

    def for_ever(handler: http.server.BaseHTTPRequestHandler) -> None:
        sending(b"", *headers)(handler)
        with suppress(OSError):  # the service has had enough
            while True:
                handler.wfile.write(b"100000\r\n%s\r\n" % block if chunked else block)

    service.landing.rules = replace(service.landing.rules, size_cap=8 << 20)
    image = download(service, for_ever)
    assert image.status is Status.QUEUED
    assert nothing_left(service)
    assert "image_size_cap" in task(service, image.id).message


def test_fetched_data_is_inspected(service: Service) -> None:
    evil = qcow2(backing_offset=512)
    image = download(service, sending(evil), disk_format="qcow2")
    assert image.status is Status.QUEUED
    assert nothing_left(service)


def test_ossa_2015_004_deleting_an_image_ends_its_import(service: Service) -> None:
    image_id = service.record()
    going, go = threading.Event(), threading.Event()

    def waits(handler: http.server.BaseHTTPRequestHandler) -> None:
        going.set()
        assert go.wait(GUARD)
        sending(DATA, LENGTH)(handler)

    with origin(waits) as uri:
        service.imports.begin(ADMIN, image_id, ImportRequest("web-download", uri))
        assert going.wait(GUARD)
        service.images.delete(ADMIN, image_id)
        go.set()
        with pytest.raises(errors.ImageNotFound):
            settled(service, image_id)
    assert nothing_left(service)


@pytest.mark.parametrize(
    "uri",
    [
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "file:///etc/passwd",
        "http://127.1/",
        "",
    ],
)
def test_ossa_2026_004_bug_2158998_inside_addresses_are_refused(service: Service, uri: str) -> None:
    image_id = service.record()
    with pytest.raises(errors.InvalidLocation):
        service.imports.begin(ADMIN, image_id, ImportRequest("web-download", uri))
    assert service.images.show(ADMIN, image_id).status is Status.QUEUED


def test_data_that_was_staged_on_another_file_system_is_copied(tmp_path: Path) -> None:
    with TemporaryDirectory(dir=another_file_system(tmp_path)) as elsewhere:
        registry = Registry([FilesystemStore("file", tmp_path / "images")], "file")
        for service in serving(tmp_path, registry, Path(elsewhere)):
            image = imported(service, stage(service))
            assert (image.status, image.os_hash_value) == (Status.ACTIVE, SHA256)
            assert os.listdir(elsewhere) == []
            assert read(service, image.id)[1] == DATA


def another_file_system(directory: Path) -> str:
    """A directory that is not on the file system of ``directory``."""
    found = [each for each in ("/dev/shm", "/tmp") if os.stat(each).st_dev != device(directory)]
    return found[0]


def device(path: Path) -> int:
    return path.stat().st_dev
