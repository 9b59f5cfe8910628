"""headrace db: looking after a service's database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from headrace.cli import metadef_files, output, settings

if TYPE_CHECKING:
    from headrace.db.engine import Database

EXIT_TO_SYNC = 3
EXIT_GLANCE_TOO_OLD = 4
EXIT_TOO_NEW = 5


@click.group("db")
def command() -> None:
    """Look after a service's database."""


@command.command("check")
@settings.settings_options
def check(*, state_dir: str | None, config_files: tuple[str, ...]) -> int:
    """Say at which revisions the database is, and what is to be done; nothing is changed.

    Exit status: 0 nothing is to be done, 1 it cannot be looked at, 2 wrongly called, 3 it lacks
    what `headrace db sync` and `headrace serve` create, 4 it is of a Glance that is too old and
    takes a `glance-manage db sync` first, 5 it is of a newer Glance or Headrace than this one
    knows.
    """
    from headrace.db import migrate
    from headrace.db.migrate import State

    with _database(state_dir, config_files) as database:
        found = migrate.check(database)
    output.write(f"Glance's revision: {', '.join(found.glance) or 'none'}")
    output.write(f"Headrace's revision: {', '.join(found.own) or 'none'}")
    status, advice = {
        State.READY: (0, "nothing"),
        State.TO_SYNC: (EXIT_TO_SYNC, "headrace db sync"),
        State.GLANCE_TOO_OLD: (EXIT_GLANCE_TOO_OLD, "glance-manage db sync, of 2024.1 or newer"),
        State.TOO_NEW: (EXIT_TOO_NEW, "install a newer Headrace"),
    }[found.state]
    output.write(f"To be done: {advice}")
    return status


@command.command("sync")
@settings.settings_options
def sync(*, state_dir: str | None, config_files: tuple[str, ...]) -> None:
    """Create in the database what is missing; `headrace serve` does the same.

    An empty database gets everything, one of a Glance tables and indexes named headrace_.  A Glance
    may go on working on it meanwhile.
    """
    from headrace.db import migrate

    with _database(state_dir, config_files) as database:
        migrate.prepare(database)
    output.note("the database is ready")


@command.command("purge")
@settings.settings_options
@click.option(
    "--age",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="How long ago a row must have been deleted.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most so many rows of each table [all].",
)
@click.option(
    "--images",
    "image_rows",
    is_flag=True,
    help="Rows of images, too, of which nothing else is left.  Their ids may then be taken again.",
)
def purge(
    *,
    state_dir: str | None,
    config_files: tuple[str, ...],
    age: int,
    rows: int | None,
    image_rows: bool,
) -> None:
    """Remove what was deleted long ago from the database for good.

    Deleting only marks rows.  This removes those of properties, tags, members, locations and tasks.
    The rows of the images themselves stay, and with them their ids are taken for ever: somebody may
    remember an id, and must not be given another's image for it.
    """
    from datetime import UTC, datetime, timedelta

    from headrace.db import migrate
    from headrace.db.purge import purge as purge_rows

    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=age)
    with _database(state_dir, config_files) as database:
        migrate.expect_ready(database)
        gone = purge_rows(database, before, most=rows, image_rows=image_rows)
    for table, number in gone.items():
        output.write(f"{table}: {number}")


@command.command("hand-back")
@settings.settings_options
@click.confirmation_option(
    "-f",
    "--force",
    prompt="Is every Headrace on this database stopped?",
    help="Do not ask.",
)
def hand_back(*, state_dir: str | None, config_files: tuple[str, ...]) -> None:
    """Drop from the database what only Headrace needs, and leave it to Glance.

    Its tables and indexes named headrace_ go; images, and what is known of them, stay.  Uploads
    that were cut off are queued again.  The next `headrace serve` takes the database back.
    """
    from headrace.db import migrate

    with _database(state_dir, config_files) as database:
        migrate.hand_back(database)
    output.note("the database is Glance's")


@contextmanager
def _database(state_dir: str | None, config_files: tuple[str, ...]) -> "Iterator[Database]":
    from headrace import config
    from headrace.db import engine

    database = engine.connect(config.database_url(settings.load(state_dir, config_files)))
    try:
        yield database
    finally:
        database.close()


command.add_command(metadef_files.load)
command.add_command(metadef_files.export)
command.add_command(metadef_files.unload)
