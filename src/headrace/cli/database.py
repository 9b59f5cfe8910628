"""headrace db: what is done to a service's database while no service runs on it."""

import click

from headrace.cli import metadef_files, output, settings


@click.group("db")
def command() -> None:
    """Look after a service's database."""


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
    from headrace import config
    from headrace.db import engine, migrate

    conf = settings.load(state_dir, config_files)
    database = engine.connect(config.database_url(conf))
    try:
        migrate.hand_back(database)
    finally:
        database.close()
    output.note("the database is Glance's")


command.add_command(metadef_files.load)
command.add_command(metadef_files.export)
command.add_command(metadef_files.unload)
