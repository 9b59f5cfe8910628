"""Quotas on every way in: nothing is stored that was not reserved, nothing stays reserved."""

import gzip
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from headrace import errors
from headrace.db import quotas, uploads
from headrace.model import MIB, Image, Resource, Status
from headrace.service.decompression import Decompression
from headrace.service.images import Change, ChangeOp
from headrace.service.imports import ImportRequest
from headrace.service.jobs import JobRules
from headrace.service.locations import LocationChange, Named
from headrace.service.quota import ProjectLimits
from headrace.service.tasks import NewImage
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.listed import ListedFiles
from headrace.stores.registry import Label, Registry
from headrace.transfer.engine import Source, Stream
from tests.service import test_regions
from tests.service.callers import OWNER
from tests.service.conftest import ADMIN, Service, serving
from tests.service.test_imports import idle, nothing_left, origin, sending, settled, task
from tests.service.test_races import Paused

SIZE, STAGE = Resource.SIZE, Resource.STAGE
COUNT, UPLOADING = Resource.COUNT, Resource.UPLOADING
DATA = b"x" * 1000
RAW = {"disk_format": "raw", "container_format": "bare"}

ProjectHas = dict[Resource, int]


@pytest.fixture
def limits() -> ProjectHas:
    """What the service's projects may have; to be filled by a test."""
    return {}


@pytest.fixture
def service(tmp_path: Path, limits: ProjectHas) -> Iterator[Service]:
    store = FilesystemStore("file", tmp_path / "images")
    yield from serving(tmp_path, Registry([store], default="file"), project_limits=limits)


@pytest.fixture
def several(tmp_path: Path, limits: ProjectHas) -> Iterator[Service]:
    ids = ("fast", "cheap", "spare")
    stores = [FilesystemStore(each, tmp_path / each) for each in ids]
    (tmp_path / "listed").mkdir()
    files = ListedFiles("", [str(tmp_path / "listed")], [str(tmp_path / "fast")])
    registry = Registry(stores, "fast", dict.fromkeys(ids, Label()), [files])
    yield from serving(tmp_path, registry, project_limits=limits)


class Piped:
    """A body of ``size`` bytes whose length is not announced, from a pipe, as of a chunked one.

    ``meanwhile(sent)`` is called before every MiB.
    """

    file = None
    length = None

    def __init__(self, size: int, meanwhile: Callable[[int], object] = lambda _: None) -> None:
        self._size = size
        self._meanwhile = meanwhile

    def pieces(self) -> Iterator[Source]:
        reader, writer = os.pipe()
        thread = threading.Thread(target=self._write, args=(writer,))
        thread.start()
        try:
            yield Stream(reader)
        finally:
            os.close(reader)
            thread.join()

    def _write(self, writer: int) -> None:
        block = bytes(MIB)
        try:
            for sent in range(0, self._size, MIB):
                self._meanwhile(sent)
                with memoryview(block)[: self._size - sent] as piece:
                    left = piece
                    while left:
                        left = left[os.write(writer, left) :]
        except BrokenPipeError:
            pass  # refused
        finally:
            os.close(writer)


def usage(service: Service) -> dict[Resource, int]:
    return quotas.usage(service.database, None)


def upload(service: Service, body: Paused | Piped, announced: int | None = None) -> str:
    image_id = service.record()
    service.content.upload(ADMIN, image_id, body, announced)
    return image_id


def stage(service: Service, body: Paused | Piped) -> str:
    image_id = service.record()
    service.staging.stage(ADMIN, image_id, body, None, lambda _: None)
    return image_id


def shown(service: Service, image_id: str) -> Image:
    return service.images.show(ADMIN, image_id)


# --- uploads


def test_what_fits_is_taken_and_what_does_not_is_not_read(
    service: Service, limits: ProjectHas
) -> None:
    limits[SIZE] = 1500
    upload(service, Paused(DATA))
    read: list[str] = []
    image_id = service.record()
    with pytest.raises(errors.QuotaExceeded):
        service.content.upload(ADMIN, image_id, Paused(DATA, lambda: read.append("a byte")))
    assert not read
    assert shown(service, image_id).status is Status.QUEUED
    upload(service, Paused(DATA[:500]))
    assert usage(service)[SIZE] == 1500
    with pytest.raises(errors.QuotaExceeded):
        upload(service, Paused(b"x"))
    service.images.delete(ADMIN, next(iter(service.files())))


def test_what_would_arrive_by_itself_is_not_asked_for(service: Service, limits: ProjectHas) -> None:
    """A server in front would write it to a file before anything is reserved."""
    image_id = service.record()
    service.content.check_upload(ADMIN, image_id, 1000, None)
    limits[SIZE] = 1500
    with pytest.raises(errors.Forbidden):
        service.content.check_upload(ADMIN, image_id, 1000, None)


def test_of_unknown_length_more_is_reserved_as_bytes_come(
    service: Service, limits: ProjectHas
) -> None:
    limits[SIZE] = 1000 * MIB
    seen: list[tuple[int, int]] = []
    size = 200 * MIB + 17
    body = Piped(size, lambda sent: seen.append((sent, usage(service)[SIZE])))
    image_id = upload(service, body)
    assert shown(service, image_id).size == size
    # What the pipe holds besides has not been taken yet.
    assert all(sent <= reserved + 2 * MIB for sent, reserved in seen)
    assert max(reserved - sent for sent, reserved in seen) < 130 * MIB
    assert len({reserved for _, reserved in seen}) in (3, 4)
    assert usage(service)[SIZE] == size


def test_ossa_2014_028_of_unknown_length_no_more_is_stored_than_is_left(
    service: Service, limits: ProjectHas
) -> None:
    limits[SIZE] = 100 * MIB
    image_id = service.record()
    with pytest.raises(errors.QuotaExceeded):
        service.content.upload(ADMIN, image_id, Piped(150 * MIB))
    assert shown(service, image_id).status is Status.QUEUED
    assert nothing_left(service)
    assert usage(service)[SIZE] == 0
    service.content.upload(ADMIN, image_id, Piped(100 * MIB))
    assert usage(service)[SIZE] == 100 * MIB
    with pytest.raises(errors.QuotaExceeded):
        upload(service, Piped(1))


def test_what_is_announced_is_what_is_reserved(service: Service, limits: ProjectHas) -> None:
    limits[SIZE] = 10 * MIB
    with pytest.raises(errors.QuotaExceeded):
        upload(service, Piped(5), announced=11 * MIB)
    with pytest.raises(errors.SizeMismatch):
        upload(service, Piped(2 * MIB), announced=MIB)
    assert nothing_left(service)
    assert usage(service)[SIZE] == 0


@pytest.mark.slow
@pytest.mark.parametrize("announced", [True, False])
def test_of_a_hundred_uploads_ten_fit(
    service: Service, limits: ProjectHas, announced: bool
) -> None:
    size = len(DATA) if announced else 3 * MIB
    limits[SIZE] = 10 * size
    ids = [service.record() for _ in range(100)]
    start = threading.Barrier(100)

    def one(image_id: str) -> bool:
        start.wait()
        try:
            body = Paused(DATA) if announced else Piped(size)
            service.content.upload(ADMIN, image_id, body)
        except errors.QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(100) as pool:
        assert sum(pool.map(one, ids)) == 10
    assert len(service.files()) == 10
    assert usage(service)[SIZE] == limits[SIZE]


@pytest.mark.parametrize(
    "failing",
    [Paused(b"QFI\xfb" + bytes(1000)), Paused(DATA, lambda: 1 / 0)],
    ids=["bad", "broken"],
)
def test_what_fails_gives_back(service: Service, limits: ProjectHas, failing: Paused) -> None:
    limits[SIZE] = 2000
    with pytest.raises((errors.UnsafeImage, ZeroDivisionError)):
        upload(service, failing)
    assert usage(service)[SIZE] == 0
    assert usage(service)[UPLOADING] == 0


def test_ossa_2015_003_deleting_meanwhile_frees_nothing(
    service: Service, limits: ProjectHas
) -> None:
    limits[SIZE] = 1500
    image_id = service.record()
    refused = []

    def meanwhile() -> None:
        service.images.delete(ADMIN, image_id)
        with pytest.raises(errors.QuotaExceeded) as caught:
            upload(service, Paused(DATA))
        refused.append(caught.value)

    with pytest.raises(errors.ImageGone):
        service.content.upload(ADMIN, image_id, Paused(DATA, meanwhile))
    assert refused
    assert nothing_left(service)
    upload(service, Paused(DATA))


def test_what_a_dead_process_reserved_is_free_after_it(
    service: Service, limits: ProjectHas
) -> None:
    limits[SIZE] = 1500
    image_id = service.record()
    demand = quotas.Demand(None, limits, {SIZE: len(DATA)})
    now = service.clock()
    image = shown(service, image_id)
    uploads.claim(service.database, image, "lost", "elsewhere/1/1", now, Status.SAVING, demand)
    with pytest.raises(errors.QuotaExceeded):
        upload(service, Paused(DATA))
    service.housekeeping.sweep()
    assert usage(service)[SIZE] == len(DATA)
    service.clock.ahead = timedelta(minutes=5)
    service.housekeeping.sweep()
    assert usage(service)[SIZE] == 0
    upload(service, Paused(DATA))


def test_uploads_at_a_time_are_counted(service: Service, limits: ProjectHas) -> None:
    limits[UPLOADING] = 2
    refused = []

    def third() -> None:
        with pytest.raises(errors.QuotaExceeded) as caught:
            upload(service, Paused(DATA))
        refused.append(caught.value)

    def second() -> None:
        upload(service, Paused(DATA, third))

    upload(service, Paused(DATA, second))
    assert refused
    assert (len(service.files()), usage(service)[UPLOADING]) == (2, 0)


def test_ossn_0076_images_are_counted(service: Service, limits: ProjectHas) -> None:
    limits[COUNT] = 2
    first, _ = service.record(), service.record()
    with pytest.raises(errors.QuotaExceeded):
        service.record()
    service.images.delete(ADMIN, first)
    service.record()
    # Of a project each.
    service.images.create(OWNER, RAW)


def test_a_new_owner_is_asked_for_room(service: Service, limits: ProjectHas) -> None:
    limits |= {SIZE: 1500, COUNT: 2}
    first, second = (upload(service, Paused(DATA[:750])) for _ in range(2))
    to_another = [Change(ChangeOp.REPLACE, "owner", "another")]
    service.images.update(ADMIN, first, to_another)
    assert quotas.usage(service.database, "another")[SIZE] == 750
    limits[SIZE] = 1499
    with pytest.raises(errors.QuotaExceeded):
        service.images.update(ADMIN, second, to_another)
    assert shown(service, second).owner is None
    # What changes no owner asks for nothing.
    limits[SIZE] = 0
    service.images.update(ADMIN, first, [*to_another, Change(ChangeOp.ADD, "name", "new")])


# --- imports


def test_staged_data_has_a_quota_of_its_own(service: Service, limits: ProjectHas) -> None:
    limits |= {STAGE: 1500, SIZE: 1000}
    first = stage(service, Paused(DATA))
    with pytest.raises(errors.QuotaExceeded):
        stage(service, Paused(DATA))
    with pytest.raises(errors.QuotaExceeded):
        stage(service, Piped(501))
    assert usage(service) == {STAGE: 1000, SIZE: 0, COUNT: 3, UPLOADING: 1}
    service.imports.begin(ADMIN, first, ImportRequest("glance-direct"))
    assert settled(service, first).status is Status.ACTIVE
    assert usage(service) == {STAGE: 0, SIZE: 1000, COUNT: 3, UPLOADING: 0}
    second = stage(service, Piped(500))
    with pytest.raises(errors.QuotaExceeded):
        service.imports.begin(ADMIN, second, ImportRequest("glance-direct"))
    assert shown(service, second).status is Status.UPLOADING


def test_an_import_of_staged_data_is_no_upload_more(service: Service, limits: ProjectHas) -> None:
    limits[UPLOADING] = 1
    image_id = stage(service, Paused(DATA))
    service.imports.begin(ADMIN, image_id, ImportRequest("glance-direct"))
    assert settled(service, image_id).status is Status.ACTIVE


def test_an_import_reserves_for_each_store(several: Service, limits: ProjectHas) -> None:
    limits[SIZE] = 2999
    image_id = stage(several, Paused(DATA))
    everywhere = ImportRequest("glance-direct", all_stores=True)
    with pytest.raises(errors.QuotaExceeded):
        several.imports.begin(ADMIN, image_id, everywhere)
    limits[SIZE] = 3000
    several.imports.begin(ADMIN, image_id, everywhere)
    assert settled(several, image_id).status is Status.ACTIVE
    assert usage(several)[SIZE] == 3000


@pytest.mark.parametrize("all_must_succeed", [True, False])
def test_a_copy_reserves_for_each_store(
    several: Service, limits: ProjectHas, all_must_succeed: bool
) -> None:
    limits[SIZE] = 2999
    image_id = upload(several, Paused(DATA))
    request = ImportRequest("copy-image", all_stores=True, all_must_succeed=all_must_succeed)
    with pytest.raises(errors.QuotaExceeded):
        several.imports.begin(ADMIN, image_id, request)
    limits[SIZE] = 3000
    several.imports.begin(ADMIN, image_id, request)
    assert len(settled(several, image_id).locations) == 3
    assert usage(several)[SIZE] == 3000


def test_what_is_not_copied_is_free_again(
    several: Service, limits: ProjectHas, tmp_path: Path
) -> None:
    limits[SIZE] = 3000
    image_id = upload(several, Paused(DATA))
    (tmp_path / "spare" / image_id).write_bytes(b"somebody else's")
    request = ImportRequest("copy-image", all_stores=True, all_must_succeed=False)
    several.imports.begin(ADMIN, image_id, request)
    assert len(settled(several, image_id).locations) == 2
    assert usage(several)[SIZE] == 2000


def sends(size: int, told: int | None) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """An origin's answer of ``size`` bytes that says it is of ``told``, or not of how many."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if told is not None:
            handler.send_header("Content-Length", str(told))
        handler.end_headers()
        try:
            for sent in range(0, size, MIB):
                handler.wfile.write(bytes(min(MIB, size - sent)))
        except OSError:
            pass  # refused

    return answer


def fetched(service: Service, image_id: str, uri: str) -> Image:
    service.imports.begin(ADMIN, image_id, ImportRequest("web-download", uri))
    return settled(service, image_id)


@pytest.mark.parametrize("told", [True, False])
def test_what_is_fetched_is_reserved(service: Service, limits: ProjectHas, told: bool) -> None:
    size = 80 * MIB
    image_id = service.record()
    with origin(sends(size, size if told else None)) as uri:
        limits[SIZE] = size - 1
        assert fetched(service, image_id, uri).status is Status.QUEUED
        assert "image_size_total" in task(service, image_id).message
        assert nothing_left(service)
        assert usage(service)[SIZE] == 0
        limits[SIZE] = size
        assert fetched(service, image_id, uri).status is Status.ACTIVE
        assert usage(service)[SIZE] == size
        with pytest.raises(errors.QuotaExceeded):
            fetched(service, service.record(), uri)


def test_an_origin_that_lies_of_its_length(service: Service, limits: ProjectHas) -> None:
    limits[SIZE] = 10 * MIB
    image_id = service.record()
    with origin(sends(20 * MIB, MIB)) as uri:
        assert fetched(service, image_id, uri).size == MIB
    with origin(sends(MIB, 2 * MIB)) as uri:
        assert fetched(service, service.record(), uri).status is Status.QUEUED
    with origin(sends(MIB, 20 * MIB)) as uri:
        assert fetched(service, service.record(), uri).status is Status.QUEUED
    assert usage(service)[SIZE] == MIB


def test_a_task_that_makes_an_image_takes_of_each(service: Service, limits: ProjectHas) -> None:
    limits |= {SIZE: MIB, COUNT: 1}
    with origin(sends(2 * MIB, 2 * MIB)) as uri:
        service.tasks.create(ADMIN, NewImage(uri, "raw", {}))
        idle(service)
    assert (usage(service)[SIZE], usage(service)[COUNT]) == (0, 0)
    with origin(sends(MIB, MIB)) as uri:
        service.tasks.create(ADMIN, NewImage(uri, "raw", {}))
        idle(service)
        assert (usage(service)[SIZE], usage(service)[COUNT]) == (MIB, 1)
        with pytest.raises(errors.QuotaExceeded):
            service.tasks.create(ADMIN, NewImage(uri, "raw", {}))
        with pytest.raises(errors.QuotaExceeded):
            service.record()


def test_another_regions_image_is_reserved(service: Service, limits: ProjectHas) -> None:
    size = len(test_regions.DATA)
    limits[SIZE] = size - 1
    image = test_regions.downloaded(service, test_regions.Region())
    assert image.status is Status.QUEUED
    assert "image_size_total" in task(service, image.id).message
    limits[SIZE] = size
    assert test_regions.downloaded(service, test_regions.Region()).status is Status.ACTIVE
    assert usage(service)[SIZE] == size


@pytest.fixture
def unpacking(tmp_path: Path, limits: ProjectHas) -> Iterator[Service]:
    """Writes to two of three stores at a time what it has decompressed."""
    ids = ("fast", "cheap", "spare")
    stores = [FilesystemStore(each, tmp_path / each) for each in ids]
    registry = Registry(stores, "fast", dict.fromkeys(ids, Label()))
    rules = JobRules(4, stores=2, plugins=(Decompression(1 << 30, 10_000),))
    yield from serving(tmp_path, registry, job_rules=rules, project_limits=limits)


def test_what_is_decompressed_is_reserved(unpacking: Service, limits: ProjectHas) -> None:
    size = 70 * MIB
    packed = gzip.compress(bytes(size))
    request = ImportRequest("web-download", all_stores=True, all_must_succeed=False)
    with origin(sending(packed)) as uri:
        limits[SIZE] = 3 * size - 1
        image_id = unpacking.record()
        unpacking.imports.begin(ADMIN, image_id, replace(request, uri=uri))
        assert settled(unpacking, image_id).status is Status.QUEUED
        assert "image_size_total" in task(unpacking, image_id).message
        assert usage(unpacking)[SIZE] == 0
        limits[SIZE] = 3 * size
        unpacking.imports.begin(ADMIN, image_id, replace(request, uri=uri))
        assert len(settled(unpacking, image_id).locations) == 3
        assert usage(unpacking)[SIZE] == 3 * size


# --- locations


def test_registered_data_counts(several: Service, limits: ProjectHas, tmp_path: Path) -> None:
    file = tmp_path / "listed" / "image"
    file.write_bytes(DATA)
    limits[SIZE] = 999
    image_id = several.record()
    named = Named(f"file://{file}", {})
    change = LocationChange(ChangeOp.ADD, (named,))
    with pytest.raises(errors.QuotaExceeded):
        several.locations.add(ADMIN, image_id, named)
    with pytest.raises(errors.QuotaExceeded):
        several.locations.update(ADMIN, image_id, [change])
    limits[SIZE] = 1000
    several.locations.update(ADMIN, image_id, [change])
    assert usage(several)[SIZE] == 1000
    copy = tmp_path / "listed" / "copy"
    copy.write_bytes(DATA)
    with pytest.raises(errors.QuotaExceeded):
        several.locations.update(
            ADMIN, image_id, [LocationChange(ChangeOp.ADD, (Named(f"file://{copy}", {}),))]
        )


# --- limits


def test_some_projects_may_have_more_or_less() -> None:
    limits = ProjectLimits(
        {SIZE: 5, COUNT: -1}, {"rich": {SIZE: -1, COUNT: 7}, "poor": {SIZE: 0}, "": {SIZE: 1}}
    )
    assert limits.of("any") == {SIZE: 5}
    assert limits.of("rich") == {COUNT: 7}
    assert limits.of("poor") == {SIZE: 0}
    assert limits.of(None) == {SIZE: 1}
