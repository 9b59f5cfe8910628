"""Removing for good what was deleted softly, on every kind of database."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import images, purge, schema, uploads
from headrace.db.engine import Database
from headrace.model import Image, Location
from tests.contract.db.examples import ADMIN, LATER, NOW, add_member, image, stored

PARTS = ("image_properties", "image_tags", "image_members", "image_locations")
AFTER = LATER + timedelta(seconds=1)


def made(database: Database, **values: Any) -> Image:
    """An image with a row in every table."""
    each = image(
        tags=frozenset({"a"}), properties={"p": "1"}, locations=(Location("file:///1"),), **values
    )
    images.create(database, each)
    add_member(database, each.id, "member")
    return each


def deleted(database: Database) -> Image:
    each = made(database)
    images.delete(database, each, LATER)
    images.data_deleted(database, each.id, ["file:///1"])
    return each


def rows(database: Database, image_id: str) -> dict[str, int]:
    names = ("images", *PARTS)
    return {name: len(stored(database, schema.GLANCE.tables[name], image_id)) for name in names}


def test_the_ids_of_deleted_images_are_not_recycled(database: Database) -> None:
    """OSSN-0075: whoever remembers an id must not be given another's image for it."""
    gone = deleted(database)
    purge.purge(database, AFTER)
    assert rows(database, gone.id) == {"images": 1, **dict.fromkeys(PARTS, 0)}
    with pytest.raises(errors.ImageExists):
        images.create(database, image(id=gone.id))
    assert purge.purge(database, AFTER, image_rows=True)["images"] == 1
    images.create(database, image(id=gone.id))


def test_only_what_was_deleted_before_goes(database: Database) -> None:
    kept, gone = made(database), deleted(database)
    before = rows(database, kept.id)
    nothing = dict.fromkeys((*PARTS, "tasks", "images"), 0)
    assert purge.purge(database, LATER, image_rows=True) == nothing
    done = purge.purge(database, AFTER, image_rows=True)
    assert done == {**nothing, **dict.fromkeys((*PARTS, "images"), 1)}
    assert rows(database, kept.id) == before
    assert sum(rows(database, gone.id).values()) == 0


def test_a_deleted_property_of_a_living_image_goes_and_comes_back(database: Database) -> None:
    before = made(database)
    without = replace(before, properties={}, updated_at=LATER)
    images.update(database, before, without)
    assert purge.purge(database, AFTER)["image_properties"] == 1
    assert images.update(database, without, replace(before, properties={"p": "2"})).properties


def test_a_property_that_a_glance_has_set_again_stays(database: Database) -> None:
    """It leaves deleted_at as it was, and then purges by that alone."""
    each = made(database)
    with database.write() as connection:
        connection.execute(sa.update(schema.image_properties).values(deleted_at=NOW))
    purge.purge(database, AFTER)
    assert images.show(database, each.id, ADMIN).properties == each.properties


def test_what_tells_of_data_that_is_still_there_stays(database: Database) -> None:
    each = made(database)
    images.delete(database, each, LATER)
    purge.purge(database, AFTER, image_rows=True)
    assert images.undeleted_data(database, NOW) == {each.id: [Location("file:///1")]}
    images.data_deleted(database, each.id, ["file:///1"])
    purge.purge(database, AFTER, image_rows=True)
    assert sum(rows(database, each.id).values()) == 0


def test_an_image_that_waits_for_a_scrubber_stays(database: Database) -> None:
    each = deleted(database)
    with database.write() as connection:
        connection.execute(sa.update(schema.images).values(status="pending_delete"))
    purge.purge(database, AFTER, image_rows=True)
    assert rows(database, each.id)["images"] == 1


def test_an_image_that_is_being_uploaded_stays(database: Database) -> None:
    each = image()
    images.create(database, each)
    uploads.claim(database, each, "one", "worker", NOW)
    with database.write() as connection:
        connection.execute(
            sa.update(schema.images).values(status="deleted", deleted=True, deleted_at=NOW)
        )
    purge.purge(database, AFTER, image_rows=True)
    assert rows(database, each.id)["images"] == 1


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_no_more_rows_than_asked_for(
    database: Database, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "_BATCH", batch)
    for _ in range(5):
        deleted(database)
    assert set(purge.purge(database, AFTER, most=3).values()) == {3, 0}
    assert purge.purge(database, AFTER, most=3)["image_tags"] == 2
    assert purge.purge(database, AFTER, image_rows=True)["images"] == 5


def test_tasks_go_with_what_they_say(database: Database) -> None:
    with database.write() as connection:
        for number, dead in enumerate((True, False)):
            connection.execute(
                sa.insert(schema.tasks),
                {"id": f"task{number}", "type": "import", "status": "success", "owner": "mine",
                 "created_at": NOW, "deleted": dead, "deleted_at": NOW if dead else None},
            )  # fmt: skip
            connection.execute(sa.insert(schema.task_info), {"task_id": f"task{number}"})
    assert purge.purge(database, AFTER)["tasks"] == 1
    with database.read() as connection:
        for column in (schema.tasks.c.id, schema.task_info.c.task_id):
            assert list(connection.execute(sa.select(column)).scalars()) == ["task1"]
