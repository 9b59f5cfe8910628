"""One image's record, on every kind of database."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from headrace import errors
from headrace.db import catalogue, images, schema, uploads
from headrace.db.engine import Database
from headrace.model import Image, ImageQuery, Location, Status, Viewer, Visibility
from tests.contract.db.examples import ADMIN, LATER, NOW, add_member, image, statements, stored

FULL = image(
    name="näme",
    status=Status.ACTIVE,
    visibility=Visibility.PRIVATE,
    protected=True,
    os_hidden=True,
    size=1 << 40,
    virtual_size=1 << 41,
    checksum="0" * 32,
    os_hash_algo="sha512",
    os_hash_value="f" * 128,
    container_format="bare",
    disk_format="qcow2",
    min_disk=1,
    min_ram=2**31 - 1,
    tags=frozenset({"a", "ß", ""}),
    properties={"hw_disk_bus": "virtio", "hw_disk": "scsi", "a/b": "", "long": "x" * 65_535},
    locations=(
        Location("file:///z", {"store": "fast", "nested": {"list": [1, None]}}),
        Location("file:///a"),
    ),
)


def test_an_image_is_shown_as_it_was_created(database: Database) -> None:
    images.create(database, FULL)
    assert images.show(database, FULL.id, ADMIN) == FULL


def test_an_image_without_anything_is_shown_as_it_was_created(database: Database) -> None:
    bare = image(owner=None)
    images.create(database, bare)
    assert images.show(database, bare.id, ADMIN) == bare


def test_showing_costs_two_statements_and_downloading_one(database: Database) -> None:
    images.create(database, FULL)
    with statements(database) as shown:
        images.show(database, FULL.id, Viewer("mine"))
    with statements(database) as downloaded:
        found = images.show_for_download(database, FULL.id, Viewer("mine"))
    assert (len(shown), len(downloaded)) == (2, 1)
    assert found == replace(FULL, tags=frozenset(), properties={})


def test_download_of_an_image_without_locations(database: Database) -> None:
    bare = image()
    images.create(database, bare)
    assert images.show_for_download(database, bare.id, ADMIN) == bare


def test_only_active_locations_are_shown(database: Database) -> None:
    images.create(database, FULL)
    with database.write() as connection:
        connection.execute(
            schema.image_locations.update()
            .where(schema.image_locations.c.value == "file:///z")
            .values(status="uploading")
        )
    assert images.show(database, FULL.id, ADMIN).locations == FULL.locations[1:]
    assert images.show_for_download(database, FULL.id, ADMIN).locations == FULL.locations[1:]


def test_what_glance_leaves_null_is_shown_as_a_value(database: Database) -> None:
    images.create(database, FULL)
    with database.write() as connection:
        connection.execute(schema.image_properties.update().values(value=None))
        connection.execute(schema.image_locations.update().values(meta_data=None))
        connection.execute(schema.images.update().values(updated_at=None))
    found = images.show(database, FULL.id, ADMIN)
    assert set(found.properties.values()) == {""}
    assert [location.metadata for location in found.locations] == [{}, {}]
    assert found.updated_at == FULL.created_at


@pytest.mark.parametrize(
    "image_id", ["nothing", "", "x" * 100, FULL.id], ids=["word", "empty", "long", "unused"]
)
def test_an_unknown_image_is_not_found(database: Database, image_id: str) -> None:
    for show in (images.show, images.show_for_download):
        with pytest.raises(errors.ImageNotFound):
            show(database, image_id, ADMIN)


@pytest.mark.parametrize(
    ("visibility", "owner", "seen_by"),
    [
        ("private", "mine", {"mine"}),
        ("shared", "mine", {"mine", "pending", "rejected", "accepted"}),
        ("community", "mine", {"mine", "pending", "rejected", "accepted", "removed", "stranger"}),
        ("public", "mine", {"mine", "pending", "rejected", "accepted", "removed", "stranger"}),
        ("private", None, {"mine", "pending", "rejected", "accepted", "removed", "stranger"}),
    ],
)
def test_who_sees_an_image(
    database: Database, visibility: str, owner: str | None, seen_by: set[str]
) -> None:
    seen = image(visibility=Visibility(visibility), owner=owner)
    images.create(database, seen)
    for member in ("pending", "rejected", "accepted"):
        add_member(database, seen.id, member, member)
    add_member(database, seen.id, "removed", "accepted", deleted=True)
    found = set()
    for project in ("mine", "pending", "rejected", "accepted", "removed", "stranger"):
        for show in (images.show, images.show_for_download):
            try:
                show(database, seen.id, Viewer(project))
            except errors.ImageNotFound:
                continue
            found.add(project)
    assert found == seen_by
    assert images.show(database, seen.id, ADMIN) == seen


def test_without_a_project_only_open_images_are_seen(database: Database) -> None:
    closed, opened = image(), image(visibility=Visibility.PUBLIC)
    images.create(database, closed)
    images.create(database, opened)
    assert images.show(database, opened.id, Viewer()) == opened
    with pytest.raises(errors.ImageNotFound):
        images.show(database, closed.id, Viewer())


def test_an_id_is_taken_once_and_for_all(database: Database) -> None:
    images.create(database, FULL)
    with pytest.raises(errors.ImageExists):
        images.create(database, FULL)
    images.delete(database, FULL, LATER)
    with pytest.raises(errors.ImageExists):
        images.create(database, FULL)


CHANGES: list[dict[str, object]] = [
    {"name": None},
    {"visibility": Visibility.PUBLIC, "owner": "other"},
    {"status": Status.DEACTIVATED},
    {"tags": frozenset()},
    {"tags": frozenset({"a", "new"})},
    {"properties": {}},
    {"properties": {**FULL.properties, "new": "value", "hw_disk_bus": "ide"}},
    {"min_ram": 0, "protected": False, "os_hidden": False, "disk_format": "raw"},
    {},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "+".join(change) or "nothing")
def test_an_update_writes_what_changed(database: Database, change: dict[str, object]) -> None:
    images.create(database, FULL)
    after = replace(FULL, updated_at=LATER, **change)  # type: ignore[arg-type]
    assert images.update(database, FULL, after) == after
    assert images.show(database, FULL.id, ADMIN) == after


def test_an_update_keeps_what_others_changed(database: Database) -> None:
    images.create(database, FULL)
    images.update(database, FULL, replace(FULL, name="theirs", tags=FULL.tags | {"theirs"}))
    ours = replace(FULL, properties={**FULL.properties, "our": "s"}, updated_at=LATER)
    found = images.update(database, FULL, ours)
    assert found == replace(ours, name="theirs", tags=FULL.tags | {"theirs"})


def test_a_property_keeps_its_row(database: Database) -> None:
    first = image(properties={"a": "1"})
    without = replace(first, properties={}, updated_at=LATER)
    images.create(database, first)
    images.update(database, first, without)
    (row,) = stored(database, schema.image_properties, first.id)
    assert (row["deleted"], row["deleted_at"]) == (True, LATER)
    again = replace(first, properties={"a": "2"})
    images.update(database, without, again)
    (back,) = stored(database, schema.image_properties, first.id)
    assert back["id"] == row["id"]
    assert (back["value"], back["deleted"], back["deleted_at"]) == ("2", False, None)


# What somebody else may have made of an image between the look at it and the decision.
CHANGES: list[dict[str, object]] = [
    {"status": Status.DEACTIVATED},
    {"visibility": Visibility.PRIVATE},
    {"owner": "somebody else"},
    {"owner": None},
    {"protected": True},
    {"disk_format": "iso"},
    {"disk_format": None},
    {"container_format": "ova"},
    {"name": "other", "updated_at": LATER},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
def test_nothing_is_decided_by_an_image_that_was_changed(
    database: Database, change: dict[str, Any]
) -> None:
    before = replace(FULL, owner="owner", disk_format="raw", container_format="bare",
                     protected=False, visibility=Visibility.PUBLIC)  # fmt: skip
    images.create(database, before)
    changed = images.update(database, before, replace(before, **change))
    with pytest.raises(errors.ImageChanged):
        images.update(database, before, replace(before, name="late", properties={}))
    with pytest.raises(errors.ImageChanged):
        images.delete(database, before, LATER)
    with pytest.raises(errors.ImageChanged):
        uploads.claim(database, before, "upload", "worker", LATER)
    assert images.show(database, before.id, ADMIN) == changed
    assert uploads.leases(database) == []


def test_a_deleted_image_cannot_be_changed(database: Database) -> None:
    images.create(database, FULL)
    images.delete(database, FULL, LATER)
    with pytest.raises(errors.ImageNotFound):
        images.update(database, FULL, replace(FULL, name="late"))
    with pytest.raises(errors.ImageNotFound):
        images.delete(database, FULL, LATER)


def test_a_delete_keeps_every_row(database: Database) -> None:
    images.create(database, FULL)
    add_member(database, FULL.id, "member")
    images.delete(database, FULL, LATER)
    with pytest.raises(errors.ImageNotFound):
        images.show(database, FULL.id, ADMIN)
    for table, number in (
        (schema.images, 1),
        (schema.image_properties, 4),
        (schema.image_tags, 3),
        (schema.image_members, 1),
        (schema.image_locations, 2),
    ):
        found = stored(database, table, FULL.id)
        assert len(found) == number
        assert {(row["deleted"], row["deleted_at"]) for row in found} == {(True, LATER)}
    (row,) = stored(database, schema.images, FULL.id)
    assert row["status"] == "deleted"


def test_data_of_deleted_images_is_known_until_it_is_gone(database: Database) -> None:
    urls = [each.url for each in FULL.locations]
    other = replace(FULL, id=image().id, locations=(Location("file:///other"),))
    for each in (FULL, other, image()):
        images.create(database, each)
    assert images.undeleted_data(database, NOW) == {}
    images.delete(database, FULL, LATER)
    images.delete(database, other, LATER)
    assert images.undeleted_data(database, NOW) == {
        FULL.id: list(FULL.locations),
        other.id: [Location("file:///other")],
    }
    images.data_deleted(database, FULL.id, urls)
    assert images.undeleted_data(database, NOW) == {other.id: [Location("file:///other")]}
    images.data_deleted(database, FULL.id, urls)


def test_data_that_waits_for_a_scrubber_is_left_to_it(database: Database) -> None:
    images.create(database, FULL)
    images.delete(database, FULL, LATER)
    with database.write() as connection:
        connection.execute(schema.images.update().values(status="pending_delete"))
    assert images.undeleted_data(database, NOW) == {}


def test_a_delayed_delete_leaves_the_data_for_a_time(database: Database) -> None:
    """The rows as Glance's scrubber looks for them."""
    bare = image()
    for each in (FULL, bare):
        images.create(database, each)
        images.delete(database, each, LATER, delayed=True)
    (row,) = stored(database, schema.images, FULL.id)
    assert (row["status"], row["deleted"], row["deleted_at"]) == ("pending_delete", True, LATER)
    for location in stored(database, schema.image_locations, FULL.id):
        assert (location["status"], location["deleted"]) == ("pending_delete", True)
    assert stored(database, schema.images, bare.id)[0]["status"] == "deleted"
    assert images.undeleted_data(database, NOW) == {}
    assert images.delayed_data(database, NOW) == {}
    assert images.delayed_data(database, LATER) == {FULL.id: list(FULL.locations)}
    images.data_deleted(database, FULL.id, [each.url for each in FULL.locations])
    assert images.delayed_data(database, LATER) == {}
    assert stored(database, schema.images, FULL.id)[0]["status"] == "deleted"


def test_a_failed_create_leaves_nothing(database: Database) -> None:
    broken = image(tags=frozenset({"x", None}))
    with pytest.raises(TypeError):
        images.create(database, broken)
    for table in (schema.images, schema.image_tags):
        assert stored(database, table, broken.id) == []


def test_times_are_as_exact_as_the_columns(database: Database) -> None:
    exact: Image = image(
        created_at=NOW.replace(microsecond=678901), updated_at=LATER.replace(microsecond=1)
    )
    images.create(database, exact)
    found = images.show(database, exact.id, ADMIN)
    kept = (found.created_at.microsecond, found.updated_at.microsecond)
    assert kept == ((0, 0) if database.dialect == "mysql" else (678901, 1))


def test_names_differ_in_case_and_accents(database: Database) -> None:
    """But not the properties of one image on MySQL, where Glance's unique key has a collation."""
    before = image(properties={"key": "1"}, tags=frozenset({"tag", "Tag", "täg", "tag "}))
    images.create(database, before)
    assert images.show(database, before.id, ADMIN).tags == before.tags
    fewer = replace(before, tags=frozenset({"Tag", "täg"}))
    assert images.update(database, before, fewer).tags == fewer.tags
    both = replace(fewer, properties={"key": "1", "Key": "2"})
    if database.dialect == "mysql":
        with pytest.raises(errors.PropertyExists):
            images.update(database, fewer, both)
        with pytest.raises(errors.PropertyExists):
            images.create(database, image(properties=both.properties))
        assert images.show(database, before.id, ADMIN) == fewer
    else:
        assert images.update(database, fewer, both) == both


@pytest.mark.parametrize("project", ["MINE", "mine ", "míne"])
def test_another_project_may_have_nearly_the_same_name(database: Database, project: str) -> None:
    mine, shared, listed = image(), image(owner="theirs"), image(visibility=Visibility.PUBLIC)
    for each in (mine, shared, listed):
        images.create(database, each)
    add_member(database, shared.id, "mine", "accepted")
    for hidden in (mine, shared):
        with pytest.raises(errors.ImageNotFound):
            images.show(database, hidden.id, Viewer(project))
    for visibility in (None, "all", "shared", "public", "private"):
        query = ImageQuery(visibility=visibility, member_status="all")
        found = catalogue.list_page(database, query, Viewer(project)).images
        assert found == ([listed] if visibility in (None, "all", "public") else [])
    assert len(catalogue.list_page(database, ImageQuery(), Viewer("mine")).images) == 3


def test_who_checks_an_update_sees_those_of_the_same_second(database: Database) -> None:
    """All have looked at the same image, and no time tells it from what it has become."""
    before = image(properties={"first": ""}, tags=frozenset({"first"}))
    images.create(database, before)
    number, most = 8, 4
    start = threading.Barrier(number)

    def check(stored: Image) -> None:
        if len(stored.properties) > most or len(stored.tags) > most:
            raise errors.QuotaExceeded(quota="image_tag_quota", limit=most, wanted=most + 1)

    def update(which: int) -> bool:
        name = f"p{which}"
        after = replace(
            before,
            properties={**before.properties, name: "x"},
            tags=before.tags | {name},
        )
        start.wait(timeout=60)
        try:
            made = images.update(database, before, after, check)
        except errors.QuotaExceeded:
            return False
        assert name in made.properties
        return True

    with ThreadPoolExecutor(number) as pool:
        done = list(pool.map(update, range(number)))
    assert sum(done) == most - 1
    kept = {"first"} | {f"p{which}" for which, well in enumerate(done) if well}
    found = images.show(database, before.id, ADMIN)
    assert (set(found.properties), found.tags) == (kept, kept)
    assert len(stored(database, schema.image_properties, before.id)) == most
    assert len(stored(database, schema.image_tags, before.id)) == most
