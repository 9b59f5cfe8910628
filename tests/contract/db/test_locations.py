"""Rows of locations that change, on every kind of database."""

from dataclasses import replace
from datetime import timedelta

import pytest

from headrace import errors
from headrace.db import images, locations, schema, uploads
from headrace.db.engine import Database
from headrace.model import Image, Location, Status
from tests.contract.db.examples import ADMIN, LATER, NOW, image, statements, stored

FAST, CHEAP = Location("file:///fast", {"store": "fast"}), Location("file:///cheap", {})
LATEST = LATER + timedelta(seconds=1)


@pytest.fixture
def active(database: Database) -> Image:
    """An image with two copies."""
    made = image(status=Status.ACTIVE, size=5, locations=(FAST, CHEAP))
    images.create(database, made)
    return images.show(database, made.id, ADMIN)


def states(database: Database, made: Image) -> list[tuple[str, str, bool]]:
    found = stored(database, schema.image_locations, made.id)
    return [(row["value"], row["status"], row["deleted"]) for row in found]


def test_a_store_is_noted_beside_what_stands_there(database: Database, active: Image) -> None:
    with database.write() as connection:
        changed = schema.image_locations.update().values(meta_data='{"rack": "7", "store": "x"}')
        connection.execute(changed.where(schema.image_locations.c.value == CHEAP.url))
    locations.mend(database, active.id, replace(CHEAP, metadata={"store": "cheap"}), LATER)
    found = images.show(database, active.id, ADMIN)
    assert found.locations == (FAST, replace(CHEAP, metadata={"rack": "7", "store": "cheap"}))
    assert found.updated_at == active.updated_at  # nothing of the image's own has changed
    locations.mend(database, active.id, Location("file:///none", {"store": "x"}), LATER)
    assert images.show(database, active.id, ADMIN) == found


def test_a_location_is_given_up_and_its_data_known_until_it_is_gone(
    database: Database, active: Image
) -> None:
    locations.remove(database, active, FAST.url, LATER)
    assert states(database, active) == [
        (FAST.url, "pending_delete", True), (CHEAP.url, "active", False),
    ]  # fmt: skip
    found = images.show(database, active.id, ADMIN)
    assert (found.locations, found.updated_at) == ((CHEAP,), LATER)
    assert images.undeleted_data(database, LATER) == {}  # somebody may be removing it
    assert images.undeleted_data(database, LATEST) == {active.id: [FAST]}
    images.data_deleted(database, active.id, [CHEAP.url])  # of somebody else's deletion
    assert images.undeleted_data(database, LATEST) == {active.id: [FAST]}
    images.data_deleted(database, active.id, [FAST.url])
    assert images.undeleted_data(database, LATEST) == {}
    assert states(database, active)[0] == (FAST.url, "deleted", True)


def test_data_is_not_given_up_where_there_is_some_again(database: Database, active: Image) -> None:
    locations.remove(database, active, FAST.url, LATER)
    with database.write() as connection:
        images.insert_location(connection, active.id, FAST, LATER)
    assert images.undeleted_data(database, LATEST) == {}


def test_ossa_2016_006_the_last_location_stays(database: Database, active: Image) -> None:
    locations.remove(database, active, FAST.url, LATER)
    left = images.show(database, active.id, ADMIN)
    with pytest.raises(errors.LastLocation):
        locations.remove(database, left, CHEAP.url, LATEST)
    assert images.show(database, active.id, ADMIN) == left


def test_ossa_2016_006_even_where_the_clock_does_not_tell_two_changes_apart(
    database: Database, active: Image
) -> None:
    """As on MySQL, whose times have whole seconds: the rows themselves are counted."""
    locations.remove(database, active, FAST.url, active.updated_at)
    with pytest.raises(errors.LastLocation):
        locations.remove(database, active, CHEAP.url, active.updated_at)
    with pytest.raises(errors.ImageChanged):
        locations.save(database, active, replace(active, locations=(FAST,)))


def test_what_is_not_there_or_no_longer_so(database: Database, active: Image) -> None:
    with pytest.raises(errors.NotFound):
        locations.remove(database, active, "file:///none", LATER)
    with pytest.raises(errors.ImageChanged):
        locations.remove(database, replace(active, protected=True), FAST.url, LATER)
    images.delete(database, active, LATER)
    for act in (
        lambda: locations.remove(database, active, FAST.url, LATER),
        lambda: locations.save(database, active, active),
    ):
        with pytest.raises(errors.ImageNotFound):
            act()


def test_an_image_gets_its_data_and_the_lease_of_who_hashes_it(database: Database) -> None:
    queued = image(disk_format="raw", container_format="bare")
    images.create(database, queued)
    after = replace(
        queued, status=Status.ACTIVE, size=5, virtual_size=7, locations=(FAST,), updated_at=LATER
    )
    locations.save(database, queued, after, "upload", "worker")
    assert images.show(database, queued.id, ADMIN) == after
    (lease,) = uploads.leases(database)
    assert lease == uploads.Lease(queued.id, "upload", "worker", LATER, stores=())
    with pytest.raises(errors.StatusConflict):
        locations.save(database, after, after, "other", "worker")

    digests = {"os_hash_algo": "sha256", "os_hash_value": "d" * 64, "checksum": "c" * 32}
    locations.hashed(database, queued.id, "other", digests, LATEST)  # not who has the lease
    assert images.show(database, queued.id, ADMIN) == after
    locations.hashed(database, queued.id, "upload", digests, LATEST)
    found = images.show(database, queued.id, ADMIN)
    assert (found.os_hash_value, found.checksum, found.updated_at) == ("d" * 64, "c" * 32, LATEST)
    assert uploads.leases(database) == []


def test_hashes_that_are_there_stay(database: Database, active: Image) -> None:
    known = replace(active, os_hash_algo="md5", os_hash_value="known", updated_at=LATER)
    locations.save(database, active, known, "upload", "worker")
    digests = {"os_hash_algo": "sha256", "os_hash_value": "other"}
    locations.hashed(database, active.id, "upload", digests, LATEST)
    assert images.show(database, active.id, ADMIN) == known


def test_hashing_that_came_to_nothing_changes_nothing(database: Database, active: Image) -> None:
    locations.save(database, active, replace(active, updated_at=LATER), "upload", "worker")
    locations.hashed(database, active.id, "upload", {}, LATEST)
    assert images.show(database, active.id, ADMIN).updated_at == LATER
    assert uploads.leases(database) == []


def test_copies_come_and_go_at_once(database: Database, active: Image) -> None:
    third = Location("http://example.com/x", {"store": "web"})
    noted = replace(CHEAP, metadata={"store": "cheap"})
    after = replace(active, locations=(noted, third), updated_at=LATER)
    locations.save(database, active, after)
    assert images.show(database, active.id, ADMIN) == after
    assert states(database, active) == [
        (FAST.url, "pending_delete", True),
        (CHEAP.url, "active", False),
        (third.url, "active", False),
    ]


def test_what_it_costs(database: Database, active: Image) -> None:
    with statements(database) as seen:
        locations.remove(database, active, FAST.url, LATER)
    assert len(seen) == 3, seen
    with statements(database) as seen:
        locations.mend(database, active.id, replace(CHEAP, metadata={"store": "x"}), NOW)
    assert len(seen) == 2, seen
