"""headrace md: metadata definitions of a service; loading files is `headrace db load-metadefs`."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from headrace.cli import completion, output
from headrace.cli.images import agreed, dry_run, forced
from headrace.cli.session import ServiceCommand, Session
from headrace.cli.words import Value, boolean, comma_list, number, text, typed
from headrace.errors import ClientError, Error, UsageError

Read = Callable[[str, str], Value]

VISIBILITIES = ("public", "private")
TYPES = ("string", "integer", "number", "boolean", "array", "object")
FILTERS: dict[str, Read] = {"visibility": text, "resource_types": text}
NAMESPACE: dict[str, Read] = {
    "display_name": text,
    "description": text,
    "visibility": text,
    "protected": boolean,
    "owner": text,
}
PROPERTY: dict[str, Read] = {
    "type": text,
    "title": text,
    "description": text,
    "default": text,
    "enum": comma_list,
    "pattern": text,
    "minimum": number,
    "maximum": number,
    "minLength": number,
    "maxLength": number,
    "minItems": number,
    "maxItems": number,
    "uniqueItems": boolean,
    "readonly": boolean,
    "operators": comma_list,
}
OBJECT: dict[str, Read] = {"description": text, "required": comma_list, "path": text}
ASSOCIATION: dict[str, Read] = {"prefix": text, "properties_target": text}
# What `remove` may be told to remove, and the path of its kind.
PARTS = {
    "property": "properties",
    "object": "objects",
    "tag": "tags",
    "resource-type": "resource_types",
}

_VALUES: dict[str, tuple[str, ...]] = {
    "visibility": VISIBILITIES,
    "type": TYPES,
    "protected": completion.BOOLEANS,
    "readonly": completion.BOOLEANS,
    "uniqueItems": completion.BOOLEANS,
}

namespace_argument = click.argument(
    "namespace", metavar="NAMESPACE", shell_complete=completion.namespaces
)


def words_of(
    types: dict[str, Read], *, required: bool = False
) -> Callable[..., Callable[..., None]]:
    """The words ``key=value`` of a command."""
    return click.argument(
        "words",
        metavar="KEY=VALUE..." if required else "[KEY=VALUE...]",
        nargs=-1,
        required=required,
        shell_complete=completion.keys(types, _VALUES),
    )


@click.group("md")
def command() -> None:
    """List and change metadata definitions.

    They say what properties mean and what values they may have, in namespaces.  Files of them are
    loaded by `headrace db load-metadefs`.
    """


@command.command("list", cls=ServiceCommand)
@words_of(FILTERS)
@click.option("--limit", type=click.IntRange(min=0), help="At most so many namespaces.")
@click.option("--marker", metavar="NAMESPACE", help="Only what comes after this one.")
@click.option("--sort", metavar="KEY[:DIR]", help="namespace, created_at, … [namespace:asc].")
@click.pass_obj
def list_(
    session: Session, words: Sequence[str], *, limit: int | None, marker: str | None,
    sort: str | None,
) -> None:  # fmt: skip
    """List namespaces, one line each.

    KEY=VALUE selects by visibility, and by resource_types=A,B: those that are about one of them.
    """
    filters = {key: str(value) for key, value in typed(words, FILTERS).items()}
    found = session.metadefs().list(
        filters, limit=limit, marker=marker, sort=sort or "namespace:asc"
    )
    if session.as_json:
        output.write_json(list(found))
        return
    for namespace in found:
        about = [each.get("name") for each in _records(namespace, "resource_type_associations")]
        cells = (
            f"{output.shown(namespace.get('namespace')):<40}",
            f"{output.shown(namespace.get('visibility')):<8}",
            output.shown(about),
        )
        output.write(" ".join(cells).rstrip())


@command.command("show", cls=ServiceCommand)
@namespace_argument
@click.option("--resource-type", metavar="TYPE", help="Name properties as on resources of TYPE.")
@click.pass_obj
def show(session: Session, namespace: str, *, resource_type: str | None) -> None:
    """Show a namespace and all that is in it."""
    _write(session, session.metadefs().show(namespace, resource_type=resource_type))


@command.command("create", cls=ServiceCommand)
@click.argument("namespace", metavar="NAMESPACE")
@words_of(NAMESPACE)
@click.pass_obj
def create(session: Session, namespace: str, words: Sequence[str]) -> None:
    """Make a namespace.

    KEY is display_name, description, visibility, protected or owner.
    """
    document = {"namespace": namespace, **typed(words, NAMESPACE)}
    made = session.metadefs().create(document)
    _tell(session, f"Created namespace {output.shown(made.get('namespace'))}", made)


@command.command("import", cls=ServiceCommand)
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False),
)
@click.pass_obj
def import_(session: Session, files: Sequence[str]) -> None:
    """Make namespaces of definition files (JSON), each whole or not at all."""
    metadefs = session.metadefs()
    failed = 0
    for file in files:
        try:
            made = metadefs.create(_document(file))
        except Error as error:
            output.note(f"{file} was not imported: {output.told(error)}")
            failed += 1
            continue
        _tell(session, f"Created namespace {output.shown(made.get('namespace'))}", made)
    if failed:
        raise ClientError(reason=f"{failed} of {len(files)} files were not imported")


@command.command("update", cls=ServiceCommand)
@namespace_argument
@words_of(NAMESPACE, required=True)
@click.pass_obj
def update(session: Session, namespace: str, words: Sequence[str]) -> None:
    """Change what is said about a namespace; the rest, and what is in it, stays.

    KEY is display_name, description, visibility, protected or owner.
    """
    changed = session.metadefs().update(namespace, typed(words, NAMESPACE))
    _tell(session, f"Updated namespace {output.shown(changed.get('namespace'))}", changed)


@command.command("delete", cls=ServiceCommand)
@click.argument(
    "names", metavar="NAMESPACE...", nargs=-1, required=True, shell_complete=completion.namespaces
)
@forced
@dry_run
@click.pass_obj
def delete(session: Session, names: Sequence[str], *, force: bool, dry_run: bool) -> None:
    """Delete namespaces with all that is in them, after asking about each.

    Where nobody can be asked, nothing is deleted without --force.
    """
    metadefs = session.metadefs()
    kept = 0
    for name in names:
        what = f"namespace {output.shown(name)}"
        kept += not _done(what, partial(metadefs.delete, name), force, dry_run)
    if kept:
        verb = "was" if kept == 1 else "were"
        raise ClientError(reason=f"{kept} of {len(names)} namespaces {verb} kept")


@command.command("set-property", cls=ServiceCommand)
@namespace_argument
@click.argument("name")
@words_of(PROPERTY, required=True)
@click.pass_obj
def set_property(session: Session, namespace: str, name: str, words: Sequence[str]) -> None:
    """Define a property of a namespace, anew if it is there.

    \b
      headrace md set-property NAMESPACE hw_disk_bus type=string title=Bus enum=virtio,scsi

    KEY is type and title, which there must be, and description, default, enum, pattern, minimum,
    maximum, minLength, maxLength, minItems, maxItems, uniqueItems, readonly or operators.
    """
    made = session.metadefs().set_property(namespace, {"name": name, **typed(words, PROPERTY)})
    _tell(session, f"Defined property {output.shown(name)}", made)


@command.command("set-object", cls=ServiceCommand)
@namespace_argument
@click.argument("name")
@words_of(OBJECT)
@click.pass_obj
def set_object(session: Session, namespace: str, name: str, words: Sequence[str]) -> None:
    """Define an object of a namespace, anew if it is there.

    An object is properties that belong together.  KEY is description, required=NAME,… and
    path=FILE: JSON, the definition of each property by its name.
    """
    given = typed(words, OBJECT)
    path = given.pop("path", None)
    document: dict[str, object] = {"name": name, **given}
    if path is not None:
        document["properties"] = _document(str(path))
    made = session.metadefs().set_object(namespace, document)
    _tell(session, f"Defined object {output.shown(name)}", made)


@command.command("add-tag", cls=ServiceCommand)
@namespace_argument
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@click.pass_obj
def add_tag(session: Session, namespace: str, tags: Sequence[str]) -> None:
    """Add tags to a namespace."""
    session.metadefs().add_tags(namespace, tags)
    output.write(f"Added {output.shown(list(tags))}")


@command.command("associate", cls=ServiceCommand)
@namespace_argument
@click.argument("resource_type", metavar="RESOURCE_TYPE")
@words_of(ASSOCIATION)
@click.pass_obj
def associate(session: Session, namespace: str, resource_type: str, words: Sequence[str]) -> None:
    """Say that a namespace is about a type of resource, such as OS::Glance::Image.

    KEY is prefix, what its properties' names begin with there, or properties_target.
    """
    given = {"name": resource_type, **typed(words, ASSOCIATION)}
    made = session.metadefs().associate(namespace, given)
    _tell(session, f"Associated with {output.shown(resource_type)}", made)


@command.command("remove", cls=ServiceCommand)
@namespace_argument
@click.argument("kind", type=click.Choice(list(PARTS)))
@click.argument("name")
@forced
@dry_run
@click.pass_obj
def remove(
    session: Session, namespace: str, kind: str, name: str, *, force: bool, dry_run: bool
) -> None:
    """Remove something from a namespace, after asking."""
    what = f"{kind} {output.shown(name)} of namespace {output.shown(namespace)}"
    metadefs = session.metadefs()
    act = partial(metadefs.delete_part, namespace, PARTS[kind], name)
    if not _done(what, act, force, dry_run):
        raise ClientError(reason="nothing was removed")


@command.command("types", cls=ServiceCommand)
@click.pass_obj
def types(session: Session) -> None:
    """List the types of resources that any namespace was ever about."""
    found = list(session.metadefs().resource_types())
    if session.as_json:
        output.write_json(found)
        return
    for each in found:
        output.write(output.shown(each.get("name")))


def _document(file: str) -> dict[str, object]:
    try:
        found = json.loads(Path(file).read_bytes())
    except OSError as error:
        raise UsageError(reason=f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(reason=f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(reason=f"{file} holds no JSON object")
    return found


def _done(what: str, act: Callable[[], None], force: bool, dry_run: bool) -> bool:
    """Delete something, and say so; or why not."""
    if dry_run:
        output.write(f"Would delete {what}")
        return True
    if not force and not agreed(f"Delete {what}?"):
        output.note(f"{what} was not deleted")
        return False
    try:
        act()
    except Error as error:
        output.note(f"{what} was not deleted: {output.told(error)}")
        return False
    output.write(f"Deleted {what}")
    return True


def _tell(session: Session, line: str, record: dict[str, object]) -> None:
    if session.as_json:
        output.write_json(record)
    else:
        output.write(line)


def _write(session: Session, namespace: dict[str, object]) -> None:
    if session.as_json:
        output.write_json(namespace)
    else:
        output.write("\n".join(_lines(namespace)))


def _lines(namespace: dict[str, object]) -> Iterator[str]:
    """All that is known of one namespace, a line each."""
    labels = {
        "namespace": "Namespace",
        "display_name": "Display name",
        "description": "Description",
        "visibility": "Visibility",
        "protected": "Protected",
        "owner": "Owner",
        "created_at": "Created at",
        "updated_at": "Updated at",
    }
    for key, label in labels.items():
        yield f"{label}: {output.shown(namespace.get(key))}".rstrip()
    for each in _records(namespace, "resource_type_associations"):
        prefix = f" (prefix {output.shown(each['prefix'])})" if each.get("prefix") else ""
        yield f"Resource type: {output.shown(each.get('name'))}{prefix}"
    yield from _definitions(namespace.get("properties"), "Property")
    for each in _records(namespace, "objects"):
        name = output.shown(each.get("name"))
        yield f"Object '{name}': {output.shown(each.get('description'))}".rstrip()
        yield from _definitions(each.get("properties"), f"Object '{name}' property")
    tags = [each.get("name") for each in _records(namespace, "tags")]
    yield f"Tags: {output.shown(tags)}".rstrip()


def _definitions(found: object, label: str) -> Iterator[str]:
    for name, definition in sorted(found.items()) if isinstance(found, dict) else ():
        known = definition if isinstance(definition, dict) else {}
        values = f", one of {output.shown(known['enum'])}" if known.get("enum") else ""
        title = output.shown(known.get("title"))
        yield f"{label} '{output.shown(name)}': {title} ({output.shown(known.get('type'))}{values})"


def _records(record: dict[str, object], key: str) -> Iterable[dict[str, object]]:
    found = record.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
