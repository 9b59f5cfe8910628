"""Which stores the lease of whoever writes an image's data names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.db import uploads
from headrace.model import MIB, Resource
from headrace.service.imports import ImportRequest
from headrace.service.jobs import JobRules
from headrace.service.locations import Hashes, Named
from headrace.service.tasks import NewImage
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.listed import ListedFiles
from headrace.stores.registry import Label, Registry
from tests.service.conftest import ADMIN, Service, serving
from tests.service.test_named_locations import settled
from tests.service.test_races import Paused

DATA = b"data"
GUARD = 30.0  # seconds; a hang guard
URI = "http://127.0.0.1:1/image"


@pytest.fixture(params=[None, {Resource.SIZE: MIB, Resource.STAGE: MIB}])
def held_up(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service with several stores, with quotas and without, that begins no import."""
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "image.img").write_bytes(DATA)
    stores = [FilesystemStore(each, tmp_path / each) for each in ("images", "cheap")]
    labels = {store.id: Label() for store in stores}
    files = ListedFiles("", [str(listed)], [str(tmp_path / "images")])
    registry, limits = Registry(stores, "images", labels, [files]), request.param
    yield from serving(tmp_path, registry, job_rules=JobRules(0), project_limits=limits)


def named(service: Service) -> list[tuple[str, ...] | None]:
    return [lease.stores for lease in uploads.leases(service.database)]


def stage(service: Service) -> str:
    image_id = service.record()
    service.staging.stage(ADMIN, image_id, Paused(DATA), None, lambda _: None)
    return image_id


@pytest.mark.parametrize("store_id", [None, "cheap"])
def test_an_upload_names_the_store_it_is_sent_to(held_up: Service, store_id: str | None) -> None:
    seen: list[tuple[str, ...] | None] = []
    body = Paused(DATA, lambda: seen.extend(named(held_up)))
    held_up.content.upload(ADMIN, held_up.record(), body, store_id=store_id)
    assert seen == [(store_id or "images",)]


def test_what_is_staged_is_in_no_store(held_up: Service) -> None:
    seen: list[tuple[str, ...] | None] = []
    body = Paused(DATA, lambda: seen.extend(named(held_up)))
    held_up.staging.stage(ADMIN, held_up.record(), body, None, lambda _: None)
    assert seen == [()]


def test_an_import_names_all_that_it_may_write_to(held_up: Service) -> None:
    request = ImportRequest("glance-direct", all_stores=True)
    held_up.imports.begin(ADMIN, stage(held_up), request)
    assert named(held_up) == [("images", "cheap")]


def test_a_copy_names_those_that_do_not_have_the_data(held_up: Service) -> None:
    image_id = held_up.record()
    held_up.content.upload(ADMIN, image_id, Paused(DATA))
    held_up.imports.begin(ADMIN, image_id, ImportRequest("copy-image", all_stores=True))
    assert named(held_up) == [("cheap",)]


def test_a_task_that_makes_an_image_names_the_default_store(held_up: Service) -> None:
    held_up.tasks.create(ADMIN, NewImage(URI, "raw", {}))
    assert named(held_up) == [("images",)]


@pytest.mark.parametrize("hashes", [None, Hashes("sha256", "0" * 64)])
def test_data_that_a_caller_named_is_only_hashed(held_up: Service, hashes: Hashes | None) -> None:
    """Behind the active image, and before it is active."""
    taken = [held_up.locations._turns.acquire(timeout=GUARD) for _ in range(2)]
    assert all(taken)  # so that hashing waits
    place = Named(f"file://{held_up.datadir.parent}/listed/image.img", {}, hashes)
    image_id = held_up.record()
    held_up.locations.add(ADMIN, image_id, place)
    assert named(held_up) == [()]
    for _ in taken:
        held_up.locations._turns.release()
    settled(held_up, image_id)
