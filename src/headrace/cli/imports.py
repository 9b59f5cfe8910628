"""The command import."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import click

from headrace.cli import completion, output, source
from headrace.cli.choosing import chosen
from headrace.cli.content import dry_run, no_progress
from headrace.cli.progress import progress_bar
from headrace.cli.session import ServiceCommand, Session
from headrace.cli.words import Value, comma_list, text, typed
from headrace.client.imports import Imports
from headrace.errors import UsageError

METHODS = ("web-download", "glance-direct", "copy-image")
KEYS: dict[str, Callable[[str, str], Value]] = {
    "method": text,
    "uri": text,
    "path": text,
    "stores": comma_list,
}
VALUES = {"method": METHODS, "stores": ("all",)}


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.argument(
    "words", metavar="KEY=VALUE...", nargs=-1, shell_complete=completion.keys(KEYS, VALUES)
)
@click.option("--some", is_flag=True, help="Make do with those of the stores that can be had.")
@click.option("--no-wait", is_flag=True, help="Return while the service is at it.")
@dry_run
@no_progress
@click.pass_obj
def command(
    session: Session,
    image_id: str,
    words: Sequence[str],
    *,
    some: bool,
    no_wait: bool,
    dry_run: bool,
    no_progress: bool,
) -> None:
    """Have the service fetch an image's data, or copy it.

    IMAGE is its id, or its name if no other image has it.

    \b
      headrace import noble uri=https://example.com/noble.img
      headrace import noble path=noble.img stores=fast,cheap
      headrace import noble method=copy-image stores=all

    uri= is fetched by the service (method=web-download).  path=FILE is sent first, then imported
    (method=glance-direct), which without path= imports what was sent before.  method=copy-image
    copies the data of an active image to other stores.  stores= are ids, or all; see `headrace
    stores`.
    """
    wishes = typed(words, KEYS)
    request = _request(wishes)
    connection = session.connection(session.timeout)
    images = session.images()
    image = chosen(images, image_id)
    told = f"image {output.named(image)} by {request.method}"
    if dry_run:
        output.write(f"Would import {told}")
        return
    imports, key = Imports(connection), str(image["id"])
    if (path := wishes.get("path")) is not None:
        with source.opened(str(path)) as data:
            assert data is not None, "a path is data, or an error"
            size = data.body.size
            with progress_bar("Sending", size, wanted=not no_progress) as progress:
                imports.stage(key, data.body, progress=progress)
    imports.begin(
        key,
        request.method,
        uri=request.uri,
        stores=request.stores,
        all_stores=request.stores == ["all"],
        all_must_succeed=not some,
    )
    if no_wait:
        output.write(f"Importing {told}")
        return
    record = imports.wait(key)
    if session.as_json:
        output.write_json(record)
    else:
        output.write(f"Imported {told}")
    if failed := record.get("os_glance_failed_import"):
        output.note(f"not into {output.shown(failed)}")


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    uri: str | None
    stores: list[str]


def _request(wishes: Mapping[str, Value]) -> _Request:
    """What the words ask for; UsageError when they do not go together."""
    uri, path, method = wishes.get("uri"), wishes.get("path"), wishes.get("method")
    meant = "web-download" if uri is not None else "glance-direct" if path is not None else None
    if uri is not None and path is not None:
        raise UsageError(reason="uri= and path= are given: which is it?")
    if meant is not None and method not in (None, meant):
        raise UsageError(reason=f"method={method} has no {'uri' if uri is not None else 'path'}=")
    method = method or meant
    if method is None:
        raise UsageError(reason="say what to import: uri=, path= or method=")
    if method == "web-download" and uri is None:
        raise UsageError(reason="method=web-download wants uri=")
    stores = wishes.get("stores", [])
    return _Request(
        str(method),
        None if uri is None else str(uri),
        stores if isinstance(stores, list) else [],
    )
