"""The two-way door: a real Glance on our database, and we on a real Glance's."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import images, migrate, schema
from headrace.db.engine import Database, connect
from tests.conftest import NewDatabase
from tests.contract.db.examples import ADMIN, image
from tests.needs import require_environment

pytestmark = [
    pytest.mark.slow,
    # Indexes on expressions are ours alone; SQLAlchemy passes over them, and says so.
    pytest.mark.filterwarnings(
        "ignore:Skipped unsupported reflection of expression-based index headrace_"
    ),
]

Manage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def manage(tmp_path_factory: pytest.TempPathFactory) -> Manage:
    """``manage(where, *words)``: glance-manage on a database's URL or SQLite's file."""
    program = require_environment(".venv-glance") / "glance-manage"
    directory = tmp_path_factory.mktemp("glance")

    def run(where: Path | sa.URL, *words: str) -> "subprocess.CompletedProcess[str]":
        config = directory / "glance-api.conf"
        url = f"sqlite:///{where}" if isinstance(where, Path) else where.render_as_string(False)
        config.write_text(f"[database]\nconnection = {url}\n")
        return subprocess.run(
            [program, "--config-file", config, *words],
            capture_output=True, text=True, timeout=120, cwd=directory,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def glance_made(manage: Manage, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a database that Glance has made."""
    path = tmp_path_factory.mktemp("made") / "glance.db"
    done = manage(path, "db", "sync")
    assert done.returncode == 0, done.stderr
    return path.read_bytes()


@pytest.fixture
def glance(glance_made: bytes, tmp_path: Path) -> Database:
    """A database that Glance has made."""
    (tmp_path / "glance.db").write_bytes(glance_made)
    return connect(f"sqlite:///{tmp_path}/glance.db")


def layout(database: Database) -> dict[str, Any]:
    """Everything the inspector says about the tables and indexes that are not ours."""
    inspector = sa.inspect(database.engine)
    return {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            },
            "primary key": inspector.get_pk_constraint(table),
            "indexes": _named(
                index
                for index in inspector.get_indexes(table)
                if not str(index["name"]).startswith("headrace_")
            ),
            "unique": _named(inspector.get_unique_constraints(table)),
            "foreign keys": sorted(
                (key["constrained_columns"], key["referred_table"], key["referred_columns"],
                 key["options"])
                for key in inspector.get_foreign_keys(table)
            ),
            "checks": sorted(
                check["sqltext"] for check in inspector.get_check_constraints(table)
            ),
        }
        for table in inspector.get_table_names()
        if not table.startswith("headrace_")
    }  # fmt: skip


def _named(found: Any) -> dict[str, Any]:
    return {each["name"]: each for each in found}


def check_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for table, expected in theirs.items():
        assert ours[table] == expected, table


def test_our_tables_are_glances(sqlite: Database, glance: Database) -> None:
    check_same(layout(sqlite), layout(glance))


def test_our_tables_are_glances_on_mariadb(new_database: NewDatabase, manage: Manage) -> None:
    """Collations, too: Glance's later tables refer to these by columns of text."""
    theirs, ours = (connect(new_database("mariadb")) for _ in range(2))
    done = manage(theirs.engine.url, "db", "sync")
    assert done.returncode == 0, done.stderr
    migrate.prepare(ours)
    before = layout(theirs)
    check_same(layout(ours), before)
    check_same(creations(ours), creations(theirs))
    migrate.prepare(theirs)
    migrate.hand_back(theirs)
    assert layout(theirs) == before
    done = manage(theirs.engine.url, "db", "check")
    assert done.returncode == 0, done.stderr
    for database in (theirs, ours):
        database.close()


def creations(database: Database) -> dict[str, list[str]]:
    """MariaDB's own words for each of Glance's tables, in an order of our own, without ours.

    Checks and foreign keys have numbers for names, in the order of their making.
    """
    found = {}
    with database.read() as connection:
        for table in schema.GLANCE.tables:
            words = connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1]
            words = re.sub(r"`(CONSTRAINT_|\w+_ibfk_)[0-9]+`", "", words)
            lines = [line.rstrip(",") for line in words.splitlines() if "headrace_" not in line]
            found[table] = sorted(lines)
    return found


@pytest.mark.parametrize("words", [("db", "check"), ("db", "version"), ("db", "sync")])
def test_glance_finds_our_database_current(
    sqlite: Database, manage: Manage, words: tuple[str, ...]
) -> None:
    before = layout(sqlite)
    done = manage(Path(str(sqlite.engine.url.database)), *words)
    assert done.returncode == 0, done.stderr
    expected = {
        "check": "Database is up to date. No upgrades needed.",
        "version": "2024_1_contract01",
        "sync": "Database is up to date. No migrations needed.",
    }[words[1]]
    assert done.stdout.strip().splitlines()[-1] == expected
    assert layout(sqlite) == before


def test_a_glance_database_is_taken_and_handed_back(glance: Database, manage: Manage) -> None:
    before = layout(glance)
    migrate.prepare(glance)
    assert layout(glance) == before
    made = image(tags=frozenset({"kept"}), properties={"a": "b"})
    images.create(glance, made)
    migrate.hand_back(glance)
    assert layout(glance) == before
    assert not [
        name for name in sa.inspect(glance.engine).get_table_names() if name.startswith("headrace_")
    ]
    assert images.show(glance, made.id, ADMIN) == made
    glance.close()
    done = manage(Path(str(glance.engine.url.database)), "db", "check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [("db", "upgrade", "2023_1_contract01"), ("db", "expand")],
    ids=["older", "not yet contracted"],
)
def test_a_glance_database_below_the_head_is_refused(
    manage: Manage, tmp_path: Path, words: tuple[str, ...]
) -> None:
    path = tmp_path / "glance.db"
    done = manage(path, *words)
    assert done.returncode == 0, done.stderr
    database = connect(f"sqlite:///{path}")
    before = layout(database)
    with pytest.raises(errors.DatabaseTooOld):
        migrate.prepare(database)
    assert layout(database) == before
    database.close()
