"""Quotas, on every kind of database: however many take at once, no limit is ever passed."""

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import images, imports, locations, quotas, schema, uploads
from headrace.db.engine import Database
from headrace.db.quotas import Demand
from headrace.db.uploads import Lease
from headrace.model import MIB, Image, Location, Resource, Status, Task
from tests.contract.db.examples import ADMIN, LATER, NOW, image, statements

SIZE, STAGE = Resource.SIZE, Resource.STAGE
COUNT, UPLOADING = Resource.COUNT, Resource.UPLOADING
PLACE = Location("file:///data")


def demand(
    limit: int,
    takes: int = 0,
    spare: int = 0,
    of: Resource = SIZE,
    owner: str | None = "mine",
) -> Demand:
    return Demand(owner, {of: limit}, {of: takes}, {of: spare} if spare else {})


def queued(database: Database, **values: object) -> Image:
    made = image(disk_format="raw", container_format="bare", **values)
    images.create(database, made)
    return made


def row(
    database: Database, status: str, size: int | None = None, places: int = 0, **values: object
) -> Image:
    """An image as a Glance beside us has written it, or somebody long ago."""
    made = image(status=Status(status), size=size, **values)
    images.create(database, made)
    with database.write() as connection:
        for number in range(places):
            url = Location(f"file:///{made.id}/{number}")
            images.insert_location(connection, made.id, url, NOW)
    return made


def activate(database: Database, made: Image, upload_id: str, size: int) -> None:
    uploads.activate(
        database, made.id, upload_id, location=PLACE, size=size, virtual_size=None, checksum=None,
        os_hash_algo="sha512", os_hash_value="d" * 128, now=LATER,
    )  # fmt: skip


def used(database: Database, of: Resource = SIZE, owner: str | None = "mine") -> int:
    return quotas.usage(database, owner)[of]


# --- what counts


def test_nothing_is_used_at_first(database: Database) -> None:
    assert quotas.usage(database, "mine") == dict.fromkeys(Resource, 0)


@pytest.mark.parametrize(
    ("status", "size", "stage", "uploading"),
    [
        ("queued", 0, 0, 0),
        ("saving", 0, 0, 1),
        ("uploading", 0, 7, 1),
        ("importing", 0, 7, 1),
        ("active", 7, 0, 0),
        ("deactivated", 7, 0, 0),
    ],
)
def test_an_image_counts_by_its_status(
    database: Database, status: str, size: int, stage: int, uploading: int
) -> None:
    row(database, status, 7, places=int(bool(size)))
    assert quotas.usage(database, "mine") == {
        SIZE: size,
        STAGE: stage,
        COUNT: 1,
        UPLOADING: uploading,
    }


def test_each_live_location_counts(database: Database) -> None:
    made = row(database, "active", 7, places=3)
    assert used(database) == 21
    locations.remove(database, made, f"file:///{made.id}/1", LATER)
    assert used(database) == 14


@pytest.mark.parametrize("delayed", [False, True])
def test_a_deleted_image_counts_no_more(database: Database, delayed: bool) -> None:
    made = row(database, "active", 7, places=1)
    images.delete(database, replace(made, locations=(PLACE,)), LATER, delayed=delayed)
    assert quotas.usage(database, "mine") == dict.fromkeys(Resource, 0)


def test_a_killed_image_does_not_count(database: Database) -> None:
    row(database, "killed", 7, places=1)
    assert quotas.usage(database, "mine") == dict.fromkeys(Resource, 0)


def test_what_is_copied_to_more_stores_is_uploading(database: Database) -> None:
    row(database, "active", 7, properties={"os_glance_import_task": "task"})
    row(database, "active", 7, properties={"os_glance_importing_to_stores": "left by a crash"})
    assert used(database, UPLOADING) == 1


@pytest.mark.parametrize("owner", [None, "", "Mine", "miné", "mine "])
def test_each_project_has_its_own(database: Database, owner: str | None) -> None:
    row(database, "active", 7, places=1)
    row(database, "active", 5, places=1, owner=owner)
    assert (used(database), used(database, owner=owner)) == (7, 5)
    mine, other = queued(database), queued(database, owner=owner)
    uploads.claim(database, mine, "one", "worker", NOW, demand=demand(100, 10))
    uploads.claim(database, other, "two", "worker", NOW, demand=demand(100, 20, owner=owner))
    assert (used(database), used(database, owner=owner)) == (17, 25)


# --- what is reserved


def test_a_claim_reserves_and_the_end_settles(database: Database) -> None:
    made = queued(database)
    assert uploads.claim(database, made, "one", "worker", NOW, demand=demand(100, 60)) == 60
    assert used(database) == 60
    activate(database, made, "one", 50)
    assert used(database) == 50


def test_what_fails_is_free_again(database: Database) -> None:
    made = queued(database)
    uploads.claim(database, made, "one", "worker", NOW, demand=demand(100, 60))
    uploads.release(database, made.id, "one", LATER)
    assert used(database) == 0


def test_what_a_dead_process_had_is_free_again(database: Database) -> None:
    made = queued(database)
    uploads.claim(database, made, "one", "worker", NOW, demand=demand(100, 60))
    assert uploads.expire(database, Lease(made.id, "one", "worker", NOW), LATER)
    assert used(database) == 0


def test_deleting_the_image_does_not_free_what_its_upload_still_writes(database: Database) -> None:
    """OSSA-2015-003: a quota is not passed by deleting what is being uploaded."""
    made, other = queued(database), queued(database)
    uploads.claim(database, made, "one", "worker", NOW, demand=demand(100, 60))
    saving = replace(made, status=Status.SAVING)
    images.delete(database, saving, LATER)
    with pytest.raises(errors.QuotaExceeded):
        uploads.claim(database, other, "two", "worker", NOW, demand=demand(100, 60))
    uploads.release(database, made.id, "one", LATER)
    uploads.claim(database, other, "two", "worker", NOW, demand=demand(100, 60))


def test_who_is_refused_has_changed_nothing(database: Database) -> None:
    row(database, "active", 41, places=1)
    made = queued(database)
    with pytest.raises(errors.QuotaExceeded) as caught:
        uploads.claim(database, made, "one", "worker", NOW, demand=demand(100, 60))
    assert caught.value.fields == {
        "quota": "image_size_total",
        "limit": "100 bytes",
        "wanted": "101 bytes",
    }
    assert images.show(database, made.id, ADMIN) == made
    assert uploads.leases(database) == []
    uploads.claim(database, made, "one", "worker", NOW, demand=demand(100, 59))


def test_what_a_glance_has_added_counts(database: Database) -> None:
    """It locks nothing and reserves nothing."""
    made = queued(database)
    uploads.claim(database, made, "one", "worker", NOW, demand=demand(100, 50))
    row(database, "active", 40, places=1)
    with pytest.raises(errors.QuotaExceeded):
        uploads.extend(database, made.id, "one", demand(100, 61))
    assert uploads.extend(database, made.id, "one", demand(100, 60)) == 60


def test_where_little_is_left_less_is_spared_and_in_the_end_nothing(database: Database) -> None:
    made = queued(database)
    wanted = demand(1600 * MIB, 1, 64 * MIB)
    assert uploads.claim(database, made, "one", "worker", NOW, demand=wanted) == 64 * MIB + 1
    for total, spare in ((1280, 20), (1568, 2), (1584, 1), (1585, 0), (1600, 0)):
        wanted = demand(1600 * MIB, total * MIB, 64 * MIB)
        reserved = uploads.extend(database, made.id, "one", wanted)
        assert reserved == (total + spare) * MIB == used(database)
    other = queued(database)
    with pytest.raises(errors.QuotaExceeded):
        uploads.claim(database, other, "two", "worker", NOW, demand=demand(1600 * MIB, 1, MIB))


def test_who_is_refused_more_has_nothing(database: Database) -> None:
    """From that moment on: what he had is for others who grow."""
    made, other = queued(database), queued(database)
    uploads.claim(database, made, "one", "worker", NOW, demand=demand(100, 60))
    uploads.claim(database, other, "two", "worker", NOW, demand=demand(100, 40))
    with pytest.raises(errors.QuotaExceeded):
        uploads.extend(database, made.id, "one", demand(100, 61))
    assert used(database) == 40
    assert uploads.extend(database, other.id, "two", demand(100, 100)) == 100
    uploads.release(database, made.id, "one", LATER)
    assert used(database) == 100


def test_an_upload_that_was_taken_back_gets_no_more(database: Database) -> None:
    made = queued(database)
    uploads.claim(database, made, "one", "worker", NOW, demand=demand(100, 1))
    uploads.release(database, made.id, "one", LATER)
    with pytest.raises(errors.StatusConflict):
        uploads.extend(database, made.id, "one", demand(100, 2))
    images.delete(database, images.show(database, made.id, ADMIN), LATER)
    with pytest.raises(errors.ImageGone):
        uploads.extend(database, made.id, "one", demand(100, 2))
    assert used(database) == 0


def test_staged_data_is_reserved_and_settled_by_itself(database: Database) -> None:
    made = queued(database)
    wanted = demand(100, 60, of=STAGE)
    uploads.claim(database, made, "one", "worker", NOW, Status.UPLOADING, wanted)
    assert (used(database), used(database, STAGE)) == (0, 60)
    uploads.staged(database, made.id, "one", 50, LATER)
    assert (used(database), used(database, STAGE)) == (0, 50)


def test_each_copy_is_settled_when_it_is_recorded(database: Database) -> None:
    made = queued(database)
    task = Task(id="task", owner="mine", image_id=made.id, created_at=NOW, updated_at=NOW)
    wanted = demand(100, 30)
    assert imports.begin(database, made, task, "worker", Status.IMPORTING, {}, wanted) == 30
    found: dict[str, object] = {"size": 10, "os_hash_algo": "sha512", "os_hash_value": "d"}
    for number, columns in enumerate((found, None)):
        imports.record(
            database, made.id, "task", locations=[Location(f"file:///{number}")], found=columns,
            properties={}, ending=None, now=LATER,
        )  # fmt: skip
        assert used(database) == 30
        assert reserved(database) == [20 - 10 * number]
    ending = imports.Ending("done", LATER)
    imports.record(
        database, made.id, "task", locations=[], found=None, properties={}, ending=ending, now=LATER
    )
    assert used(database) == 20


def reserved(database: Database) -> list[int | None]:
    with database.read() as connection:
        return list(connection.execute(sa.select(schema.uploads.c.reserved)).scalars())


def test_a_registered_location_takes_its_size(database: Database) -> None:
    made = queued(database)
    after = replace(made, status=Status.ACTIVE, size=60, locations=(PLACE,))
    with pytest.raises(errors.QuotaExceeded):
        locations.save(database, made, after, demand=demand(59, 60))
    locations.save(database, made, after, demand=demand(60, 60))
    assert used(database) == 60


def test_images_are_counted(database: Database) -> None:
    for _ in range(3):
        images.create(database, image(), demand(3, 1, of=COUNT))
    with pytest.raises(errors.QuotaExceeded) as caught:
        images.create(database, image(), demand(3, 1, of=COUNT))
    assert caught.value.fields == {"quota": "image_count_total", "limit": "3", "wanted": "4"}
    images.create(database, image(owner="other"), demand(3, 1, of=COUNT, owner="other"))
    assert used(database, COUNT) == 3


# --- a new owner


def give(database: Database, made: Image, limits: Mapping[Resource, int] | None) -> Image:
    """Make an image the other project's, which may have so much."""
    after = replace(made, owner="other", updated_at=LATER)
    return images.update(database, made, after, limits=limits)


def test_a_new_owner_takes_the_image_and_its_data(database: Database) -> None:
    row(database, "active", 5, places=1, owner="other")
    made = row(database, "active", 7, places=2)
    for limits in ({SIZE: 18}, {COUNT: 1}, {SIZE: 100, COUNT: 1}):
        with pytest.raises(errors.QuotaExceeded):
            give(database, made, limits)
    assert (used(database), used(database, owner="other")) == (14, 5)
    give(database, made, {SIZE: 19, COUNT: 2, STAGE: 0, UPLOADING: 0})
    assert (used(database), used(database, owner="other")) == (0, 19)


def test_a_new_owner_takes_staged_data(database: Database) -> None:
    made = row(database, "uploading", 7)
    for limits in ({STAGE: 6}, {UPLOADING: 0}):
        with pytest.raises(errors.QuotaExceeded):
            give(database, made, limits)
    give(database, made, {STAGE: 7, UPLOADING: 1})
    assert used(database, STAGE, "other") == 7


def test_who_has_too_much_already_is_given_what_takes_nothing_of_it(database: Database) -> None:
    row(database, "active", 5, places=1, owner="other")
    give(database, row(database, "queued"), {SIZE: 4, COUNT: 2})
    with pytest.raises(errors.QuotaExceeded):
        give(database, row(database, "active", 1, places=1), {SIZE: 4, COUNT: 3})


def test_what_is_coming_keeps_its_owner_where_the_other_is_limited(database: Database) -> None:
    """Nothing may be reserved for it, or not all yet."""
    made = queued(database)
    uploads.claim(database, made, "one", "worker", NOW)
    saving = images.show(database, made.id, ADMIN)
    with pytest.raises(errors.ImageBusy):
        give(database, saving, {SIZE: 100})
    assert images.show(database, made.id, ADMIN) == saving
    give(database, saving, None)


def test_the_cost(database: Database) -> None:
    """The lock, where others can write meanwhile, and the sums; nothing without a demand."""
    first, second, third = queued(database), queued(database), queued(database)
    uploads.claim(database, first, "first", "worker", NOW, demand=demand(100, 1))
    with statements(database) as limited:
        uploads.claim(database, second, "second", "worker", NOW, demand=demand(100, 1))
    with statements(database) as free:
        uploads.claim(database, third, "third", "worker", NOW)
    assert len(free) == 2
    assert len(limited) == (3 if database.dialect == "sqlite" else 4)


# --- many at once

ROOM = 10


def crowd(number: int, work: Callable[[int], str]) -> list[str]:
    start = threading.Barrier(number)

    def one(which: int) -> str:
        start.wait()
        try:
            return work(which)
        except errors.QuotaExceeded:
            return "refused"

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


@pytest.fixture
def hundred(database: Database) -> list[Image]:
    return [queued(database) for _ in range(100)]


TAKEN: Mapping[Resource, tuple[Status, int]] = {
    SIZE: (Status.SAVING, 5),
    STAGE: (Status.UPLOADING, 5),
    UPLOADING: (Status.SAVING, 1),
}


@pytest.mark.parametrize("of", TAKEN)
def test_of_a_hundred_claims_ten_fit(
    database: Database, hundred: list[Image], of: Resource
) -> None:
    status, each = TAKEN[of]
    wanted = demand(ROOM * each, each, of=of)

    def claim(which: int) -> str:
        made = hundred[which]
        uploads.claim(database, made, str(which), "worker", NOW, status, wanted)
        return "taken"

    assert crowd(100, claim).count("taken") == ROOM
    assert used(database, of) == ROOM * each
    assert len(uploads.leases(database)) == ROOM


def test_of_a_hundred_images_ten_fit(database: Database) -> None:
    def create(_which: int) -> str:
        images.create(database, image(), demand(ROOM, 1, of=COUNT))
        return "taken"

    assert crowd(100, create).count("taken") == ROOM
    assert used(database, COUNT) == ROOM


def test_of_a_hundred_gifts_ten_fit(database: Database) -> None:
    """To somebody who is uploading meanwhile."""
    given = [row(database, "active", 5, places=1) for _ in range(50)]
    own = [queued(database, owner="other") for _ in range(50)]
    limits = {SIZE: ROOM * 5}
    wanted = demand(ROOM * 5, 5, owner="other")

    def take(which: int) -> str:
        if which % 2:
            give(database, given[which // 2], limits)
        else:
            uploads.claim(database, own[which // 2], str(which), "worker", NOW, demand=wanted)
        return "taken"

    assert crowd(100, take).count("taken") == ROOM
    assert used(database, owner="other") == ROOM * 5


@pytest.mark.slow
def test_of_a_hundred_that_grow_ten_fit(database: Database, hundred: list[Image]) -> None:
    """Of unknown length: each has what has come of it and asks for more, all at once."""
    limit = 90 * ROOM
    passed = threading.Event()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if used(database) > limit:
                passed.set()

    def upload(which: int) -> str:
        each, name = hundred[which], str(which)
        uploads.claim(database, each, name, "worker", NOW, demand=demand(limit, 1, 64 * MIB))
        try:
            for total in (20, 45, 70, 90):
                uploads.extend(database, each.id, name, demand(limit, total, 64 * MIB))
        except errors.QuotaExceeded:
            uploads.release(database, each.id, name, LATER)
            raise
        activate(database, each, name, 90)
        return "stored"

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        results = crowd(len(hundred), upload)
    finally:
        done.set()
        watcher.join()
    assert not passed.is_set()
    assert (results.count("stored"), results.count("refused")) == (ROOM, 100 - ROOM)
    assert used(database) == limit
    assert uploads.leases(database) == []


CLAIM = """
import sys
from datetime import datetime
from headrace import errors
from headrace.db import engine, images, uploads
from headrace.db.quotas import Demand
from headrace.model import Resource, Status, Viewer
url, worker, *ids = sys.argv[1:]
database = engine.connect(url)
known = [images.show(database, image_id, Viewer(is_admin=True)) for image_id in ids]
demand = Demand("mine", {Resource.SIZE: 50}, {Resource.SIZE: 5})
print("ready", flush=True)
sys.stdin.readline()
for image in known:
    now = datetime(2026, 1, 2, 3, 5)
    try:
        uploads.claim(database, image, image.id, worker, now, Status.SAVING, demand)
        print(image.id, flush=True)
    except errors.QuotaExceeded:
        pass
    else:
        sys.stdin.readline()
"""


@pytest.mark.slow
def test_of_many_processes_claims_ten_fit_and_the_killed_give_back(
    database: Database, hundred: list[Image]
) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, url, f"worker{number}",
             *(each.id for each in hundred[number::4])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        for number in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
    # Each holds what it has until it is told to go on; one is killed with what it has.
    assert processes[0].stdout is not None
    assert processes[0].stdout.readline()
    processes[0].kill()
    processes[0].communicate(timeout=60)
    won = [process.communicate("go\n" * 100, timeout=60)[0].split() for process in processes[1:]]
    assert sum(map(len, won)) + 1 == ROOM
    assert used(database) == 5 * ROOM
    for lease in uploads.leases(database):
        if lease.worker == "worker0":
            assert uploads.expire(database, lease, LATER + timedelta(minutes=2))
    assert used(database) == 5 * (ROOM - 1)
