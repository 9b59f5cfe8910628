"""Every test of this folder that takes ``database`` runs on each kind of database."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace.db import migrate, schema
from headrace.db.engine import Database, connect
from tests.contract.db import postgresql

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    with postgresql.server() as url:
        yield url


@pytest.fixture(scope="session")
def new_postgresql(postgresql_url: str) -> Iterator[Callable[[], str]]:
    """Makes an empty PostgreSQL database and returns its URL."""
    numbers = itertools.count()
    server = connect(postgresql_url.format("postgres"))

    def make() -> str:
        name = f"test{next(numbers)}"
        with server.read() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return postgresql_url.format(name)

    yield make
    server.close()


@pytest.fixture(scope="session")
def prepared_postgresql(new_postgresql: Callable[[], str]) -> Iterator[Database]:
    database = connect(new_postgresql())
    migrate.prepare(database)
    yield database
    database.close()


@pytest.fixture(scope="session")
def prepared_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "prepared.db"
    database = connect(f"sqlite:///{path}")
    migrate.prepare(database)
    database.close()
    return path


@pytest.fixture
def sqlite(prepared_sqlite: Path, tmp_path: Path) -> Iterator[Database]:
    """A prepared SQLite database."""
    shutil.copy(prepared_sqlite, tmp_path / "headrace.db")
    database = connect(f"sqlite:///{tmp_path}/headrace.db")
    yield database
    database.close()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest) -> Database:
    """A prepared, empty database."""
    if request.param == "sqlite":
        found: Database = request.getfixturevalue("sqlite")
        return found
    found = request.getfixturevalue("prepared_postgresql")
    tables = [*schema.GLANCE.tables, *schema.OWN.tables]
    with found.write() as connection:
        connection.execute(sa.text(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY"))
    return found


@pytest.fixture(params=KINDS)
def unprepared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Opens one and the same database, in which nothing is yet."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/new.db"
    else:
        url = request.getfixturevalue("new_postgresql")()
    with ExitStack() as stack:

        def make() -> Database:
            opened = connect(url)
            stack.callback(opened.close)
            return opened

        yield make
