"""Several stores: where data goes, from where it is read, and how it leaves one of them."""

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import schema
from headrace.db.images import insert_location
from headrace.model import Location, Status, Viewer
from headrace.service.context import Context
from tests.service.conftest import ADMIN, Service
from tests.service.test_races import Paused

ROWS = schema.image_locations


def uploaded(service: Service, store_id: str | None = None) -> str:
    image_id = service.record()
    service.content.upload(ADMIN, image_id, Paused(b"data"), store_id=store_id)
    return image_id


def copied(service: Service, image_id: str) -> None:
    """Have the image's data in the other store, too."""
    target = service.registry.get("cheap").url(image_id)
    shutil.copy(service.datadir / image_id, target.removeprefix("file://"))
    with service.database.write() as connection:
        location = Location(target, {"store": "cheap"})
        insert_location(connection, image_id, location, service.clock())


def rows(service: Service, image_id: str) -> list[tuple[str, dict[str, object], str, bool]]:
    """URL, metadata, status, deleted of every row, in their order."""
    columns = (ROWS.c.value, ROWS.c.meta_data, ROWS.c.status, ROWS.c.deleted)
    statement = sa.select(*columns).where(ROWS.c.image_id == image_id).order_by(ROWS.c.id)
    with service.database.read() as connection:
        return [(a, json.loads(b), c, d) for a, b, c, d in connection.execute(statement)]


def read(service: Service, image_id: str, *preferred: str) -> tuple[str, bytes]:
    """The path that a download is from, and its bytes."""
    _, data = service.content.download(ADMIN, image_id, preferred)
    assert data is not None
    with contextlib.closing(data):
        return data.path, data.read()


def test_an_upload_goes_where_it_is_sent(several: Service) -> None:
    for chosen, store_id in ((None, "fast"), ("fast", "fast"), ("cheap", "cheap")):
        image_id = uploaded(several, chosen)
        url = several.registry.get(store_id).url(image_id)
        assert rows(several, image_id) == [(url, {"store": store_id}, "active", False)]
    image_id = several.record()
    with pytest.raises(errors.UnknownStore):
        several.content.upload(ADMIN, image_id, Paused(b"data"), store_id="Fast")
    assert several.images.show(ADMIN, image_id).status is Status.QUEUED


def test_one_store_notes_nothing_beside_a_location(service: Service) -> None:
    image_id = uploaded(service, "whatever")
    assert [metadata for _, metadata, _, _ in rows(service, image_id)] == [{}]


def test_the_heaviest_is_read_unless_another_is_preferred(several: Service) -> None:
    image_id = uploaded(several)
    copied(several, image_id)
    fast, cheap = (str(several.datadir.parent / each / image_id) for each in ("images", "cheap"))
    assert read(several, image_id) == (fast, b"data")
    assert read(several, image_id, "cheap") == (cheap, b"data")
    assert read(several, image_id, "fast", "cheap") == (fast, b"data")
    with pytest.raises(errors.UnknownStore):
        read(several, image_id, "cheap", "slow")
    (several.datadir / image_id).unlink()
    assert read(several, image_id) == (cheap, b"data")


@pytest.mark.parametrize("metadata", ["{}", None, '{"store": "gone"}', '{"backend": "fast"}'])
def test_a_store_that_is_not_noted_is_found_by_the_url_and_noted(
    several: Service, metadata: str | None
) -> None:
    image_id = uploaded(several, "cheap")
    with several.database.write() as connection:
        connection.execute(sa.update(ROWS).values(meta_data=metadata))
    assert read(several, image_id)[1] == b"data"
    ((_, noted, _, _),) = rows(several, image_id)
    assert noted == {**json.loads(metadata or "{}"), "store": "cheap"}


def test_data_leaves_one_store(several: Service) -> None:
    image_id = uploaded(several)
    copied(several, image_id)
    several.stores.delete_data(ADMIN, "fast", image_id)
    assert several.files() == []
    assert [(status, deleted) for _, _, status, deleted in rows(several, image_id)] == [
        ("deleted", True), ("active", False),
    ]  # fmt: skip
    assert read(several, image_id)[1] == b"data"


def test_ossa_2016_006_the_last_copy_stays(several: Service) -> None:
    image_id = uploaded(several)
    for store_id in ("fast", "cheap"):  # whether it is there or not
        with pytest.raises(errors.LastLocation):
            several.stores.delete_data(ADMIN, store_id, image_id)
    copied(several, image_id)
    several.stores.delete_data(ADMIN, "fast", image_id)
    with pytest.raises(errors.LastLocation):
        several.stores.delete_data(ADMIN, "cheap", image_id)
    assert read(several, image_id)[1] == b"data"


def test_ossa_2016_006_of_two_who_remove_the_last_two_copies_one_is_refused(
    several: Service,
) -> None:
    for _ in range(10):
        image_id = uploaded(several)
        copied(several, image_id)

        def remove(store_id: str, image_id: str = image_id) -> str:
            try:
                several.stores.delete_data(ADMIN, store_id, image_id)
            except errors.LastLocation:
                return "refused"
            return "done"

        with ThreadPoolExecutor(2) as threads:
            assert sorted(threads.map(remove, ("fast", "cheap"))) == ["done", "refused"]
        assert read(several, image_id)[1] == b"data"


def test_who_may_not_remove_and_what_is_not_there(several: Service) -> None:
    image_id = uploaded(several)
    copied(several, image_id)
    owner = Context(Viewer(project_id="me"), frozenset({"member"}))
    several.images.update(ADMIN, image_id, [])
    with pytest.raises(errors.Conflict):
        several.stores.delete_data(ADMIN, "slow", image_id)
    with pytest.raises(errors.ImageNotFound):
        several.stores.delete_data(ADMIN, "fast", "00000000-0000-4000-8000-000000000000")
    with pytest.raises(errors.Forbidden):
        several.stores.delete_data(owner, "fast", image_id)
    with pytest.raises(errors.StatusConflict):
        several.stores.delete_data(ADMIN, "fast", several.record())
    assert len(rows(several, image_id)) == 2


@pytest.mark.parametrize("role", ["member", "reader", "none"])
def test_stores_in_detail_are_for_administrators(several: Service, role: str) -> None:
    assert several.stores.detail(ADMIN) == several.stores.info()
    with pytest.raises(errors.Forbidden):
        several.stores.detail(Context(Viewer(project_id="me"), frozenset({role})))


def test_data_that_a_crash_left_in_a_store_is_removed_later(several: Service) -> None:
    """The record is changed first; what is left is removed when nobody can be at it any more."""
    image_id = uploaded(several)
    copied(several, image_id)
    gone = {"status": "pending_delete", "deleted": True, "deleted_at": several.clock()}
    with several.database.write() as connection:
        connection.execute(sa.update(ROWS).where(ROWS.c.value.like("%/images/%")).values(gone))
    several.housekeeping.sweep()
    assert several.files() == [image_id]
    several.clock.ahead = timedelta(seconds=61)
    several.housekeeping.sweep()
    assert several.files() == []
    assert read(several, image_id)[1] == b"data"


def test_data_is_not_removed_where_it_has_come_back_to(several: Service) -> None:
    image_id = uploaded(several)
    copied(several, image_id)
    gone = {"status": "pending_delete", "deleted": True, "deleted_at": several.clock()}
    with several.database.write() as connection:
        connection.execute(sa.update(ROWS).where(ROWS.c.value.like("%/images/%")).values(gone))
        again = Location(several.registry.get("fast").url(image_id), {"store": "fast"})
        insert_location(connection, image_id, again, several.clock())
    several.clock.ahead = timedelta(seconds=61)
    several.housekeeping.sweep()
    assert several.files() == [image_id]


def test_a_deleted_image_leaves_all_its_stores(several: Service) -> None:
    image_id = uploaded(several)
    copied(several, image_id)
    several.images.delete(ADMIN, image_id)
    assert several.files() == []
    assert list((several.datadir.parent / "cheap").iterdir()) == []


def test_an_upload_that_died_leaves_nothing_in_whichever_store(several: Service) -> None:
    image_id = several.record()
    stored = several.datadir.parent / "cheap" / image_id
    stored.write_bytes(b"published, not recorded")
    with several.database.write() as connection:
        connection.execute(sa.update(schema.images).values(status="saving"))
        lease = {"image_id": image_id, "upload_id": "x", "worker": "elsewhere/1/1"}
        connection.execute(sa.insert(schema.uploads), {**lease, "heartbeat": several.clock()})
    several.clock.ahead = timedelta(seconds=61)
    several.housekeeping.sweep()
    assert several.images.show(ADMIN, image_id).status is Status.QUEUED
    assert not stored.exists()
