"""The command about stores."""

import click

from headrace.cli import output
from headrace.cli.session import ServiceCommand, Session
from headrace.errors import ClientError, NotFound

_COLUMNS = (("id", "ID"), ("default", "Default"), ("read-only", "Read-only"))
_DETAIL = (("type", "Type"), ("weight", "Weight"))
_LAST = (("description", "Description"),)


@click.command(cls=ServiceCommand)
@click.option("--detail", is_flag=True, help="What administrators are told, too.")
@click.pass_obj
def stores(session: Session, *, detail: bool) -> None:
    """List the stores of a service that has several.

    `headrace add --store ID` sends an image's data to one of them, `headrace download --prefer ID`
    would rather have it from there, `headrace delete --store ID` removes it from there.
    """
    try:
        found = session.stores().list(detail=detail)
    except NotFound as error:
        raise ClientError(reason="the service has only one store") from error
    if session.as_json:
        output.write_json(found)
        return
    columns = [*_COLUMNS, *(_DETAIL if detail else ()), *_LAST]
    rows = [[title for _, title in columns]]
    rows += [[_shown(store.get(key)) for key, _ in columns] for store in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        output.write("  ".join(cells).rstrip())
    if detail:
        for store in found:
            output.write(f"\n{output.shown(store.get('id'))}:{_properties(store)}")


def _shown(value: object) -> str:
    return {"true": "Yes"}.get(output.shown(value), output.shown(value))


def _properties(store: dict[str, object]) -> str:
    """The properties of a store's type, a line each."""
    properties = store.get("properties")
    if not isinstance(properties, dict) or not properties:
        return " no properties"
    return "".join(
        f"\n  {output.shown(name)}: {output.shown(value)}" for name, value in properties.items()
    )
