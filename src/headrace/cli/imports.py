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

METHODS = ("web-download", "glance-direct", "copy-image", "glance-download")
KEYS: dict[str, Callable[[str, str], Value]] = {
    "method": text,
    "uri": text,
    "path": text,
    "region": text,
    "image": text,
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
      headrace import noble region=east image=0f9d6b0e-9a1c-4c6e-8f4b-6f1f0a2d3c4e

    uri= is fetched by the service (method=web-download).  path=FILE is sent first, then imported
    (method=glance-direct), which without path= imports what was sent before.  method=copy-image
    copies the data of an active image to other stores.  region=NAME and image=ID take the data and
    the formats of an image of another region (method=glance-download).  stores= are ids, or all;
    see `headrace stores`.
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
        region=request.region,
        remote_id=request.remote_id,
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
    region: str | None
    remote_id: str | None
    stores: list[str]


# What is imported by a method that a word alone stands for.
_MEANT = {
    "uri": "web-download",
    "path": "glance-direct",
    "region": "glance-download",
    "image": "glance-download",
}
_WANTED = {"web-download": ("uri",), "glance-download": ("region", "image")}


def _request(wishes: Mapping[str, Value]) -> _Request:
    """What the words ask for; UsageError when they do not go together."""
    given = [name for name in _MEANT if name in wishes]
    meant = {_MEANT[name] for name in given}
    if len(meant) > 1:
        raise UsageError(reason=f"{' and '.join(f'{each}=' for each in given)}: which is it?")
    method = wishes.get("method")
    if meant and method is not None and method not in meant:
        raise UsageError(reason=f"method={method} has no {given[0]}=")
    method = method or next(iter(meant), None)
    if method is None:
        raise UsageError(reason="say what to import: uri=, path=, region= or method=")
    for name in _WANTED.get(str(method), ()):
        if name not in wishes:
            raise UsageError(reason=f"method={method} wants {name}=")
    stores = wishes.get("stores", [])
    return _Request(
        str(method),
        _said(wishes, "uri"),
        _said(wishes, "region"),
        _said(wishes, "image"),
        stores if isinstance(stores, list) else [],
    )


def _said(wishes: Mapping[str, Value], name: str) -> str | None:
    return None if (value := wishes.get(name)) is None else str(value)
