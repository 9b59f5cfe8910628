"""Namespaces of metadata definitions: show, list, create, update, delete; and loading them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import definitions, resource_types
from headrace.db import metadef_rows as rows
from headrace.db.engine import Database, transaction
from headrace.db.metadef_rows import PARTS, Locked, Part
from headrace.db.schema import (
    metadef_namespace_resource_types,
    metadef_namespaces,
    metadef_objects,
    metadef_properties,
    metadef_resource_types,
    metadef_tags,
)
from headrace.model import (
    Merge,
    MetadefObject,
    MetadefProperty,
    MetadefTag,
    Namespace,
    NamespaceQuery,
    Viewer,
)


def list_namespaces(database: Database, query: NamespaceQuery, viewer: Viewer) -> list[Namespace]:
    """A page of namespaces with their associations, but nothing else of what is in them.

    Two statements, three with a marker.  Raises NamespaceNotFound when the marker is no namespace
    that the viewer may see.
    """
    columns = metadef_namespaces.c
    filters: list[sa.ColumnElement[bool]] = []
    if query.visibility is not None:
        filters.append(columns.visibility == query.visibility)
    if query.resource_types:
        filters.append(columns.id.in_(_about(query.resource_types)))
    with database.read() as connection:
        found = rows.page(
            connection,
            metadef_namespaces,
            columns.namespace,
            rows.is_visible(viewer),
            query.paging,
            lambda marker: errors.NamespaceNotFound(namespace=marker),
            *filters,
        )
        associations = resource_types.read(connection, [row["id"] for row in found])
    return [
        replace(rows.namespace(row), associations=tuple(associations.get(row["id"], ())))
        for row in found
    ]


def show(database: Database, name: str, viewer: Viewer) -> Namespace:
    """The namespace with all that is in it; raises NamespaceNotFound."""
    with database.read() as connection:
        row = rows.find(connection, name, viewer)
        return _whole(connection, row)


def show_all(database: Database) -> list[Namespace]:
    """Every namespace with all that is in it, by name."""
    statement = sa.select(metadef_namespaces).order_by(metadef_namespaces.c.namespace)
    with database.read() as connection:
        found = connection.execute(statement).mappings().all()
        return [_whole(connection, row) for row in found]


def find(database: Database, name: str, viewer: Viewer) -> Namespace:
    """The namespace without what is in it; raises NamespaceNotFound."""
    with database.read() as connection:
        return rows.namespace(rows.find(connection, name, viewer))


@transaction
def create(connection: Connection, namespace: Namespace) -> None:
    """Record a namespace with all that is in it, or nothing.

    Raises NamespaceExists, and DefinitionExists for a name that is in it twice.
    """
    _insert(connection, namespace)


@transaction
def update(connection: Connection, name: str, namespace: Namespace, viewer: Viewer) -> Namespace:
    """Write a namespace's own columns anew, whatever it was; what is in it stays.

    Raises NamespaceNotFound, NamespaceExists (its new name is taken).
    """
    found = rows.lock(connection, name, viewer)
    _replace(connection, found, namespace)
    row = connection.execute(
        sa.select(metadef_namespaces).where(metadef_namespaces.c.id == found.id)
    )
    return rows.namespace(row.mappings().one())


@transaction
def delete(connection: Connection, name: str, viewer: Viewer) -> None:
    """Delete a namespace and all that is in it; raises NamespaceNotFound, NamespaceProtected."""
    found = rows.lock(connection, name, viewer)
    found.refuse_deletion()
    _remove(connection, found.id)


@transaction
def load(connection: Connection, namespace: Namespace, merge: Merge) -> bool:
    """Record a namespace of a definition file; whether anything was to be done.

    What becomes of one that is there already ``merge`` says: SKIP leaves it as it is, ADD adds what
    it has not, PREFER_NEW also replaces what it has, OVERWRITE replaces all of it.  New resource
    types are protected, as Glance's loader makes them.
    """
    everything = Viewer(is_admin=True)
    try:
        there = rows.lock(connection, namespace.namespace, everything)
    except errors.NamespaceNotFound:
        _insert(connection, namespace, protected=True)
        return True
    if merge is Merge.SKIP:
        return False
    if merge is Merge.OVERWRITE:
        _remove(connection, there.id)
        _insert(connection, namespace, protected=True)
        return True
    if merge is Merge.PREFER_NEW:
        _replace(connection, there, namespace)
    for kind in PARTS:
        _merge(connection, there, kind, _content(namespace, kind), merge)
    _merge_associations(connection, there, namespace, merge)
    return True


@transaction
def unload(connection: Connection) -> None:
    """Delete all definitions and resource types, protected or not."""
    for table in (
        metadef_properties,
        metadef_objects,
        metadef_tags,
        metadef_namespace_resource_types,
        metadef_namespaces,
        metadef_resource_types,
    ):
        connection.execute(sa.delete(table))


def _about(names: Sequence[str]) -> sa.Select[*tuple[Any, ...]]:
    """The ids of the namespaces that are associated with any of these resource types."""
    associations, types = metadef_namespace_resource_types.c, metadef_resource_types.c
    return (
        sa.select(associations.namespace_id)
        .join(metadef_resource_types, types.id == associations.resource_type_id)
        .where(types.name.in_(names))
    )


def _whole(connection: Connection, row: rows.Row) -> Namespace:
    key, name = row["id"], row["namespace"]
    return replace(
        rows.namespace(row),
        properties=tuple(definitions.read(connection, MetadefProperty, key, name)),
        objects=tuple(definitions.read(connection, MetadefObject, key, name)),
        tags=tuple(definitions.read(connection, MetadefTag, key, name)),
        associations=tuple(resource_types.read(connection, [key]).get(key, ())),
    )


def _insert(connection: Connection, namespace: Namespace, *, protected: bool = False) -> None:
    values = _stored(namespace) | {"created_at": namespace.created_at}
    with rows.unique(errors.NamespaceExists(namespace=namespace.namespace)):
        done = connection.execute(sa.insert(metadef_namespaces).values(values))
    assert done.inserted_primary_key is not None
    key: int = done.inserted_primary_key[0]
    made = Locked(key, namespace.namespace, namespace.protected)
    for kind in PARTS:
        definitions.insert(connection, made, _content(namespace, kind))
    resource_types.insert(connection, made, namespace.associations, protected=protected)


def _replace(connection: Connection, there: Locked, namespace: Namespace) -> None:
    with rows.unique(errors.NamespaceExists(namespace=namespace.namespace)):
        connection.execute(
            sa.update(metadef_namespaces)
            .where(metadef_namespaces.c.id == there.id)
            .values(_stored(namespace))
        )


def _remove(connection: Connection, namespace_id: int) -> None:
    for kind in PARTS:
        definitions.remove(connection, kind, namespace_id)
    resource_types.remove(connection, namespace_id)
    connection.execute(sa.delete(metadef_namespaces).where(metadef_namespaces.c.id == namespace_id))


def _merge(
    connection: Connection, there: Locked, kind: type[Part], parts: Sequence[Part], merge: Merge
) -> None:
    known = definitions.names(connection, kind, there.id)
    definitions.insert(connection, there, [part for part in parts if part.name not in known])
    if merge is Merge.PREFER_NEW:
        for part in parts:
            if part.name in known:
                definitions.replace(connection, there, part.name, part)


def _merge_associations(
    connection: Connection, there: Locked, namespace: Namespace, merge: Merge
) -> None:
    known = {each.name for each in resource_types.read(connection, [there.id]).get(there.id, ())}
    new = [each for each in namespace.associations if each.name not in known]
    resource_types.insert(connection, there, new, protected=True)
    if merge is Merge.PREFER_NEW:
        for each in namespace.associations:
            if each.name in known:
                resource_types.replace(connection, there, each)


def _content(namespace: Namespace, kind: type[Part]) -> Sequence[Part]:
    if kind is MetadefProperty:
        return namespace.properties
    return namespace.objects if kind is MetadefObject else namespace.tags


def _stored(namespace: Namespace) -> dict[str, object]:
    return {
        "namespace": namespace.namespace,
        "display_name": namespace.display_name,
        "description": namespace.description,
        "visibility": namespace.visibility,
        "protected": namespace.protected,
        "owner": namespace.owner,
        "updated_at": namespace.updated_at,
    }
