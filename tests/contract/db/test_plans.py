"""What a call costs a database: not more in a larger catalogue."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.db import catalogue, images, locations, members, migrate, schema, uploads
from headrace.db.engine import Database, connect
from headrace.db.orders import SORT_KEYS
from headrace.model import Filter, Image, ImageQuery, Location, MemberStatus, Op, Viewer
from tests.conftest import KINDS, NewDatabase
from tests.contract.db.examples import ADMIN, LATER, NOW, image

SMALL, LARGE = 1_000, 8_000
OWNER = Viewer("owner-3")


def fill(database: Database, number: int) -> Database:
    """``number`` images, of which every condition below holds for many or for few."""
    rows: dict[sa.Table, list[dict[str, object]]] = {
        table: []
        for table in (
            schema.images,
            schema.image_properties,
            schema.image_tags,
            schema.image_members,
            schema.image_locations,
        )
    }
    for count in range(number):
        made = at(count)
        rows[schema.images].append(
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
            }
        )
        common = {"image_id": made.id, "created_at": NOW, "deleted": False}
        rows[schema.image_properties] += [
            {**common, "name": "common", "value": "same"},
            {**common, "name": "serial", "value": f"{count % 500}"},
        ]
        rows[schema.image_tags] += [
            {**common, "value": "common"},
            {**common, "value": f"tag-{count % 500}"},
        ]
        rows[schema.image_members].append(
            {**common, "member": f"owner-{count % 5}", "can_share": False}
        )
        rows[schema.image_locations].append(
            {**common, "value": f"file:///{count}", "status": "active"}
        )
    with database.write() as connection:
        for table, values in rows.items():
            connection.execute(sa.insert(table).inline(), values)
    with database.read() as connection:
        for table in rows:
            if database.dialect == "postgresql":
                connection.exec_driver_sql(f"VACUUM ANALYZE {table.name}")
            elif database.dialect == "mysql":
                connection.exec_driver_sql(f"ANALYZE TABLE {table.name}")
    return database


def at(count: int) -> Image:
    return image(
        id=f"{count * 7919 % 1_000_003:036}",
        name=f"name-{count % 20}",
        created_at=NOW + timedelta(seconds=count // 2),
    )


@pytest.fixture(scope="module", params=KINDS)
def databases(
    request: pytest.FixtureRequest, new_database: NewDatabase
) -> Iterator[list[tuple[Database, int]]]:
    made = []
    for number in (SMALL, LARGE):
        database = connect(new_database(request.param))
        migrate.prepare(database)
        made.append((fill(database, number), number))
    yield made
    for database, _ in made:
        database.close()


def cost(database: Database, call: Callable[[Database], object]) -> int:
    """What a call makes a database do, in the measure that the database has."""
    measure = {"sqlite": steps, "postgresql": rows_of_plans, "mysql": rows_read}[database.dialect]
    return measure(database, call)


def steps(database: Database, call: Callable[[Database], object]) -> int:
    """How many steps SQLite's virtual machine takes, in tens."""
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


def rows_of_plans(database: Database, call: Callable[[Database], object]) -> int:
    """How many rows the nodes of PostgreSQL's plans have seen; of writes, what finds the rows."""
    count = 0

    def explain(
        _connection: sa.Connection, cursor: Any, sql: str, values: Any, _context: object, many: bool
    ) -> None:
        nonlocal count
        if sql.startswith(("SELECT", "UPDATE", "DELETE")):
            for each in values if many else [values]:
                count += seen_by(explained(cursor.connection, sql, each))

    sa.event.listen(database.engine, "before_cursor_execute", explain)
    try:
        call(database)
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", explain)
    return count


def explained(connection: Any, sql: str, values: Any) -> dict[str, Any]:
    """The plan of a statement, which is run for that and undone."""
    undone = not sql.startswith("SELECT")
    with connection.cursor() as cursor:
        if undone:
            cursor.execute("SAVEPOINT explained")
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values)
        plan: dict[str, Any] = cursor.fetchone()[0][0]["Plan"]
        if undone:
            cursor.execute("ROLLBACK TO explained")
    return plan


def seen_by(plan: dict[str, Any]) -> int:
    removed = sum(plan.get(f"Rows Removed by {what}", 0) for what in ("Filter", "Index Recheck"))
    own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return int(own) + sum(map(seen_by, plan.get("Plans", [])))


def rows_read(database: Database, call: Callable[[Database], object]) -> int:
    """How many rows MariaDB's storage engine was asked for, each time through."""
    names: set[object] = set()

    def count() -> int:
        with database.read() as connection:
            names.add(connection.exec_driver_sql("SELECT connection_id()").scalar_one())
            found = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").all()
        return sum(int(value) for _, value in found)

    # The second count counts the first; the difference of two without a call is its own price.
    before, own = count(), count()
    call(database)
    after = count()
    assert len(names) == 1, "the call was made on another connection"
    return after - own - (own - before)


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
    **{
        f"of a project by {key}": (ImageQuery(sort=((key, True),)), OWNER)
        for key in ("name", "status", "size", "id", "updated_at")
    },
    "of a stranger by name": (ImageQuery(sort=(("name", False),)), Viewer("stranger")),
    "of a stranger, by a name that nothing has": (by("name", "eq", "other"), Viewer("stranger")),
    "a status that nothing has": (by("status", "eq", "saving"), OWNER),
    "a size that nothing has": (by("size", "gt", 1000), ADMIN),
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
            cost(database, lambda on, q=asked: catalogue.list_page(on, q, viewer, few=100))  # type: ignore[misc]
        )
    small, large = taken
    assert large <= small * 1.5 + 50, taken


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (replace(by("name", "eq", "name-3"), sort=(("size", True),)), "headrace_images_name"),
        (ImageQuery(properties={"serial": "3"}), "headrace_image_properties_value"),
        (ImageQuery(tags=("tag-3",), sort=(("name", True),)), "headrace_image_tags_value"),
    ],
    ids=["column", "property", "tag"],
)
def test_what_is_rare_is_looked_up_once_for_all_that_a_project_sees(
    sqlite: Database, query: ImageQuery, index: str
) -> None:
    fill(sqlite, SMALL)
    with plans(sqlite) as found:
        catalogue.list_page(sqlite, query, OWNER, few=100)
    _, page, _ = found
    assert page.count(index) == 1, page


@pytest.mark.parametrize("key", [*SORT_KEYS, "owner", "visibility"])
def test_what_a_walk_tests_lies_in_its_index(sqlite: Database, key: str) -> None:
    tested = "id, created_at, status, visibility, owner"
    with sqlite.read() as connection:
        (plan,) = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN SELECT {tested} FROM images INDEXED BY headrace_images_{key}"
            " WHERE deleted = 0 AND os_hidden = 0 AND owner = 'x' AND visibility = 'public'"
        )
    assert f"USING COVERING INDEX headrace_images_{key} " in plan[3]


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
        small, large = (cost(database, call) for database, _ in databases)
        assert large <= small * 1.3 + 20, (name, small, large)


@pytest.mark.parametrize("name", QUERIES)
def test_no_list_reads_a_table_from_end_to_end(
    databases: list[tuple[Database, int]], name: str
) -> None:
    query, viewer = QUERIES[name]
    database, number = databases[1]
    for marker in (None, at(number // 6 * 3).id):
        with plans(database) as found:
            catalogue.list_page(database, replace(query, marker=marker), viewer, few=100)
        # A count ends at its limit, so that PostgreSQL may well read rows as they lie.
        for plan in (each for each in found if "Aggregate" not in each):
            assert not SCANS[database.dialect].search(plan), plan


# What the plan of a statement calls a look at every row of these tables.
SCANS = {
    "sqlite": re.compile(r"SCAN (images|image_\w+)\b(?! USING)"),
    "postgresql": re.compile(r"Seq Scan on (images|image_properties|image_tags)\b"),
    "mysql": re.compile(r"\('(images|image_properties|image_tags)', 'ALL'\)"),
}


@contextmanager
def plans(database: Database) -> Iterator[list[str]]:
    """Collects the plans of the SELECTs that are sent to the database."""
    found: list[str] = []

    def explain(_connection: sa.Connection, cursor: Any, sql: str, values: Any, *_: object) -> None:
        with closing(cursor.connection.cursor()) as own:
            if database.dialect == "mysql":
                own.execute(f"EXPLAIN {sql}", values)
                found.append("\n".join(str((row[2], row[3])) for row in own.fetchall()))
            elif database.dialect == "postgresql":
                own.execute(f"EXPLAIN {sql}", values)
                found.append("\n".join(row[0] for row in own.fetchall()))
            else:
                own.execute(f"EXPLAIN QUERY PLAN {sql}", values)
                found.append("\n".join(row[3] for row in own.fetchall()))

    sa.event.listen(database.engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", explain)


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
