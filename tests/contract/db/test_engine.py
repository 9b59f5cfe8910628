"""Transactions: what one that fails leaves, and what becomes of those that meet."""

import gc
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import images, schema
from headrace.db.engine import Database, connect, transaction
from tests.contract.db.examples import ADMIN, image
from tests.servers import Server

NODES = schema.node_reference


def urls(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.execute(sa.select(NODES.c.node_reference_url)).scalars())


def add(connection: Connection, url: str) -> None:
    connection.execute(sa.insert(NODES).inline(), {"node_reference_url": url})


def test_a_write_is_seen_when_it_has_ended(database: Database) -> None:
    with database.write() as connection:
        add(connection, "a")
        assert urls(database) == set()
    assert urls(database) == {"a"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_write_that_fails_leaves_nothing(database: Database, error: type[BaseException]) -> None:
    def fail() -> None:
        with database.write() as connection:
            add(connection, "a")
            raise error

    with pytest.raises(error):
        fail()
    assert urls(database) == set()
    with database.write() as connection:
        add(connection, "b")
    assert urls(database) == {"b"}


def test_a_statement_that_fails_undoes_the_others(database: Database) -> None:
    @transaction
    def add_twice(connection: Connection) -> None:
        add(connection, "a")
        add(connection, "a")

    with pytest.raises(sa.exc.IntegrityError):
        add_twice(database)
    assert urls(database) == set()


def test_writes_that_meet_all_happen(database: Database) -> None:
    write = transaction(add)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write(database, str(number)), range(100)))
    assert urls(database) == {str(number) for number in range(100)}


def test_one_of_two_in_a_deadlock_is_run_again(served: Database) -> None:
    database = served
    with database.write() as connection:
        connection.execute(sa.delete(NODES))
        add(connection, "first")
        add(connection, "second")
    met = threading.Barrier(2)
    runs: list[str] = []

    @transaction
    def swap(connection: Connection, one: str, other: str) -> None:
        for url in (one, other):
            connection.execute(
                sa.select(NODES).where(NODES.c.node_reference_url == url).with_for_update()
            )
            if len(runs) < 2:
                runs.append(one)
                met.wait()
            elif url == one:
                runs.append(one)

    with ThreadPoolExecutor(2) as pool:
        results = [
            pool.submit(swap, database, "first", "second"),
            pool.submit(swap, database, "second", "first"),
        ]
        for result in results:
            result.result(timeout=60)
    assert len(runs) == 3


@pytest.mark.slow
def test_a_transaction_that_cannot_be_serialized_is_run_again(
    prepared_postgresql: Database,
) -> None:
    database = prepared_postgresql
    with database.write() as connection:
        connection.execute(sa.delete(NODES))
        add(connection, "")
    met = threading.Barrier(2)
    runs: list[str] = []

    @transaction
    def append(connection: Connection, letter: str) -> None:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        found = connection.execute(sa.select(NODES.c.node_reference_url)).scalar_one()
        runs.append(letter)
        if len(runs) <= 2:
            met.wait()
        connection.execute(sa.update(NODES).values(node_reference_url=found + letter))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda letter: append(database, letter), "ab"))
    assert len(runs) == 3
    assert urls(database) in ({"ab"}, {"ba"})


def end_connection(database: Database, connection: Connection) -> None:
    """As a server that restarts, or an administrator, ends it."""
    if database.dialect == "postgresql":
        number = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        words = f"SELECT pg_terminate_backend({number}, 60000)"
    else:
        number = connection.exec_driver_sql("SELECT connection_id()").scalar_one()
        words = f"KILL {number}"
    with database.read() as other:
        other.exec_driver_sql(words)


def test_a_transaction_that_lost_its_connection_is_run_again(served: Database) -> None:
    runs = 0

    @transaction
    def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        add(connection, "once")
        if runs < 3:
            end_connection(served, connection)
        add(connection, "twice")

    work(served)
    assert runs == 3
    assert urls(served) == {"once", "twice"}


def test_a_transaction_is_not_run_again_for_ever(served: Database) -> None:
    runs = 0

    @transaction
    def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        end_connection(served, connection)
        add(connection, "never")

    with pytest.raises(errors.ServiceUnavailable):
        work(served)
    assert 1 < runs < 20
    assert urls(served) == set()


def test_what_may_have_been_kept_is_not_done_again(served: Database) -> None:
    runs = 0

    @transaction
    def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        add(connection, "perhaps")
        end_connection(served, connection)

    with pytest.raises(errors.ServiceUnavailable):
        work(served)
    assert runs == 1


# PyMySQL leaves a socket behind that was refused.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_may_restart_between_two_requests(
    served: Database, request: pytest.FixtureRequest
) -> None:
    kind = {"mysql": "mariadb"}.get(served.dialect, served.dialect)
    server: Server = request.getfixturevalue(f"{kind}_server")
    made = image()
    images.create(served, made)
    server.restart()
    assert images.show(served, made.id, ADMIN) == made
    server.restart()
    images.create(served, image())
    server.stop()
    for act in (images.show, images.show_for_download):
        with pytest.raises(errors.ServiceUnavailable):
            act(served, made.id, ADMIN)
    with pytest.raises(errors.ServiceUnavailable):
        images.create(served, image())
    server.restart()
    assert images.show(served, made.id, ADMIN) == made
    gc.collect()  # while what PyMySQL has left is still forgiven


def test_a_locked_sqlite_is_waited_for(sqlite: Database) -> None:
    other = sqlite3.connect(str(sqlite.engine.url.database), check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, other.rollback)
    release.start()
    images.create(sqlite, image())
    release.join()
    other.close()


def test_sqlite_survives_a_power_cut_and_keeps_foreign_keys(sqlite: Database) -> None:
    with sqlite.read() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]


def test_a_database_closed_before_a_fork_serves_both_sides(database: Database) -> None:
    made = image()
    images.create(database, made)
    database.close()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, images.show(database, made.id, ADMIN).id.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == made.id
    os.waitpid(child, 0)
    assert images.show(database, made.id, ADMIN) == made


def test_a_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path}/no/such/directory/headrace.db")
    with pytest.raises(errors.ServiceUnavailable) as caught:
        images.show(database, "x", ADMIN)
    assert str(tmp_path) not in str(caught.value)


def test_a_value_that_does_not_fit_is_the_callers_fault(served: Database) -> None:
    with pytest.raises(errors.BadRequest):
        images.create(served, image(name="x" * 256))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "is not one"),
        ("", "is not one"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("oracle://host/name", "oracle"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, reason: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=reason):
        connect(url)


def test_the_driver_a_glance_names_does_not_matter(database: Database) -> None:
    if database.dialect == "postgresql":
        url = database.engine.url.set(drivername="postgresql+psycopg2")
        other = connect(url.render_as_string(hide_password=False))
        with other.read() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        other.close()
