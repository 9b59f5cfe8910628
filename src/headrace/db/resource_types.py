"""Resource types, and the namespaces' associations with them."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import metadef_rows as rows
from headrace.db.engine import Database, transaction
from headrace.db.metadef_rows import Locked
from headrace.db.schema import metadef_namespace_resource_types, metadef_resource_types
from headrace.model import Association, ResourceType, Viewer

_types = metadef_resource_types
_associations = metadef_namespace_resource_types


def list_types(database: Database) -> list[ResourceType]:
    """All resource types, by name."""
    statement = sa.select(_types).order_by(_types.c.name)
    with database.read() as connection:
        found = connection.execute(statement).mappings()
        return [ResourceType(name=row["name"], **rows.times(row)) for row in found]


def list_associations(database: Database, namespace: str, viewer: Viewer) -> list[Association]:
    """The associations of a namespace; raises NamespaceNotFound."""
    with database.read() as connection:
        found = rows.find(connection, namespace, viewer)
        return read(connection, [found["id"]]).get(found["id"], [])


def read(connection: Connection, namespace_ids: Sequence[int]) -> dict[int, list[Association]]:
    """The associations of the namespaces that have any, by the namespaces' ids; each's by name."""
    statement = (
        sa.select(_associations, _types.c.name)
        .join(_types, _types.c.id == _associations.c.resource_type_id)
        .where(_associations.c.namespace_id.in_(namespace_ids))
        .order_by(_types.c.name)
    )
    found: dict[int, list[Association]] = {}
    for row in connection.execute(statement).mappings():
        found.setdefault(row["namespace_id"], []).append(rows.association(row))
    return found


@transaction
def associate(
    connection: Connection, namespace: str, association: Association, viewer: Viewer
) -> None:
    """Associate a namespace with a resource type, which is recorded if it is new.

    Raises NamespaceNotFound, DefinitionExists.
    """
    insert(connection, rows.lock(connection, namespace, viewer), [association])


@transaction
def dissociate(connection: Connection, namespace: str, name: str, viewer: Viewer) -> None:
    """Undo an association, the resource type stays; raises as deleting a part does."""
    found = rows.lock(connection, namespace, viewer)
    the_type = sa.select(_types.c.id).where(_types.c.name == name).scalar_subquery()
    done = connection.execute(
        sa.delete(_associations).where(
            _associations.c.namespace_id == found.id, _associations.c.resource_type_id == the_type
        )
    )
    if done.rowcount == 0:
        raise errors.DefinitionNotFound(
            namespace=namespace, kind="association with resource type", name=name
        )
    found.refuse_deletion()


def insert(
    connection: Connection,
    namespace: Locked,
    associations: Sequence[Association],
    *,
    protected: bool = False,
) -> None:
    """Associate a locked namespace; new resource types are ``protected``.

    Raises DefinitionExists.
    """
    ids = _recorded(connection, associations, protected=protected)
    for each in associations:
        taken = errors.DefinitionExists(
            namespace=namespace.name, kind="association with resource type", name=each.name
        )
        with rows.unique(taken):
            connection.execute(
                sa.insert(_associations).inline(),
                {
                    "namespace_id": namespace.id,
                    "resource_type_id": ids[each.name],
                    "created_at": each.created_at,
                    **_stored(each),
                },
            )


def replace(connection: Connection, namespace: Locked, association: Association) -> None:
    """Write an association that is there anew."""
    the_type = sa.select(_types.c.id).where(_types.c.name == association.name).scalar_subquery()
    connection.execute(
        sa.update(_associations)
        .where(
            _associations.c.namespace_id == namespace.id,
            _associations.c.resource_type_id == the_type,
        )
        .values(_stored(association))
    )


def remove(connection: Connection, namespace_id: int) -> None:
    """Delete all associations of a namespace."""
    connection.execute(sa.delete(_associations).where(_associations.c.namespace_id == namespace_id))


def _stored(association: Association) -> dict[str, object]:
    return {
        "prefix": association.prefix,
        "properties_target": association.properties_target,
        "updated_at": association.updated_at,
    }


def _recorded(
    connection: Connection, associations: Iterable[Association], *, protected: bool
) -> dict[str, int]:
    """The ids of the resource types, by the names asked for; those that are new are recorded."""
    found: dict[str, int] = {}
    for each in associations:
        # Of two that record the same type at once, one waits for the other and records nothing;
        # both then read what is there, not what was when their transactions began.
        connection.execute(
            _insert_or_ignore(connection.dialect.name),
            {
                "name": each.name,
                "protected": protected,
                "created_at": each.created_at,
                "updated_at": each.updated_at,
            },
        )
        statement = sa.select(_types.c.id).where(_types.c.name == each.name).with_for_update()
        found[each.name] = connection.execute(statement).scalar_one()
    return found


def _insert_or_ignore(dialect: str) -> Any:
    if dialect == "mysql":
        return sa.insert(_types).prefix_with("IGNORE").inline()
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(_types).on_conflict_do_nothing().inline()
