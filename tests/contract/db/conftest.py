"""Every test of this folder that takes ``database`` runs on each kind of database."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace.db import migrate, schema
from headrace.db.engine import Database, connect
from tests.conftest import KINDS, NewDatabase
from tests.sqlite import prepared


def _prepared(url: str) -> Iterator[Database]:
    database = connect(url)
    migrate.prepare(database)
    yield database
    database.close()


@pytest.fixture(scope="session")
def prepared_postgresql(new_database: NewDatabase) -> Iterator[Database]:
    yield from _prepared(new_database("postgresql"))


@pytest.fixture(scope="session")
def prepared_mariadb(new_database: NewDatabase) -> Iterator[Database]:
    yield from _prepared(new_database("mariadb"))


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    """A prepared SQLite database."""
    database = prepared(tmp_path / "headrace.db")
    yield database
    database.close()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest) -> Database:
    """A prepared, empty database."""
    return _empty(request)


@pytest.fixture(params=KINDS[1:])
def served(request: pytest.FixtureRequest) -> Database:
    """A prepared, empty database of a server."""
    return _empty(request)


def _empty(request: pytest.FixtureRequest) -> Database:
    found: Database
    if request.param == "sqlite":
        found = request.getfixturevalue("sqlite")
        return found
    found = request.getfixturevalue(f"prepared_{request.param}")
    with found.write() as connection:
        for table in (*schema.OWN.sorted_tables, *reversed(schema.GLANCE.sorted_tables)):
            connection.execute(sa.delete(table))
    return found


@pytest.fixture(params=KINDS)
def unprepared(
    request: pytest.FixtureRequest, new_database: NewDatabase
) -> Iterator[Callable[[], Database]]:
    """Opens one and the same database, in which nothing is yet."""
    url = new_database(request.param)
    with ExitStack() as stack:

        def make() -> Database:
            opened = connect(url)
            stack.callback(opened.close)
            return opened

        yield make
