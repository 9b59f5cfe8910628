"""The command about quotas."""

import click

from headrace.cli import output
from headrace.cli.session import ServiceCommand, Session

_COLUMNS: output.Columns = (("Resource", 22, False), ("Usage", 12, True), ("Limit", 12, True))


@click.command(cls=ServiceCommand)
@click.pass_obj
def usage(session: Session) -> None:
    """Show what your project uses, of what it may.

    image_size_total and image_stage_total, the data of images and what of it waits to be imported,
    are in MiB; the others are numbers of images.
    """
    found = session.usage().show()
    if session.as_json:
        output.write_json(found)
        return
    if not found:
        output.note("the service has no limits")
        return
    output.write(output.table_head(_COLUMNS))
    for name, each in found.items():
        limit = each["limit"] if each["limit"] >= 0 else "none"
        record = {"name": name, "usage": each["usage"], "limit": limit}
        keys = ("name", "usage", "limit")
        output.write(output.table_row(record, cut=False, columns=_COLUMNS, keys=keys))
