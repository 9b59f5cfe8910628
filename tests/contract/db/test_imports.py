"""Imports on record: the lock, the task and the lease, on every database."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import images, imports, migrate, schema, tasks, uploads
from headrace.db.engine import Database
from headrace.model import IMPORT_LOCK, TASK_LIFE, Image, Location, Status, Task, TaskQuery, Viewer
from tests.contract.db.examples import NOW, image

LATER = NOW + timedelta(minutes=5)
ADMIN = Viewer(is_admin=True)
FOUND = {"size": 5, "virtual_size": 5, "os_hash_algo": "sha256", "os_hash_value": "ab"}
PLACE = Location("file:///images/x", {"store": "fast"})


def task(image_id: str, number: int = 1, at: datetime = NOW) -> Task:
    return Task(
        id=f"00000000-0000-0000-0000-00000000000{number}",
        owner="project",
        image_id=image_id,
        request_id="req-1",
        input={"image_id": image_id, "import_req": {"method": {"name": "web-download"}}},
        created_at=at,
        updated_at=at,
    )


def begun(database: Database, number: int = 1) -> tuple[Image, Task]:
    queued = image(disk_format="raw", container_format="bare")
    images.create(database, queued)
    made = task(queued.id, number)
    imports.begin(
        database, queued, made, "worker", Status.IMPORTING, {"os_glance_x": "a,b"},
        stores=("fast", "cheap"),
    )  # fmt: skip
    return queued, made


def shown(database: Database, image_id: str) -> Image:
    return images.show(database, image_id, ADMIN)


def test_an_import_begins_with_lock_task_and_lease(database: Database) -> None:
    queued, made = begun(database)
    now = shown(database, queued.id)
    assert now.status is Status.IMPORTING
    assert now.properties == {IMPORT_LOCK: made.id, "os_glance_x": "a,b"}
    (lease,) = uploads.leases(database)
    assert (lease.upload_id, lease.stores) == (made.id, ("fast", "cheap"))
    assert tasks.show(database, made.id) == made
    assert tasks.of_image(database, queued.id) == [made]


def test_nobody_else_begins_one(database: Database) -> None:
    queued, made = begun(database)
    now = shown(database, queued.id)
    with pytest.raises(errors.ImageBusy):
        imports.begin(database, now, task(queued.id, 2), "other", Status.IMPORTING, {})
    with pytest.raises(errors.ImageChanged):
        imports.begin(database, queued, task(queued.id, 2), "other", Status.IMPORTING, {})
    assert tasks.of_image(database, queued.id) == [made]


def test_an_import_that_ends_well(database: Database) -> None:
    queued, made = begun(database)
    assert imports.take(database, made.id, NOW)
    assert not imports.take(database, made.id, NOW)
    assert imports.report(database, queued.id, made.id, "Copied 1 MiB", LATER)
    assert tasks.show(database, made.id).message == "Copied 1 MiB"
    imports.record(
        database,
        queued.id,
        made.id,
        locations=[PLACE],
        found=FOUND,
        properties={"os_glance_x": ""},
        ending=imports.Ending("done", LATER + TASK_LIFE),
        now=LATER,
    )
    now = shown(database, queued.id)
    assert (now.status, now.size, now.locations) == (Status.ACTIVE, 5, (PLACE,))
    assert now.properties == {"os_glance_x": ""}
    ended = tasks.show(database, made.id)
    assert (ended.status, ended.result) == ("success", {"image_id": queued.id})
    assert (ended.message, ended.expires_at) == ("done", LATER + TASK_LIFE)
    assert uploads.leases(database) == []
    assert not imports.report(database, queued.id, made.id, None, LATER)
    with database.read() as connection:  # Glance deletes the row of the lock, too
        names = set(connection.execute(sa.select(schema.image_properties.c.name)).scalars())
    assert names == {"os_glance_x"}


def test_an_import_that_made_other_formats(database: Database) -> None:
    queued, made = begun(database)
    formats = {"disk_format": "qcow2", "container_format": "bare"}
    imports.record(
        database, queued.id, made.id,
        locations=[PLACE], found=FOUND | formats, properties={"origin": "import"},
        ending=imports.Ending("done", LATER), now=LATER,
    )  # fmt: skip
    now = shown(database, queued.id)
    assert (now.disk_format, now.container_format) == ("qcow2", "bare")
    assert now.properties["origin"] == "import"


@pytest.mark.parametrize("how", ["release", "expire"])
def test_a_task_that_failed_is_kept_for_its_time(database: Database, how: str) -> None:
    queued, made = begun(database)
    life = timedelta(hours=3)
    if how == "release":
        uploads.release(database, queued.id, made.id, LATER, task_life=life)
    else:
        (lease,) = uploads.leases(database)
        assert uploads.expire(database, lease, LATER, task_life=life)
    assert tasks.show(database, made.id).expires_at == LATER + life


def test_a_store_after_the_other(database: Database) -> None:
    queued, made = begun(database)
    second = Location("file:///cheap/x", {"store": "cheap"})
    for place, found, ending in (
        (PLACE, FOUND, None),
        (second, None, imports.Ending("done", LATER)),
    ):
        imports.record(
            database, queued.id, made.id,
            locations=[place], found=found, properties={}, ending=ending, now=LATER,
        )  # fmt: skip
        assert shown(database, queued.id).status is Status.ACTIVE
    assert shown(database, queued.id).locations == (PLACE, second)


def record(database: Database, image_id: str, task_id: str) -> None:
    imports.record(
        database,
        image_id,
        task_id,
        locations=[PLACE],
        found=FOUND,
        properties={},
        ending=imports.Ending("done", LATER),
        now=LATER,
    )


def delete(database: Database, queued: Image, _made: Task) -> None:
    images.delete(database, shown(database, queued.id), LATER)


def expire(database: Database, _queued: Image, _made: Task) -> None:
    (lease,) = uploads.leases(database)
    assert uploads.expire(database, lease, LATER)


def steal(database: Database, queued: Image, _made: Task) -> None:
    with database.write() as connection:
        connection.execute(sa.update(schema.image_properties).values(value="theirs"))


@pytest.mark.parametrize(
    ("meanwhile", "error"),
    [(delete, errors.ImageGone), (expire, errors.StatusConflict), (steal, errors.ImageBusy)],
)
def test_what_was_lost_is_not_recorded(
    database: Database,
    meanwhile: Callable[[Database, Image, Task], None],
    error: type[errors.Error],
) -> None:
    queued, made = begun(database)
    meanwhile(database, queued, made)
    with pytest.raises(error):
        record(database, queued.id, made.id)
    with database.read() as connection:
        places = sa.select(sa.func.count()).select_from(schema.image_locations)
        assert connection.execute(places).scalar_one() == 0


def test_an_import_that_fails(database: Database) -> None:
    queued, made = begun(database)
    discarded: list[str] = []
    uploads.release(
        database,
        queued.id,
        made.id,
        LATER,
        discard=lambda: discarded.append("data"),
        message="no answer",
        properties={"os_glance_x": "", "os_glance_failed": "b"},
    )
    now = shown(database, queued.id)
    assert (now.status, now.properties) == (
        Status.QUEUED, {"os_glance_x": "", "os_glance_failed": "b"}
    )  # fmt: skip
    failed = tasks.show(database, made.id)
    assert (failed.status, failed.message) == ("failure", "no answer")
    assert discarded == ["data"]
    imports.begin(database, now, task(queued.id, 2), "worker", Status.IMPORTING, {})


def test_an_import_of_a_process_that_died(database: Database) -> None:
    queued, made = begun(database)
    expire(database, queued, made)
    now = shown(database, queued.id)
    assert (now.status, IMPORT_LOCK in now.properties) == (Status.QUEUED, False)
    assert tasks.show(database, made.id).status == "failure"


def release(database: Database, queued: Image, made: Task) -> None:
    uploads.release(database, queued.id, made.id, LATER)


@pytest.mark.parametrize("end", [expire, release])
def test_an_image_that_a_task_makes_goes_with_it(
    database: Database, end: Callable[[Database, Image, Task], None]
) -> None:
    new = image(
        status=Status.IMPORTING, disk_format="raw", properties={"a": "b"}, tags=frozenset({"t"})
    )
    made = replace(task(new.id), type="import")
    imports.create(database, new, made, "worker", {"os_glance_x": "a,b"}, stores=("fast",))
    assert [lease.stores for lease in uploads.leases(database)] == [("fast",)]
    now = shown(database, new.id)
    assert now.properties == {"a": "b", IMPORT_LOCK: made.id, "os_glance_x": "a,b"}
    end(database, new, made)
    with pytest.raises(errors.ImageNotFound):
        shown(database, new.id)
    assert tasks.show(database, made.id).status == "failure"
    assert uploads.leases(database) == []
    with database.read() as connection:
        for table in (schema.images, schema.image_properties, schema.image_tags):
            left = sa.select(sa.func.count()).where(table.c.deleted == sa.false())
            assert connection.execute(left).scalar_one() == 0
    with pytest.raises(errors.ImageExists):
        imports.create(database, new, task(new.id, 2), "worker", {})
    assert len(tasks.of_image(database, new.id)) == 1


def test_a_task_keeps_any_characters_and_not_too_many(database: Database) -> None:
    for text, taken in (("é😀" * 100, True), ("x" * 65535, False)):
        new = image(status=Status.IMPORTING, disk_format="raw")
        made = replace(task(new.id, 1 if taken else 2), input={"a": text})
        if taken:
            imports.create(database, new, made, "worker", {})
            assert tasks.show(database, made.id).input == {"a": text}
            continue
        with pytest.raises(errors.TooLarge):
            imports.create(database, new, made, "worker", {})
        with pytest.raises(errors.ImageNotFound):
            shown(database, new.id)


def test_an_image_that_a_task_made_stays(database: Database) -> None:
    new = image(status=Status.IMPORTING, disk_format="raw")
    made = replace(task(new.id), type="import")
    imports.create(database, new, made, "worker", {})
    record(database, new.id, made.id)
    assert shown(database, new.id).status is Status.ACTIVE
    release(database, new, made)
    assert shown(database, new.id).status is Status.ACTIVE


def test_only_what_is_alive_beats(database: Database) -> None:
    _, made = begun(database)
    imports.beat(database, [made.id, "unknown"], LATER)
    assert tasks.show(database, made.id).updated_at == LATER


def test_tasks_come_in_pages(database: Database) -> None:
    made = [begun(database, number)[1].id for number in range(1, 6)]
    found: list[str] = []
    while page := tasks.list_page(
        database, TaskQuery(limit=2, marker=found[-1] if found else None)
    ):
        found += [each.id for each in page]
    assert found == made[::-1]
    by_time = TaskQuery(limit=2, marker=made[1], sort_key="updated_at", descending=False)
    assert [each.id for each in tasks.list_page(database, by_time)] == made[2:4]
    assert tasks.list_page(database, TaskQuery(status="success")) == []
    assert len(tasks.list_page(database, TaskQuery(type="api_image_import"))) == 5
    with pytest.raises(errors.InvalidQuery):
        tasks.list_page(database, TaskQuery(marker="unknown"))


def test_tasks_are_forgotten_when_their_time_is_over(database: Database) -> None:
    queued, made = begun(database)
    record(database, queued.id, made.id)
    tasks.forget(database, LATER)
    assert tasks.show(database, made.id).status == "success"
    tasks.forget(database, LATER + timedelta(seconds=1))
    with pytest.raises(errors.NotFound):
        tasks.show(database, made.id)


def test_staged_data_is_wanted_until_it_is_imported(database: Database) -> None:
    queued = image()
    images.create(database, queued)
    discarded: list[str] = []

    def wanted() -> bool:
        return not uploads.unstage(database, queued.id, lambda: discarded.append(queued.id))

    assert not wanted()
    uploads.claim(database, queued, "one", "worker", NOW, Status.UPLOADING)
    assert wanted()
    uploads.staged(database, queued.id, "one", 5, LATER)
    assert wanted()
    now = shown(database, queued.id)
    assert (now.status, now.size, uploads.leases(database)) == (Status.UPLOADING, 5, [])
    images.delete(database, now, LATER)
    assert not wanted()
    assert discarded == [queued.id] * 2


def test_what_is_not_on_record_is_tidied_when_nobody_is_at_work(database: Database) -> None:
    queued, made = begun(database)
    seen: list[list[str]] = []

    def tidy() -> None:
        uploads.tidy(database, queued.id, lambda live: seen.append([each.url for each in live]))

    tidy()
    record(database, queued.id, made.id)
    tidy()
    assert seen == [[PLACE.url]]
    again = task(queued.id, 2)
    imports.begin(database, shown(database, queued.id), again, "worker", Status.ACTIVE, {})
    tidy()
    assert len(seen) == 1


def test_a_database_that_is_handed_back_has_no_import_of_ours(database: Database) -> None:
    queued, made = begun(database)
    migrate.hand_back(database)
    migrate.prepare(database)
    now = shown(database, queued.id)
    assert (now.status, IMPORT_LOCK in now.properties) == (Status.QUEUED, False)
    assert tasks.show(database, made.id).status == "failure"
