"""What a call costs SQLite, in steps of its virtual machine: not more in a larger catalogue."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import copy

import pytest
import sqlalchemy as sa

from headrace.db import catalogue, images, locations, members, schema, uploads
from headrace.db.engine import Database, connect
from headrace.model import Filter, Image, ImageQuery, Location, MemberStatus, Op, Viewer
from tests.contract.db.examples import ADMIN, LATER, NOW, image

SMALL, LARGE = 1_000, 8_000
OWNER = Viewer("owner-3")


def fill(path: Path, number: int) -> Database:
    """A database of ``number`` images, of which every condition below holds for many or for few."""
    database = connect(f"sqlite:///{path}")
    with database.write() as connection:
        for count in range(number):
            made = at(count)
            connection.execute(
                sa.insert(schema.images),
                {
                    "id": made.id,
                    "name": made.name,
                    "status": "active" if count % 9 else "queued",
                    "visibility": ("public", "private", "shared")[count % 3],
                    "owner": f"owner-{count % 7}",
                    "disk_format": "raw" if count % 2 else "qcow2",
                    "size": count % 97 or None,
                    "checksum": f"{count % 500}",
                    "min_disk": 0,
                    "min_ram": 0,
                    "created_at": made.created_at,
                    "updated_at": made.created_at,
                    "deleted": False,
                },
            )
            common = {"image_id": made.id, "created_at": NOW, "deleted": False}
            connection.execute(
                sa.insert(schema.image_properties).inline(),
                [
                    {**common, "name": "common", "value": "same"},
                    {**common, "name": "serial", "value": f"{count % 500}"},
                ],
            )
            connection.execute(
                sa.insert(schema.image_tags).inline(),
                [{**common, "value": "common"}, {**common, "value": f"tag-{count % 500}"}],
            )
            connection.execute(
                sa.insert(schema.image_members).inline(),
                {**common, "member": f"owner-{count % 5}", "can_share": False},
            )
            connection.execute(
                sa.insert(schema.image_locations).inline(),
                {**common, "value": f"file:///{count}", "status": "active"},
            )
    return database


def at(count: int) -> Image:
    return image(
        id=f"{count * 7919 % 1_000_003:036}",
        name=f"name-{count % 20}",
        created_at=NOW + timedelta(seconds=count // 2),
    )


@pytest.fixture(scope="module")
def databases(
    prepared_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Database, int]]:
    made = []
    for number in (SMALL, LARGE):
        path = tmp_path_factory.mktemp("plans") / "headrace.db"
        copy(prepared_sqlite, path)
        made.append((fill(path, number), number))
    return made


def steps(database: Database, call: Callable[[Database], object]) -> int:
    """How many steps SQLite takes, in tens."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_progress_handler(step, 10)
    try:
        call(database)
    finally:
        driver.set_progress_handler(None, 0)
    return count


def by(column: str, op: str, value: object) -> ImageQuery:
    return ImageQuery(filters=(Filter(column, Op(op), value),))


QUERIES: dict[str, tuple[ImageQuery, Viewer]] = {
    "all": (ImageQuery(), ADMIN),
    "oldest first": (ImageQuery(sort=(("created_at", False),)), ADMIN),
    "public": (ImageQuery(visibility="public"), ADMIN),
    "what a project sees": (ImageQuery(), OWNER),
    "what a stranger sees": (ImageQuery(), Viewer("stranger")),
    "what nobody in particular sees": (ImageQuery(), Viewer()),
    **{
        f"by {key}": (ImageQuery(sort=((key, key == "size"),)), ADMIN)
        for key in ("name", "status", "disk_format", "container_format", "size", "id", "updated_at")
    },
    "of an owner": (by("owner", "eq", "owner-3"), ADMIN),
    "of a status": (by("status", "eq", "queued"), ADMIN),
    "of a format": (by("disk_format", "eq", "raw"), ADMIN),
    "of a name": (by("name", "eq", "name-3"), ADMIN),
    "common property": (ImageQuery(properties={"common": "same"}), ADMIN),
    "property that nothing has": (ImageQuery(properties={"common": "other"}), ADMIN),
    "common tag": (ImageQuery(tags=("common",)), ADMIN),
    "tag that nothing has": (ImageQuery(tags=("other",)), ADMIN),
    "checksum that nothing has": (by("checksum", "eq", "other"), ADMIN),
    "names that nothing has": (by("name", "in", ["other", "another"]), ADMIN),
    "owners": (by("owner", "in", ["owner-3", "owner-4"]), ADMIN),
    "one id": (by("id", "eq", at(3).id), ADMIN),
    "some ids": (by("id", "in", [at(3).id, at(4).id]), ADMIN),
}


@pytest.mark.parametrize("position", ["first page", "deep page"])
@pytest.mark.parametrize("name", QUERIES)
def test_a_page_does_not_grow_with_the_catalogue(
    databases: list[tuple[Database, int]], name: str, position: str
) -> None:
    query, viewer = QUERIES[name]
    taken = []
    for database, number in databases:
        # Public, so that every viewer may begin behind it.
        marker = at(number // 6 * 3).id if position == "deep page" else None
        asked = replace(query, marker=marker)
        # A page is 25 of at least 1,000 matches, so that a look ahead (few) finds many in both.
        taken.append(
            steps(database, lambda on, q=asked: catalogue.list_page(on, q, viewer, few=100))  # type: ignore[misc]
        )
    small, large = taken
    assert large <= small * 1.3 + 50, taken


def seen(database: Database, number: int) -> Image:
    return images.show(database, at(number).id, ADMIN)


def update(database: Database) -> None:
    before = seen(database, 12)
    images.update(
        database, before, replace(before, properties={"serial": "x"}, tags=frozenset("t"))
    )


CALLS: dict[str, Callable[[Database], object]] = {
    "show": lambda database: images.show(database, at(3).id, ADMIN),
    "show to a project": lambda database: images.show(database, at(3).id, OWNER),
    "show for download": lambda database: images.show_for_download(database, at(3).id, ADMIN),
    "create": lambda database: images.create(database, image(tags=frozenset("ab"))),
    "update": update,
    "create a member": lambda database: members.create(database, seen(database, 15), "x", 9, NOW),
    "list members": lambda database: members.list_all(database, at(15).id),
    "update a member": lambda database: members.update(
        database, at(15).id, "x", MemberStatus.ACCEPTED, NOW
    ),
    "delete a member": lambda database: members.delete(database, seen(database, 15), "x", NOW),
    "claim": lambda database: uploads.claim(database, seen(database, 9), "upload", "worker", NOW),
    "beat": lambda database: uploads.beat(database, ["upload"], LATER),
    "release": lambda database: uploads.release(database, at(9).id, "upload", LATER),
    "delete": lambda database: images.delete(database, seen(database, 13), NOW),
    "undeleted data": lambda database: images.undeleted_data(database, NOW),
    "mend a location": lambda database: locations.mend(
        database, at(3).id, Location("file:///none", {"store": "x"}), NOW
    ),
    "data deleted": lambda database: images.data_deleted(database, at(13).id, ["file:///x"]),
}


def test_one_image_does_not_cost_more_in_a_larger_catalogue(
    databases: list[tuple[Database, int]],
) -> None:
    for name, call in CALLS.items():
        small, large = (steps(database, call) for database, _ in databases)
        assert large <= small * 1.3 + 20, (name, small, large)


def test_the_default_list_is_a_walk_along_one_index(sqlite: Database) -> None:
    images.create(sqlite, image())
    plans: list[str] = []

    def explain(connection: sa.Connection, _cursor: object, sql: str, values: object, *_: object
    ) -> None:  # fmt: skip
        if not sql.startswith("EXPLAIN"):
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)  # type: ignore[arg-type]
            plans.append("\n".join(row[3] for row in found))

    sa.event.listen(sqlite.engine, "before_cursor_execute", explain)
    catalogue.list_page(sqlite, ImageQuery(), ADMIN)
    page, parts = plans
    assert (
        page == "SEARCH images USING INDEX headrace_images_created_at (deleted=? AND os_hidden=?)"
    )
    assert "SCAN" not in parts
    assert "TEMP B-TREE" not in parts
