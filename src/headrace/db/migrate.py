"""Bringing a database to the layout this version needs, and handing it back to Glance.

Two chains of revisions, each with a version table of its own: Glance's, so that a Glance finds the
database as it would have left it, and ours.  A revision of ours in Glance's version table would
break ``glance-manage``.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import schema
from headrace.db.engine import Database
from headrace.model import IMPORT_LOCK, Status, TaskStatus

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = "headrace_migrations"
_LOCK_KEY = 0x6865616472616365  # "headrace": PostgreSQL's advisory locks have numbers
_LOCK_SECONDS = 600


def prepare(database: Database) -> None:
    """Create what is missing, once, however many processes ask at the same time.

    An empty database gets everything, one of Glance's at its head only what is ours, and one that
    is ready two SELECTs.  Raises DatabaseTooOld for a Glance database below its head,
    DatabaseTooNew for one of a newer Glance or Headrace, ConfigurationError for one that cannot be
    used.
    """
    with _explained():
        _prepare(database)


def _prepare(database: Database) -> None:
    if _is_ready(database):
        return
    with _lock(database):
        if _is_ready(database):
            return
        if database.dialect == "sqlite":
            with database.read() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        with database.write() as connection:
            if _glance_revision(connection) is None:
                _migrate(connection, "glance", schema.GLANCE_VERSION_TABLE)
            _migrate(connection, "headrace", schema.OWN_VERSION_TABLE)


class State(StrEnum):
    """What is to be done before the service can work on a database."""

    READY = "ready"
    TO_SYNC = "to sync"
    GLANCE_TOO_OLD = "glance too old"
    TOO_NEW = "too new"


@dataclass(frozen=True, slots=True)
class Found:
    """A database's revisions, of Glance's chain and of ours, and what they mean.

    No revision of either is an empty database, none of ours alone one of a Glance.
    """

    glance: list[str]
    own: list[str]
    state: State


def check(database: Database) -> Found:
    """Look at a database and change nothing; raises ConfigurationError if that cannot be done."""
    if database.dialect == "sqlite" and not Path(database.engine.url.database or "").exists():
        return Found([], [], State.TO_SYNC)  # opening it would create it
    with _explained(), database.read() as connection:
        # First of all something that fails when the database cannot be used.
        tables = set(sa.inspect(connection).get_table_names())
        glance, own = (
            sorted(_revisions(connection, table)) if table in tables else []
            for table in (schema.GLANCE_VERSION_TABLE, schema.OWN_VERSION_TABLE)
        )
        return Found(glance, own, _state(database, connection))


def expect_ready(database: Database) -> None:
    """Raises ConfigurationError unless nothing is to be done before the service can work on it."""
    state = check(database).state
    if state is not State.READY:
        raise errors.ConfigurationError(
            reason=f"the database is not ready ({state}): see headrace db check"
        )


def _state(database: Database, connection: Connection) -> State:
    try:
        _glance_revision(connection)
        return State.READY if _is_ready(database) else State.TO_SYNC
    except errors.DatabaseTooOld:
        return State.GLANCE_TOO_OLD
    except errors.DatabaseTooNew:
        return State.TOO_NEW


def hand_back(database: Database) -> None:
    """Drop everything of ours, so that only a Glance database is left; harmless when it is.

    Every Headrace on the database must have ended: what it was uploading goes back to ``queued``,
    since a Glance would leave it ``saving`` or importing for ever.  ``prepare`` takes the database
    again.  Raises ConfigurationError when the database cannot be used.
    """
    with _explained(), _lock(database), database.write() as connection:
        if not sa.inspect(connection).has_table(schema.OWN_VERSION_TABLE):
            return
        connection.execute(
            sa.update(schema.images)
            .where(
                schema.images.c.id.in_(sa.select(schema.uploads.c.image_id)),
                schema.images.c.status.in_(
                    [Status.SAVING.value, Status.UPLOADING.value, Status.IMPORTING.value]
                ),
            )
            .values(status=Status.QUEUED, size=None, virtual_size=None)
        )
        _end_imports(connection)
        _migrate(connection, "headrace", schema.OWN_VERSION_TABLE, up=False)
        connection.execute(sa.text(f"DROP TABLE {schema.OWN_VERSION_TABLE}"))


def _end_imports(connection: Connection) -> None:
    """Let go of the locks of imports that are ours, whose tasks have failed with that."""
    ours = sa.select(schema.uploads.c.upload_id)
    connection.execute(
        sa.delete(schema.image_properties).where(
            schema.image_properties.c.name == IMPORT_LOCK,
            schema.image_properties.c.value.in_(ours),
        )
    )
    connection.execute(
        sa.update(schema.tasks)
        .where(schema.tasks.c.id.in_(ours))
        .values(status=TaskStatus.FAILURE.value)
    )


def _is_ready(database: Database) -> bool:
    """Whether both heads are reached; raises when the database is another version's."""
    with database.engine.connect() as connection:
        glance = _revisions(connection, schema.GLANCE_VERSION_TABLE)
        own = _revisions(connection, schema.OWN_VERSION_TABLE)
    if own - set(schema.OWN_REVISIONS):
        raise errors.DatabaseTooNew(revision=", ".join(sorted(own)), whose="Headrace")
    return glance == {schema.GLANCE_HEAD} and own == {schema.OWN_HEAD}


def _revisions(connection: Connection, table: str) -> set[str]:
    """The rows of a version table; none when there is no such table.

    A plain SELECT and not alembic, whose import costs every start 0.3 s of CPU.
    """
    try:
        return {row[0] for row in connection.exec_driver_sql(f"SELECT version_num FROM {table}")}
    except (exc.OperationalError, exc.ProgrammingError):
        # No such table, or no database; the latter fails again, and is told, under the lock.
        return set()


def _glance_revision(connection: Connection) -> str | None:
    """Glance's head when its tables are there, None when there are none of them."""
    tables = set(sa.inspect(connection).get_table_names())
    if schema.GLANCE_VERSION_TABLE not in tables:
        if schema.images.name in tables:
            raise errors.DatabaseTooOld(revision="unknown")
        return None
    found = _revisions(connection, schema.GLANCE_VERSION_TABLE)
    if not found:
        return None
    if found == {schema.GLANCE_HEAD}:
        return schema.GLANCE_HEAD
    # Releases have names up to 2022 (liberty … zed) and numbers since; a database between its
    # expansion and its contraction has a revision of each, or only the first, and is not there yet.
    release = schema.GLANCE_HEAD.rpartition("_")[0]
    if all(each[0].isdigit() and each.rpartition("_")[0] > release for each in found):
        raise errors.DatabaseTooNew(revision=", ".join(sorted(found)), whose="Glance")
    raise errors.DatabaseTooOld(revision=", ".join(sorted(found)))


def _migrate(connection: Connection, chain: str, version_table: str, *, up: bool = True) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    options = {
        "script_location": str(_MIGRATIONS),
        "version_locations": str(_MIGRATIONS / chain),
        "path_separator": "newline",
    }
    for name, value in options.items():
        config.set_main_option(name, value.replace("%", "%%"))  # a configparser's manner
    config.attributes.update(connection=connection, version_table=version_table)
    if up:
        command.upgrade(config, "head")
    else:
        command.downgrade(config, "base")


@contextmanager
def _explained() -> Iterator[None]:
    """Whoever starts or ends the service on a database is told what the driver says of it."""
    try:
        yield
    except (errors.ServiceUnavailable, exc.DBAPIError) as error:
        cause = error.__cause__ if isinstance(error, errors.ServiceUnavailable) else error
        words = str(cause.orig if isinstance(cause, exc.DBAPIError) else cause).splitlines()
        raise errors.ConfigurationError(reason=f"the database: {' '.join(words)}") from error
    except OSError as error:
        raise errors.ConfigurationError(reason=f"the database: {error}") from error


@contextmanager
def _lock(database: Database) -> Iterator[None]:
    """Held by one process at a time for as long as a database is migrated."""
    if database.dialect == "sqlite":
        with Path(f"{database.engine.url.database}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    take, drop = {
        "postgresql": (
            f"SELECT pg_advisory_lock({_LOCK_KEY})",
            f"SELECT pg_advisory_unlock({_LOCK_KEY})",
        ),
        "mysql": (
            f"SELECT GET_LOCK('{_LOCK}', {_LOCK_SECONDS})",
            f"SELECT RELEASE_LOCK('{_LOCK}')",
        ),
    }[database.dialect]
    with database.read() as connection:
        connection.exec_driver_sql(take)
        try:
            yield
        finally:
            connection.exec_driver_sql(drop)
