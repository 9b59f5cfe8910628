"""Connections to the database: one engine, reads that cost one round trip, writes that are atomic.

Every connection is in autocommit mode, so that a read is one statement and nothing around it; a
write opens its transaction by hand.  On SQLite that is ``BEGIN IMMEDIATE``: a transaction that
begins by reading and then writes may not be able to get the write lock, and no waiting helps.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from headrace import errors
from headrace.db.hints import HintedSQLite

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Names of the same database with another driver are accepted: operators' files carry Glance's.
_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}
_ATTEMPTS = 5
_SQLITE_BUSY_SECONDS = 10.0
_SQLITE_BUSY = {5, 6}  # SQLITE_BUSY, SQLITE_LOCKED, the low byte of their extended codes
_POSTGRESQL_CONTENTION = {"40001", "40P01"}  # serialization_failure, deadlock_detected
_MYSQL_CONTENTION = {1020, 1205, 1213}  # ER_CHECKREAD, ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK

# ER_CANT_AGGREGATE_2COLLATIONS: four-byte characters beside a column that holds none.
_MYSQL_MISFIT = {1267}


class Database:
    """A database and its pool of connections; safe to use from many threads.

    Nothing is opened before the first use, so a process may make one and fork.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._begin = "BEGIN IMMEDIATE" if self.dialect == "sqlite" else "BEGIN"

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql`` (which MariaDB is, too)."""
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection whose statements each stand alone.

        Raises ServiceUnavailable when the database does not answer.
        """
        with _translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection inside one transaction: committed at the end, undone by any error.

        Raises ServiceUnavailable when the database does not answer or stays locked.
        """
        with _translated(), self._transaction() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections; the database may be used again afterwards."""
        self.engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            connection.exec_driver_sql(self._begin)
            try:
                yield connection
                self._commit(connection)
            except BaseException:
                try:
                    connection.exec_driver_sql("ROLLBACK")
                except exc.SQLAlchemyError:
                    # Never back into the pool with a transaction that may still be open.
                    with suppress(exc.SQLAlchemyError):
                        connection.invalidate()
                raise

    def _commit(self, connection: Connection) -> None:
        try:
            connection.exec_driver_sql("COMMIT")
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The server may have heard it: what is done twice could undo somebody else's work.
            raise errors.ServiceUnavailable(
                reason="the database was lost when it should have kept a change"
            ) from error


def connect(url: str, *, connections: int = 32) -> Database:
    """The database at ``url``, with at most ``connections`` open at once.

    A thread that finds none free waits up to 30 s.  Raises ConfigurationError for a URL that
    cannot be used or a driver that is not installed.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise errors.ConfigurationError(reason="the database URL is not one") from None
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise errors.ConfigurationError(reason=f"databases of kind {backend} are not supported")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise errors.ConfigurationError(reason="an SQLite database needs a file")
    try:
        return Database(_engine(parsed.set(drivername=_DRIVERS[backend]), connections))
    except ModuleNotFoundError as error:
        raise errors.ConfigurationError(
            reason=f"the database driver {error.name} is not installed"
        ) from None


def transaction(
    work: Callable[Concatenate[Connection, _P], _T],
) -> Callable[Concatenate[Database, _P], _T]:
    """Make ``work`` on a connection into a function of the database: one transaction of its own.

    A transaction that lost a deadlock, found SQLite locked or lost its connection before it was to
    be kept is run again, a bounded number of times, so ``work`` must have no other effects that may
    not happen twice.
    """

    @wraps(work)
    def run(database: Database, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with _translated():
            for attempt in range(1, _ATTEMPTS):
                try:
                    with database._transaction() as connection:
                        return work(connection, *args, **kwargs)
                except exc.DBAPIError as error:
                    if not (error.connection_invalidated or _is_contention(error)):
                        raise
                time.sleep(random.uniform(0.01, 0.05) * attempt)
            with database._transaction() as connection:
                return work(connection, *args, **kwargs)

    return run


def _engine(url: URL, connections: int) -> Engine:
    options: dict[str, Any] = {
        "isolation_level": "AUTOCOMMIT",
        # Of locations and properties; an error that holds them would take them into the log.
        "hide_parameters": True,
        "pool_size": connections,
        "max_overflow": 0,
        # The last one used is the next one used: its caches are warm, and the rest stays unopened.
        "pool_use_lifo": True,
        # Transactions end in Database._transaction; a reset would be a round trip for nothing.
        "pool_reset_on_return": None,
    }
    if url.get_backend_name() != "sqlite":
        if url.get_backend_name() == "postgresql":
            # Prepared statements come to be planned without their parameters, badly for lists:
            # 0.2 ms became 60 for a project with few of 100,000 images.
            options["connect_args"] = {"prepare_threshold": None}
        # A server may have closed an idle connection; better one round trip than a failed request.
        engine = sa.create_engine(url, pool_pre_ping=True, **options)
        if url.get_backend_name() != "postgresql":
            sa.event.listen(engine, "connect", _set_up_mysql)
        return engine
    engine = sa.create_engine(
        url,
        poolclass=sa.QueuePool,
        connect_args={"timeout": _SQLITE_BUSY_SECONDS, "check_same_thread": False},
        **options,
    )
    engine.dialect.statement_compiler = HintedSQLite
    sa.event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # In WAL mode anything less than FULL may lose acknowledged transactions at a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    # As on the other databases; rows that already break a foreign key are left in peace.
    connection.execute("PRAGMA foreign_keys = ON")
    # In KiB, as far as it is used; by default 2 MiB, less than a list of a million images reads.
    connection.execute("PRAGMA cache_size = -32768")


def _set_up_mysql(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        # As PostgreSQL's default.  REPEATABLE READ would lock the gaps between rows, too, where
        # uploads begin and end, and those that meet there would deadlock.
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        # MariaDB, which alone reads this comment, collects all images with a property before it
        # looks whether one image has it.
        cursor.execute("SET @headrace = 1 /*M!100000 , optimizer_switch = 'exists_to_in=off' */")


def _is_contention(error: exc.DBAPIError) -> bool:
    original = error.orig
    code = getattr(original, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_BUSY
    if getattr(original, "sqlstate", None) in _POSTGRESQL_CONTENTION:
        return True
    return _mysql_code(error) in _MYSQL_CONTENTION


def _mysql_code(error: exc.SQLAlchemyError) -> object:
    """The number of MySQL's error, or whatever another driver says first."""
    arguments: tuple[object, ...] = getattr(getattr(error, "orig", None), "args", ())
    return arguments[0] if arguments else None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.DataError as error:
        raise errors.BadRequest(reason="a value does not fit into the database") from error
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        if _mysql_code(error) in _MYSQL_MISFIT:
            raise errors.BadRequest(reason="a value does not fit into the database") from error
        # The driver's text may hold the URL; it goes into the log with the cause, not to a caller.
        raise errors.ServiceUnavailable(reason="the database failed") from error
