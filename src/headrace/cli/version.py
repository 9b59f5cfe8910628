"""headrace version."""

import click

from headrace import __version__


@click.command()
def version() -> None:
    """Write the version."""
    click.echo(f"headrace {__version__}")
