"""From nothing, from Glance's and from our own layout to the one needed, and back."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import images, migrate, schema, uploads
from headrace.db.engine import Database, connect
from headrace.db.migrate import Found, State
from headrace.db.uploads import Lease
from headrace.model import Image, Status
from tests.conftest import MARIADB, POSTGRESQL
from tests.contract.db.examples import ADMIN, NOW, image, stored

Unprepared = Callable[[], Database]

OWN_KEYS = {
    f"{table}.PRIMARY"
    for table in ("headrace_alembic_version", "headrace_uploads", "headrace_quotas")
}
"""What MySQL calls primary keys."""

PREPARE = """
import sys
from headrace.db import engine, migrate
migrate.prepare(engine.connect(sys.argv[1]))
print("alembic" in sys.modules)
"""


def revisions(database: Database, table: str) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(sa.text(f"SELECT version_num FROM {table}")).scalars())


def names(database: Database) -> set[str]:
    """Every table and index of a database by name."""
    query = {
        "sqlite": "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'",
        "postgresql": "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = 'public' AND relkind IN ('r', 'i')",
        "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = database()"
        " UNION SELECT concat(table_name, '.', index_name) FROM information_schema.statistics"
        " WHERE table_schema = database()",
    }[database.dialect]
    with database.read() as connection:
        return set(connection.execute(sa.text(query)).scalars())


def start(database: Database) -> "subprocess.Popen[str]":
    url = database.engine.url.render_as_string(hide_password=False)
    return subprocess.Popen([sys.executable, "-c", PREPARE, url], stdout=subprocess.PIPE, text=True)


def make_glance(database: Database, *found: str) -> None:
    """The tables of a Glance at these revisions."""
    with database.write() as connection:
        schema.GLANCE.create_all(connection)
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        for revision in found:
            connection.execute(sa.text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})


def test_an_empty_database_gets_everything(unprepared: Unprepared) -> None:
    database = unprepared()
    assert migrate.check(database) == Found([], [], State.TO_SYNC)
    migrate.prepare(database)
    ready = Found(["2024_1_contract01"], [schema.OWN_HEAD], State.READY)
    assert migrate.check(database) == ready
    assert set(sa.inspect(database.engine).get_table_names()) == {
        *schema.GLANCE.tables,
        *schema.OWN.tables,
        "alembic_version",
        "headrace_alembic_version",
    }
    made = image()
    images.create(database, made)
    migrate.prepare(database)
    assert images.show(database, made.id, ADMIN) == made


@pytest.mark.slow
def test_many_processes_may_begin_at_once(unprepared: Unprepared) -> None:
    database = unprepared()
    for process in [start(database) for _ in range(4)]:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert revisions(database, "alembic_version") == ["2024_1_contract01"]
    assert revisions(database, "headrace_alembic_version") == [schema.OWN_HEAD]


def test_a_ready_database_costs_no_alembic(database: Database) -> None:
    out, _ = start(database).communicate(timeout=60)
    assert out == "False\n"


def test_a_glance_at_its_head_gets_only_what_is_ours(unprepared: Unprepared) -> None:
    database = unprepared()
    make_glance(database, "2024_1_contract01")
    before = names(database)
    assert migrate.check(database) == Found(["2024_1_contract01"], [], State.TO_SYNC)
    assert names(database) == before
    migrate.prepare(database)
    new = names(database) - before
    assert all(name.rpartition(".")[2].startswith("headrace_") or name in OWN_KEYS for name in new)
    assert len(new) > 10
    assert revisions(database, "alembic_version") == ["2024_1_contract01"]


@pytest.mark.parametrize(
    "found",
    [
        ["2023_1_contract01"],
        ["zed_contract01"],
        ["2024_1_expand01", "2023_1_contract01"],
        ["2024_1_expand01"],
    ],
)
def test_an_older_glance_is_refused(unprepared: Unprepared, found: list[str]) -> None:
    database = unprepared()
    make_glance(database, *found)
    before = names(database)
    assert migrate.check(database) == Found(sorted(found), [], State.GLANCE_TOO_OLD)
    with pytest.raises(errors.DatabaseTooOld) as caught:
        migrate.prepare(database)
    assert caught.value.fields["revision"] == ", ".join(sorted(found))
    assert names(database) == before


def test_a_glance_without_a_revision_is_refused(unprepared: Unprepared) -> None:
    database = unprepared()
    with database.write() as connection:
        schema.GLANCE.create_all(connection)
    with pytest.raises(errors.DatabaseTooOld, match="unknown"):
        migrate.prepare(database)


@pytest.mark.parametrize(
    ("table", "revision"),
    [("alembic_version", "2031_1_contract01"), ("headrace_alembic_version", "headrace_9999")],
)
def test_a_newer_database_is_refused(unprepared: Unprepared, table: str, revision: str) -> None:
    database = unprepared()
    migrate.prepare(database)
    with database.write() as connection:
        connection.execute(sa.text(f"UPDATE {table} SET version_num = '{revision}'"))
    assert migrate.check(database).state is State.TOO_NEW
    with pytest.raises(errors.DatabaseTooNew, match=revision):
        migrate.prepare(database)


def test_a_database_without_quotas_gets_them(unprepared: Unprepared) -> None:
    """Of a Headrace before them, whose uploads go on."""
    database = unprepared()
    migrate.prepare(database)
    made = image()
    images.create(database, made)
    with database.write() as connection:
        for statement in (
            "DROP TABLE headrace_quotas",
            "ALTER TABLE headrace_uploads DROP COLUMN reserved",
            "ALTER TABLE headrace_uploads DROP COLUMN reserved_staging",
            "UPDATE headrace_alembic_version SET version_num = 'headrace_0001'",
            "INSERT INTO headrace_uploads (image_id, upload_id, worker, heartbeat)"
            f" VALUES ('{made.id}', 'one', 'worker', '2026-01-02 03:04:05')",
        ):
            connection.execute(sa.text(statement))
    assert migrate.check(database).state is State.TO_SYNC
    migrate.prepare(database)
    assert uploads.leases(database) == [Lease(made.id, "one", "worker", NOW)]
    assert [each["reserved"] for each in stored(database, schema.uploads, made.id)] == [None]


def test_a_database_whose_leases_name_no_stores_gets_what_does(unprepared: Unprepared) -> None:
    """Of a Headrace of before, which still goes on, and begins uploads."""
    database = unprepared()
    migrate.prepare(database)
    before, after = image(), image()

    def insert(made: Image) -> sa.TextClause:
        return sa.text(
            "INSERT INTO headrace_uploads (image_id, upload_id, worker, heartbeat)"
            f" VALUES ('{made.id}', 'one', 'worker', '2026-01-02 03:04:05')"
        )

    with database.write() as connection:
        for statement in (
            "ALTER TABLE headrace_uploads DROP COLUMN stores",
            "UPDATE headrace_alembic_version SET version_num = 'headrace_0003'",
        ):
            connection.execute(sa.text(statement))
        connection.execute(insert(before))
    assert migrate.check(database).state is State.TO_SYNC
    migrate.prepare(database)
    with database.write() as connection:
        connection.execute(insert(after))
    assert {lease.image_id: lease.stores for lease in uploads.leases(database)} == {
        before.id: None, after.id: None
    }  # fmt: skip


@pytest.mark.parametrize("unprepared", [MARIADB], indirect=True)
@pytest.mark.parametrize("there", [True, False])
def test_a_column_that_is_there_or_not_after_a_crash_is_no_hindrance(
    unprepared: Unprepared, there: bool
) -> None:
    """Neither on the way up nor on the way down."""
    database = unprepared()
    migrate.prepare(database)
    drop = sa.text("ALTER TABLE headrace_uploads DROP COLUMN stores")
    with database.write() as connection:
        connection.execute(
            sa.text("UPDATE headrace_alembic_version SET version_num = 'headrace_0003'")
        )
        if not there:
            connection.execute(drop)
    migrate.prepare(database)
    assert uploads.leases(database) == []
    if not there:
        with database.write() as connection:
            connection.execute(drop)
    migrate.hand_back(database)
    assert not [name for name in names(database) if "headrace_" in name]


def test_a_database_with_narrow_indexes_gets_wider_ones(unprepared: Unprepared) -> None:
    """Of a Headrace whose walks read the row of every image that they met."""
    database = unprepared()
    migrate.prepare(database)
    index = "headrace_images_created_at"
    wide = columns(database, index)
    on_images = " ON images" if database.dialect == "mysql" else ""
    with database.write() as connection:
        for statement in (
            f"DROP INDEX {index}{on_images}",
            f"CREATE INDEX {index} ON images (deleted, os_hidden, created_at, id)",
            "UPDATE headrace_alembic_version SET version_num = 'headrace_0002'",
        ):
            connection.execute(sa.text(statement))
    assert columns(database, index) != wide
    migrate.prepare(database)
    assert columns(database, index) == wide
    assert {"status", "visibility", "owner"} < set(wide)


def columns(database: Database, index: str) -> list[str]:
    """The columns of an index, in their order."""
    query = {
        "sqlite": "SELECT name FROM pragma_index_info(:index)",
        "postgresql": "SELECT attname FROM pg_attribute"
        " WHERE attrelid = to_regclass(:index) ORDER BY attnum",
        "mysql": "SELECT column_name FROM information_schema.statistics"
        " WHERE table_schema = database() AND index_name = :index ORDER BY seq_in_index",
    }[database.dialect]
    with database.read() as connection:
        return list(connection.execute(sa.text(query), {"index": index}).scalars())


def test_a_database_that_was_handed_back_has_nothing_of_ours(unprepared: Unprepared) -> None:
    database = unprepared()
    make_glance(database, "2024_1_contract01")
    before = names(database)
    migrate.prepare(database)
    made = image(tags=frozenset({"kept"}))
    images.create(database, made)
    for _ in range(2):
        migrate.hand_back(database)
        assert names(database) == before
    migrate.prepare(database)
    assert images.show(database, made.id, ADMIN) == made


def test_handing_back_ends_uploads(unprepared: Unprepared) -> None:
    database = unprepared()
    migrate.prepare(database)
    ours, theirs = image(), image(status=Status.SAVING)
    for each in (ours, theirs):
        images.create(database, each)
    uploads.claim(database, ours, "one", "worker", NOW)
    migrate.hand_back(database)
    assert stored(database, schema.images, ours.id)[0]["status"] == "queued"
    assert stored(database, schema.images, theirs.id)[0]["status"] == "saving"


@pytest.mark.parametrize("unprepared", ["sqlite", POSTGRESQL], indirect=True)
def test_a_migration_that_fails_leaves_nothing(unprepared: Unprepared) -> None:
    database = unprepared()
    make_glance(database, "2024_1_contract01")
    with database.write() as connection:
        # In the way of the last index the migration makes.
        connection.execute(
            sa.text("CREATE INDEX headrace_image_locations_status ON image_locations (status)")
        )
    before = names(database)
    with pytest.raises(errors.ConfigurationError, match="headrace_image_locations_status"):
        migrate.prepare(database)
    assert names(database) == before


@pytest.mark.parametrize("unprepared", [MARIADB], indirect=True)
def test_a_migration_that_was_cut_short_is_completed(unprepared: Unprepared) -> None:
    """MySQL cannot undo DDL, so a crash leaves a part of it."""
    database = unprepared()
    migrate.prepare(database)
    whole = names(database)
    with database.write() as connection:
        connection.execute(sa.text("DELETE FROM headrace_alembic_version"))
        connection.execute(sa.text("DROP INDEX headrace_image_locations_status ON image_locations"))
    migrate.prepare(database)
    assert names(database) == whole
    with database.write() as connection:
        connection.execute(sa.text("DROP INDEX headrace_images_id ON images"))
    migrate.hand_back(database)
    assert not [name for name in names(database) if "headrace_" in name]


@pytest.mark.parametrize("unprepared", [MARIADB], indirect=True)
def test_a_creation_that_was_cut_short_is_completed(unprepared: Unprepared) -> None:
    database = unprepared()
    with database.write() as connection:
        schema.images.create(connection)
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
    migrate.prepare(database)
    images.create(database, image(tags=frozenset({"a"})))


def test_a_database_that_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="unable to open database file"):
        migrate.prepare(connect(f"sqlite:///{tmp_path}/no/directory/headrace.db"))
