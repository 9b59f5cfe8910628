"""What is in a namespace under a name of its own: properties, objects, tags.

The three have much in common, so each function takes the class of the part, ``kind``.  Rows are
deleted for good.  A write locks the namespace first: those to one namespace come one after another.
"""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import metadef_rows as rows
from headrace.db.engine import Database, transaction
from headrace.db.metadef_rows import KINDS, TABLES, AnyPart, Locked, Part
from headrace.model import AS_ADDED, MetadefTag, Paging, Viewer

_TOLD = 5  # names in an error's text


def list_parts(
    database: Database, kind: type[AnyPart], namespace: str, viewer: Viewer, paging: Paging
) -> list[AnyPart]:
    """A page of the parts of a namespace.

    Raises NamespaceNotFound, and DefinitionNotFound when the marker is none of them.
    """
    with database.read() as connection:
        found = rows.find(connection, namespace, viewer)
        return read(connection, kind, found["id"], namespace, paging)


def read(
    connection: Connection,
    kind: type[AnyPart],
    namespace_id: int,
    namespace: str,
    paging: Paging = AS_ADDED,
) -> list[AnyPart]:
    """A page of the parts of the namespace with this id; raises DefinitionNotFound for a marker."""
    table = TABLES[kind]
    found = rows.page(
        connection,
        table,
        table.c.name,
        table.c.namespace_id == namespace_id,
        paging,
        lambda marker: _missing(kind, namespace, marker),
    )
    return [rows.part(kind, row) for row in found]


def show(
    database: Database, kind: type[AnyPart], namespace: str, name: str, viewer: Viewer
) -> AnyPart:
    """One part; raises NamespaceNotFound, DefinitionNotFound."""
    with database.read() as connection:
        found = rows.find(connection, namespace, viewer)
        return _show(connection, kind, found["id"], namespace, name)


@transaction
def create(connection: Connection, namespace: str, part: Part, viewer: Viewer) -> None:
    """Add a part; raises NamespaceNotFound, DefinitionExists."""
    insert(connection, rows.lock(connection, namespace, viewer), [part])


@transaction
def update(
    connection: Connection, namespace: str, name: str, part: AnyPart, viewer: Viewer
) -> AnyPart:
    """Put ``part`` in the place of the one called ``name``; the part as stored.

    Raises NamespaceNotFound, DefinitionNotFound, DefinitionExists (its new name is taken).
    """
    kind = type(part)
    found = rows.lock(connection, namespace, viewer)
    if not replace(connection, found, name, part):
        raise _missing(kind, namespace, name)
    return _show(connection, kind, found.id, namespace, part.name)


@transaction
def delete(
    connection: Connection, kind: type[Part], namespace: str, name: str, viewer: Viewer
) -> None:
    """Delete a part; raises NamespaceNotFound, DefinitionNotFound, NamespaceProtected."""
    found = rows.lock(connection, namespace, viewer)
    table = TABLES[kind]
    done = connection.execute(
        sa.delete(table).where(table.c.namespace_id == found.id, table.c.name == name)
    )
    if done.rowcount == 0:
        raise _missing(kind, namespace, name)
    found.refuse_deletion()


@transaction
def delete_all(connection: Connection, kind: type[Part], namespace: str, viewer: Viewer) -> None:
    """Delete all parts of a kind; raises NamespaceNotFound, NamespaceProtected."""
    found = rows.lock(connection, namespace, viewer)
    found.refuse_deletion()
    remove(connection, kind, found.id)


@transaction
def set_tags(
    connection: Connection,
    namespace: str,
    tags: Sequence[MetadefTag],
    viewer: Viewer,
    *,
    append: bool,
) -> None:
    """Give a namespace these tags, beside its own if ``append``, otherwise in their place.

    Raises NamespaceNotFound, DefinitionExists (one is given twice, or appended and there), and
    NamespaceProtected when a tag would go.
    """
    found = rows.lock(connection, namespace, viewer)
    if append:
        insert(connection, found, tags)
        return
    there = names(connection, MetadefTag, found.id)
    gone = there - {tag.name for tag in tags}
    if gone:
        found.refuse_deletion()
    table = TABLES[MetadefTag]
    connection.execute(
        sa.delete(table).where(table.c.namespace_id == found.id, table.c.name.in_(sorted(gone)))
    )
    _refuse_twins(found, tags)
    insert(connection, found, [tag for tag in tags if tag.name not in there])


def insert(connection: Connection, namespace: Locked, parts: Sequence[Part]) -> None:
    """Add parts of one kind to a locked namespace; raises DefinitionExists."""
    if not parts:
        return
    values = [
        {
            "namespace_id": namespace.id,
            "created_at": part.created_at,
            "updated_at": part.updated_at,
            **rows.stored(part),
        }
        for part in parts
    ]
    with rows.unique(_taken(namespace, parts)):
        connection.execute(sa.insert(TABLES[type(parts[0])]).inline(), values)


def replace(connection: Connection, namespace: Locked, name: str, part: Part) -> bool:
    """Put ``part`` in the place of the one called ``name``, if there is one.

    Raises DefinitionExists when its new name is taken.
    """
    table = TABLES[type(part)]
    with rows.unique(_taken(namespace, [part])):
        done = connection.execute(
            sa.update(table)
            .where(table.c.namespace_id == namespace.id, table.c.name == name)
            .values(**rows.stored(part), updated_at=part.updated_at)
        )
    return done.rowcount > 0


def remove(connection: Connection, kind: type[Part], namespace_id: int) -> None:
    """Delete all parts of a kind."""
    table = TABLES[kind]
    connection.execute(sa.delete(table).where(table.c.namespace_id == namespace_id))


def names(connection: Connection, kind: type[Part], namespace_id: int) -> set[str]:
    """The names of all parts of a kind."""
    table = TABLES[kind]
    return set(
        connection.execute(
            sa.select(table.c.name).where(table.c.namespace_id == namespace_id)
        ).scalars()
    )


def _show(
    connection: Connection, kind: type[AnyPart], namespace_id: int, namespace: str, name: str
) -> AnyPart:
    table = TABLES[kind]
    row = (
        connection.execute(
            sa.select(table).where(table.c.namespace_id == namespace_id, table.c.name == name)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise _missing(kind, namespace, name)
    return rows.part(kind, row)


def _missing(kind: type[Part], namespace: str, name: str) -> errors.Error:
    return errors.DefinitionNotFound(namespace=namespace, kind=KINDS[kind], name=name)


def _taken(namespace: Locked, parts: Sequence[Part]) -> errors.Error:
    told = _listed(part.name for part in parts)
    return errors.DefinitionExists(namespace=namespace.name, kind=KINDS[type(parts[0])], name=told)


def _refuse_twins(namespace: Locked, tags: Sequence[MetadefTag]) -> None:
    seen: set[str] = set()
    for tag in tags:
        if tag.name in seen:
            raise _taken(namespace, [tag])
        seen.add(tag.name)


def _listed(found: Iterable[str]) -> str:
    told = list(found)
    return " or ".join(told[:_TOLD]) + (" or another" if len(told) > _TOLD else "")
