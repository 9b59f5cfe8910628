"""Uploads in progress, on every kind of database."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from headrace import errors
from headrace.db import images, locations, schema, uploads
from headrace.db.engine import Database
from headrace.db.uploads import Lease
from headrace.model import Image, Location, Status
from tests.contract.db.examples import ADMIN, LATER, NOW, image, statements, stored

LOCATION = Location("file:///data", {"store": "fast"})


@pytest.fixture
def queued(database: Database) -> Image:
    made = image(disk_format="raw", container_format="bare", properties={"a": "b"})
    images.create(database, made)
    return made


def activate(database: Database, image_id: str, upload_id: str, now: datetime = LATER) -> None:
    uploads.activate(
        database,
        image_id,
        upload_id,
        location=LOCATION,
        size=5,
        virtual_size=None,
        checksum="c" * 32,
        os_hash_algo="sha512",
        os_hash_value="d" * 128,
        now=now,
    )


def status(database: Database, made: Image) -> Status:
    return images.show(database, made.id, ADMIN).status


class Calls:
    """Counts its calls."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> None:
        self.number += 1


@pytest.fixture
def discard() -> Calls:
    return Calls()


def test_an_upload_ends_active(database: Database, queued: Image) -> None:
    with statements(database) as claimed:
        uploads.claim(database, queued, "one", "worker", NOW)
    assert status(database, queued) is Status.SAVING
    assert uploads.leases(database) == [Lease(queued.id, "one", "worker", NOW)]
    with statements(database) as activated:
        activate(database, queued.id, "one")
    assert (len(claimed), len(activated)) == (2, 3)
    assert uploads.leases(database) == []
    assert images.show(database, queued.id, ADMIN) == replace(
        queued,
        status=Status.ACTIVE,
        size=5,
        checksum="c" * 32,
        os_hash_algo="sha512",
        os_hash_value="d" * 128,
        locations=(LOCATION,),
        updated_at=LATER,
    )


def test_one_of_many_claims_wins(database: Database, queued: Image) -> None:
    start = threading.Barrier(8)

    def claim(number: int) -> str:
        start.wait()
        try:
            uploads.claim(database, queued, str(number), f"worker{number}", NOW)
        except errors.ImageChanged:
            return "lost"
        return "won"

    with ThreadPoolExecutor(8) as pool:
        results = sorted(pool.map(claim, range(8)))
    assert results == ["lost"] * 7 + ["won"]
    assert len(uploads.leases(database)) == 1


CLAIM = """
import sys
from datetime import datetime
from headrace import errors
from headrace.db import engine, images, uploads
from headrace.model import Viewer
url, worker, *ids = sys.argv[1:]
database = engine.connect(url)
known = [images.show(database, image_id, Viewer(is_admin=True)) for image_id in ids]
print("ready", flush=True)
sys.stdin.readline()
for image in known:
    try:
        uploads.claim(database, image, worker + image.id[6:], worker, datetime(2026, 1, 1))
        print(image.id)
    except errors.ImageChanged:
        pass
"""


def test_one_of_two_processes_has_each_upload(database: Database) -> None:
    made = [image() for _ in range(100)]
    for each in made:
        images.create(database, each)
    url = database.engine.url.render_as_string(hide_password=False)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, url, worker, *(each.id for each in made)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for worker in ("first", "other")
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(won[0] + won[1]) == sorted(each.id for each in made)
    held = {lease.image_id: lease.worker for lease in uploads.leases(database)}
    assert held == {
        image_id: worker
        for worker, ids in zip(("first", "other"), won, strict=True)
        for image_id in ids
    }


def test_a_deleted_image_cannot_be_claimed(database: Database, queued: Image) -> None:
    images.delete(database, queued, NOW)
    with pytest.raises(errors.ImageNotFound):
        uploads.claim(database, queued, "one", "worker", NOW)
    assert uploads.leases(database) == []


def test_an_image_queued_under_an_upload_cannot_be_claimed_yet(
    database: Database, queued: Image
) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    images.update(database, replace(queued, status=Status.SAVING), queued)
    with pytest.raises(errors.StatusConflict):
        uploads.claim(database, queued, "two", "worker", NOW)
    assert status(database, queued) is Status.QUEUED


def test_an_image_deleted_meanwhile_is_gone(
    database: Database, queued: Image, discard: Calls
) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    images.delete(database, replace(queued, status=Status.SAVING), NOW)
    with pytest.raises(errors.ImageGone):
        activate(database, queued.id, "one")
    assert stored(database, schema.image_locations, queued.id) == []
    uploads.release(database, queued.id, "one", LATER, discard=discard)
    assert discard.number == 1
    assert uploads.leases(database) == []
    (row,) = stored(database, schema.images, queued.id)
    assert (row["status"], row["deleted"]) == ("deleted", True)


def test_an_image_purged_meanwhile_is_gone(database: Database, queued: Image) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    with database.write() as connection:
        connection.execute(schema.image_properties.delete())
        connection.execute(schema.images.delete())
    with pytest.raises(errors.ImageGone):
        activate(database, queued.id, "one")


def test_an_upload_that_lost_its_lease_cannot_end_well(
    database: Database, queued: Image, discard: Calls
) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    (lease,) = uploads.leases(database)
    assert uploads.expire(database, lease, NOW)
    uploads.claim(database, queued, "two", "worker", NOW)
    with pytest.raises(errors.StatusConflict):
        activate(database, queued.id, "one")
    uploads.release(database, queued.id, "one", NOW, discard=discard)
    assert discard.number == 0, "what lies in the store may be the second upload's"
    activate(database, queued.id, "two")
    assert status(database, queued) is Status.ACTIVE


def test_a_status_changed_by_others_keeps_the_data_out(database: Database, queued: Image) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    killed = replace(queued, status=Status.KILLED)
    images.update(database, replace(queued, status=Status.SAVING), killed)
    with pytest.raises(errors.StatusConflict):
        activate(database, queued.id, "one")
    assert stored(database, schema.image_locations, queued.id) == []
    assert len(uploads.leases(database)) == 1, "an activation that fails changes nothing"
    uploads.release(database, queued.id, "one", NOW)
    assert status(database, queued) is Status.KILLED
    assert uploads.leases(database) == []


def test_the_data_of_a_delayed_delete_stays(
    database: Database, queued: Image, discard: Calls
) -> None:
    """Whoever was hashing it behind its back has died."""
    hashed = replace(queued, status=Status.ACTIVE, size=5, locations=(LOCATION,), updated_at=LATER)
    locations.save(database, queued, hashed, "one", "a worker")
    (lease,) = uploads.leases(database)
    images.delete(database, hashed, LATER, delayed=True)
    assert uploads.expire(database, lease, LATER, discard=discard)
    assert discard.number == 0
    assert images.delayed_data(database, LATER) == {queued.id: [LOCATION]}


def test_a_released_image_is_as_before(database: Database, queued: Image, discard: Calls) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    saving = replace(queued, status=Status.SAVING)
    images.update(database, saving, replace(saving, size=7, virtual_size=8, checksum="c"))
    uploads.release(database, queued.id, "one", LATER, discard=discard)
    assert discard.number == 1
    again = images.show(database, queued.id, ADMIN)
    assert again == replace(queued, updated_at=LATER)
    assert uploads.leases(database) == []
    uploads.claim(database, again, "two", "worker", NOW)


def test_a_release_without_a_lease_changes_nothing(
    database: Database, queued: Image, discard: Calls
) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    uploads.release(database, queued.id, "other", LATER, discard=discard)
    assert status(database, queued) is Status.SAVING
    assert len(uploads.leases(database)) == 1
    assert discard.number == 0


def test_an_orphan_of_a_lost_upload_is_discarded(
    database: Database, queued: Image, discard: Calls
) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    (lease,) = uploads.leases(database)
    uploads.expire(database, lease, NOW)
    # Published after the expiry, by an upload that was only slow: nobody else's, for none began.
    uploads.release(database, queued.id, "one", NOW, discard=discard)
    assert discard.number == 1


def test_what_cannot_be_discarded_stays_leased(database: Database, queued: Image) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)

    def fail() -> None:
        raise errors.StoreUnwritable

    with pytest.raises(errors.StoreUnwritable):
        uploads.release(database, queued.id, "one", NOW, discard=fail)
    assert len(uploads.leases(database)) == 1
    assert status(database, queued) is Status.SAVING


def test_nobody_begins_before_the_data_of_the_last_is_gone(
    database: Database, queued: Image
) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    order: list[str] = []

    def claim() -> None:
        # Waits for the release (SQLite), or is refused because it has not ended (the others).
        with contextlib.suppress(errors.StatusConflict):
            uploads.claim(database, queued, "two", "worker", NOW)
            order.append("claimed")

    with ThreadPoolExecutor(1) as pool:

        def discard() -> None:
            pool.submit(claim)
            threading.Event().wait(0.3)
            order.append("discarded")

        uploads.release(database, queued.id, "one", NOW, discard=discard)
    assert order[0] == "discarded"


def test_only_the_uploads_named_beat(database: Database) -> None:
    made = [image() for _ in range(4)]
    for number, each in enumerate(made):
        images.create(database, each)
        beat_at = NOW + timedelta(seconds=number)
        uploads.claim(database, each, str(number), f"worker{number % 2}", beat_at)
    assert [lease.upload_id for lease in uploads.leases(database)] == ["0", "1", "2", "3"]
    with statements(database) as beaten:
        uploads.beat(database, ["1", "3", "unknown"], LATER)
    assert len(beaten) == 1
    heartbeats = {lease.upload_id: lease.heartbeat for lease in uploads.leases(database)}
    assert heartbeats["1"] == heartbeats["3"] == LATER
    assert heartbeats["0"] == NOW
    with statements(database) as beaten:
        uploads.beat(database, [], LATER)
    assert not beaten


def test_a_lease_that_beat_since_it_was_read_does_not_expire(
    database: Database, queued: Image, discard: Calls
) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    (lease,) = uploads.leases(database)
    uploads.beat(database, ["one"], LATER)
    assert not uploads.expire(database, lease, LATER, discard=discard)
    assert status(database, queued) is Status.SAVING
    (fresh,) = uploads.leases(database)
    assert uploads.expire(database, fresh, LATER, discard=discard)
    assert discard.number == 1
    assert status(database, queued) is Status.QUEUED
    assert not uploads.expire(database, fresh, LATER, discard=discard)


def test_a_glance_upload_is_never_touched(database: Database, discard: Calls) -> None:
    theirs = image(status=Status.SAVING, size=7)
    images.create(database, theirs)
    assert uploads.leases(database) == []
    uploads.release(database, theirs.id, "one", LATER, discard=discard)
    assert not uploads.expire(
        database, Lease(theirs.id, "one", "worker", NOW), LATER, discard=discard
    )
    with pytest.raises(errors.StatusConflict):
        activate(database, theirs.id, "one")
    assert images.show(database, theirs.id, ADMIN) == theirs
    assert discard.number == 0


@pytest.mark.parametrize("stores", [None, (), ("fast",), ("fast", "cheap")])
def test_a_lease_says_in_which_stores(
    database: Database, queued: Image, stores: tuple[str, ...] | None
) -> None:
    """Not known, none, one, several."""
    uploads.claim(database, queued, "one", "worker", NOW, stores=stores)
    assert uploads.leases(database) == [Lease(queued.id, "one", "worker", NOW, stores)]


def test_data_of_an_active_image_is_never_discarded(
    database: Database, queued: Image, discard: Calls
) -> None:
    uploads.claim(database, queued, "one", "worker", NOW)
    activate(database, queued.id, "one")
    uploads.release(database, queued.id, "one", LATER, discard=discard)
    assert discard.number == 0
    assert status(database, queued) is Status.ACTIVE


def test_uploads_and_deletes_at_once_leave_no_lease(database: Database) -> None:
    def upload(made: Image) -> None:
        try:
            uploads.claim(database, made, made.id, "worker", NOW)
            activate(database, made.id, made.id)
        except errors.Error:
            uploads.release(database, made.id, made.id, LATER)

    def delete(made: Image) -> None:
        for current in (Status.QUEUED, Status.SAVING, Status.ACTIVE):
            try:
                images.delete(database, replace(made, status=current), LATER)
            except errors.Error:
                continue

    made = [image() for _ in range(20)]
    for each in made:
        images.create(database, each)
    work: list[tuple[Callable[[Image], None], Image]] = [
        (act, each) for each in made for act in (upload, delete)
    ]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(act, each) for act, each in work]:
            done.result()
    assert uploads.leases(database) == []
    for each in made:
        (row,) = stored(database, schema.images, each.id)
        locations = stored(database, schema.image_locations, each.id)
        assert all(location["deleted"] == row["deleted"] for location in locations)
        assert row["status"] in ("active", "queued", "deleted")
