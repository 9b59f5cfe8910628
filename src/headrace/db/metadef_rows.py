"""Rows of the metadef tables as the values of model: who may see which, on which page.

Definitions are written as service/definitions.py accepts them, which is what a Glance can read, and
shown as they are found.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db.hints import exactly
from headrace.db.schema import (
    metadef_namespaces,
    metadef_objects,
    metadef_properties,
    metadef_tags,
)
from headrace.model import (
    Association,
    Definition,
    MetadefObject,
    MetadefProperty,
    MetadefTag,
    Namespace,
    Paging,
    Viewer,
    Visibility,
)

Row = Mapping[Any, Any]
Part = MetadefProperty | MetadefObject | MetadefTag
"""What belongs to one namespace alone and has a name there."""

AnyPart = TypeVar("AnyPart", MetadefProperty, MetadefObject, MetadefTag)

PARTS: tuple[type[Part], ...] = get_args(Part)
TABLES: dict[type[Part], sa.Table] = {
    MetadefProperty: metadef_properties,
    MetadefObject: metadef_objects,
    MetadefTag: metadef_tags,
}
KINDS: dict[type[Part], str] = {
    MetadefProperty: "property",
    MetadefObject: "object",
    MetadefTag: "tag",
}


@dataclass(frozen=True, slots=True)
class Locked:
    """A namespace whose row this transaction holds: whoever else writes to it waits."""

    id: int
    name: str
    protected: bool

    def refuse_deletion(self) -> None:
        """Raises NamespaceProtected, which undoes what the transaction has done."""
        if self.protected:
            raise errors.NamespaceProtected(namespace=self.name)


def is_visible(viewer: Viewer) -> sa.ColumnElement[bool]:
    """Whether the viewer may see a namespace."""
    if viewer.is_admin:
        return sa.true()
    columns = metadef_namespaces.c
    may = columns.owner.is_(None) | (columns.visibility == Visibility.PUBLIC.value)
    return may if viewer.project_id is None else may | exactly(columns.owner == viewer.project_id)


def find(connection: Connection, name: str, viewer: Viewer) -> Row:
    """The row of a namespace; raises NamespaceNotFound when it is not for the viewer's eyes."""
    row = connection.execute(_named(name, viewer)).mappings().one_or_none()
    if row is None:
        raise errors.NamespaceNotFound(namespace=name)
    return row


def lock(connection: Connection, name: str, viewer: Viewer) -> Locked:
    """The namespace, held until the transaction ends; raises NamespaceNotFound like ``find``."""
    statement = _named(name, viewer).with_for_update()  # SQLite has locked everything already
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise errors.NamespaceNotFound(namespace=name)
    return Locked(row["id"], row["namespace"], bool(row["protected"]))


def _named(name: str, viewer: Viewer) -> sa.Select[*tuple[Any, ...]]:
    return sa.select(metadef_namespaces).where(
        metadef_namespaces.c.namespace == name, is_visible(viewer)
    )


def page(
    connection: Connection,
    table: sa.Table,
    name: sa.ColumnElement[str],
    scope: sa.ColumnElement[bool],
    paging: Paging,
    missing: Callable[[str], errors.Error],
    *filters: sa.ColumnElement[bool],
) -> list[Row]:
    """The rows of ``table`` in ``scope`` that pass the filters and are on a page.

    Rows that the sort key cannot tell apart are in the order of created_at and id.  Raises
    ``missing(marker)`` when the marker is the ``name`` of no row in scope; it may have ceased to
    pass the filters.
    """
    names = dict.fromkeys((paging.sort_key, "created_at", "id"))
    keys = [_sort_key(table, each) for each in names]
    statement = sa.select(table).where(scope, *filters)
    if paging.marker is not None:
        marked = sa.select(*keys).where(scope, name == paging.marker)
        marks = connection.execute(marked).one_or_none()
        if marks is None:
            raise missing(paging.marker)
        place = sa.tuple_(
            *(sa.literal(mark, key.type) for key, mark in zip(keys, marks, strict=True))
        )
        behind = sa.tuple_(*keys) < place if paging.descending else sa.tuple_(*keys) > place
        statement = statement.where(behind)
    order = [key.desc() if paging.descending else key.asc() for key in keys]
    return list(connection.execute(statement.order_by(*order).limit(paging.limit)).mappings())


def _sort_key(table: sa.Table, name: str) -> sa.ColumnElement[Any]:
    column = table.c[name]
    if not column.nullable:
        return column
    # NULLs sort differently on each database, and compare with nothing.
    return sa.func.coalesce(column, table.c.created_at if name == "updated_at" else "")


@contextmanager
def unique(error: errors.Error) -> Iterator[None]:
    """Raise ``error`` in place of what the database says when a key is taken."""
    try:
        yield
    except exc.IntegrityError:
        raise error from None


def times(row: Row) -> dict[str, Any]:
    """created_at and updated_at; the latter Glance's loader leaves NULL until there is a change."""
    return {"created_at": row["created_at"], "updated_at": row["updated_at"] or row["created_at"]}


def namespace(row: Row) -> Namespace:
    """The namespace of a row of its table, without what is in it."""
    return Namespace(
        namespace=row["namespace"],
        display_name=row["display_name"],
        description=row["description"],
        visibility=row["visibility"] or Visibility.PRIVATE.value,
        protected=bool(row["protected"]),
        owner=row["owner"],
        **times(row),
    )


def association(row: Row) -> Association:
    """The association of a row that has the resource type's name, too."""
    return Association(
        name=row["name"],
        prefix=row["prefix"],
        properties_target=row["properties_target"],
        **times(row),
    )


def part(kind: type[AnyPart], row: Row) -> AnyPart:
    """The property, object or tag of a row of its table."""
    if issubclass(kind, MetadefProperty):
        return kind(
            name=row["name"], definition=_definition(_json(row["json_schema"])), **times(row)
        )
    if issubclass(kind, MetadefObject):
        return kind(
            name=row["name"],
            description=row["description"],
            required=tuple((row["required"] or "").split(",")) if row["required"] else (),
            properties={
                name: _definition(each) for name, each in _json(row["json_schema"]).items()
            },
            **times(row),
        )
    return kind(name=row["name"], **times(row))


def stored(part: Part) -> dict[str, object]:
    """The columns of a part that are neither its key nor its times."""
    if isinstance(part, MetadefProperty):
        return {"name": part.name, "json_schema": _text(part.definition)}
    if isinstance(part, MetadefObject):
        return {
            "name": part.name,
            "description": part.description,
            "required": ",".join(part.required) or None,
            "json_schema": _text(part.properties),
        }
    return {"name": part.name}


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _json(text: str) -> dict[str, Any]:
    """A JSON column; Glance's loader leaves ``null`` for an object without properties."""
    found = msgspec.json.decode(text)
    return found if isinstance(found, dict) else {}


def _definition(found: object) -> Definition:
    """A definition as it is shown: its name is its key, and its default a string.

    Glance's API stores the name inside as well, and its loader a default as the file has it.
    """
    definition = dict(found) if isinstance(found, dict) else {}
    definition.pop("name", None)
    if definition.get("default") is not None:
        definition["default"] = str(definition["default"])
    return {key: value for key, value in definition.items() if value is not None}
