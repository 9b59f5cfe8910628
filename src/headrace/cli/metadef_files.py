"""headrace db …-metadefs: definition files, into a service's database and out of it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli import output, settings
from headrace.errors import ClientError, Error, UsageError

if TYPE_CHECKING:
    from headrace.db.engine import Database
    from headrace.model import Merge, Namespace


@click.command("load-metadefs")
@click.option(
    "--path",
    type=click.Path(exists=True),
    help="A definition file, or a directory of them [metadata_source_path, else Headrace's own].",
)
@click.option("--merge", is_flag=True, help="Add to namespaces that are there what they have not.")
@click.option(
    "--prefer-new", "--prefer_new", is_flag=True, help="With --merge: change what they have, too."
)
@click.option("--overwrite", is_flag=True, help="With --merge: put new ones in their place.")
@settings.settings_options
def load(
    *,
    path: str | None,
    merge: bool,
    prefer_new: bool,
    overwrite: bool,
    state_dir: str | None,
    config_files: tuple[str, ...],
) -> None:
    """Load metadata definitions from files into the database.

    The files are JSON, a namespace each, in the form that Glance's have.  A namespace that is there
    already stays as it is unless --merge is given.  A file that cannot be loaded keeps none of the
    others from it.
    """
    from headrace.db import metadefs

    how = _merge(merge, prefer_new, overwrite)
    place = path or settings.load(state_dir, config_files).metadata_source_path
    found = _files(place)
    if not found:
        raise UsageError(reason=f"there is no definition file (*.json) in {place}")
    failed = 0
    with _database(state_dir, config_files) as database:
        for file in found:
            try:
                namespace = _read(file)
                done = metadefs.load(database, namespace, how)
            except Error as error:
                output.note(f"{file.name} was not loaded: {output.told(error)}")
                failed += 1
                continue
            what = "loaded" if done else "kept, it is there already:"
            output.note(f"{what} {namespace.namespace}")
    if failed:
        raise ClientError(reason=f"{failed} of {len(found)} files were not loaded")


@click.command("export-metadefs")
@click.option(
    "--path",
    type=click.Path(file_okay=False, exists=True, writable=True),
    required=True,
    help="Where to write them; files that are there are overwritten.",
)
@settings.settings_options
def export(*, path: str, state_dir: str | None, config_files: tuple[str, ...]) -> None:
    """Write all metadata definitions to files, a namespace each.

    `load-metadefs` reads them, and so does glance-manage.
    """
    from headrace.db import metadefs
    from headrace.service import definitions

    with _database(state_dir, config_files) as database:
        namespaces = metadefs.show_all(database)
    for name, namespace in zip(_names(namespaces), namespaces, strict=True):
        text = json.dumps(definitions.document(namespace), indent=2, ensure_ascii=False)
        (Path(path) / name).write_text(f"{text}\n", encoding="utf-8")
        output.note(f"{namespace.namespace} is in {name}")


@click.command("unload-metadefs")
@click.confirmation_option(
    "-f",
    "--force",
    prompt="Delete all metadata definitions, protected ones too?",
    help="Do not ask.",
)
@settings.settings_options
def unload(*, state_dir: str | None, config_files: tuple[str, ...]) -> None:
    """Delete all metadata definitions from the database."""
    from headrace.db import metadefs

    with _database(state_dir, config_files) as database:
        metadefs.unload(database)
    output.note("there are no metadata definitions any more")


def _merge(merge: bool, prefer_new: bool, overwrite: bool) -> "Merge":
    from headrace.model import Merge

    if prefer_new and overwrite:
        raise UsageError(reason="--prefer-new and --overwrite exclude each other")
    if (prefer_new or overwrite) and not merge:
        raise UsageError(
            reason="--prefer-new and --overwrite are ways of --merge, which is missing"
        )
    if not merge:
        return Merge.SKIP
    if overwrite:
        return Merge.OVERWRITE
    return Merge.PREFER_NEW if prefer_new else Merge.ADD


def _files(path: str | None) -> list[Traversable]:
    """The definition files at ``path``, by name; Headrace's own if there is none."""
    place: Traversable = files("headrace") / "definitions" if path is None else Path(path)
    try:
        found = [place] if place.is_file() else list(place.iterdir())
    except OSError as error:
        raise UsageError(reason=f"{path}: {error.strerror}") from error
    return sorted(
        (
            file
            for file in found
            if file.is_file() and (file is place or file.name.endswith(".json"))
        ),
        key=lambda file: file.name,
    )


def _read(file: Traversable) -> "Namespace":
    from headrace.service.definitions import NamespaceForm, from_file
    from headrace.service.metadefs import NOBODY

    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ClientError(reason=str(error)) from error
    return from_file(NamespaceForm, document).value(datetime.now(UTC).replace(tzinfo=None), NOBODY)


def _names(namespaces: "list[Namespace]") -> Iterator[str]:
    """A file name for each, made of its own; no two are the same, on any file system."""
    taken: set[str] = set()
    for namespace in namespaces:
        plain = re.sub(r"[^\w-]+", "_", namespace.namespace)
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.lower())
        yield f"{name}.json"


@contextmanager
def _database(state_dir: str | None, config_files: tuple[str, ...]) -> "Iterator[Database]":
    """The service's database, made ready if it is not."""
    from headrace import config
    from headrace.db import engine, migrate

    database = engine.connect(config.database_url(settings.load(state_dir, config_files)))
    try:
        migrate.prepare(database)
        yield database
    finally:
        database.close()
