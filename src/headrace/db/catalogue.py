"""Lists of images: one page by a fixed number of statements, at a cost that the page sets.

A page is an ordered walk over an index, begun behind the marker (keyset paging) and ended after
``limit`` images, so that neither the size of the catalogue nor the number of the page matters.
Three things would spoil that, and have an answer each:

- What a project may see is a union (its own, the public ones, those shared with it), and no index
  holds a union in order.  Each is walked by itself to ``limit``, and the walks are merged.
- A condition on a custom property or a tag may hold for every image or for one in a million.  A
  look ahead says which: rare matches are collected and sorted, for others the walk tests each.
- NULLs sort differently on each database.  Nullable keys are compared as empty or 0.

The text of a statement depends on the shape of a query only, so statements are built once each.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import rows
from headrace.db.engine import Database
from headrace.db.schema import (
    VALUE_PREFIX,
    image_members,
    image_properties,
    image_tags,
    images,
)
from headrace.model import ImagePage, ImageQuery, Op, Status, Viewer, Visibility

# Matches of a property or tag up to which collecting and sorting them is cheaper than a walk.
_RARE = 1000
_INT64_MAX = (1 << 63) - 1

_Columns = sa.ColumnCollection[str, Any]
_Key = Callable[[_Columns], sa.ColumnElement[Any]]
_Condition = sa.ColumnElement[bool]
_Select = sa.Select[*tuple[Any, ...]]

# Literals, not parameters: an index on an expression serves only that very expression.
_EMPTY = sa.literal_column("''", sa.String)
_ZERO = sa.literal_column("0", sa.BigInteger)


def _plain(name: str) -> _Key:
    return lambda columns: columns[name]


def _or_empty(name: str) -> _Key:
    return lambda columns: sa.func.coalesce(columns[name], _EMPTY)


_SORT_KEYS: dict[str, _Key] = {
    "name": _or_empty("name"),
    "status": _plain("status"),
    "container_format": _or_empty("container_format"),
    "disk_format": _or_empty("disk_format"),
    "size": lambda columns: sa.func.coalesce(columns["size"], _ZERO),
    "id": _plain("id"),
    "created_at": _plain("created_at"),
    "updated_at": lambda columns: sa.func.coalesce(columns["updated_at"], columns["created_at"]),
}
_TIE_BREAKERS = ("created_at", "id")

_OPERATORS: dict[Op, Callable[[Any, Any], _Condition]] = {
    Op.EQ: lambda column, value: column == value,
    Op.NEQ: lambda column, value: column != value,
    Op.GT: lambda column, value: column > value,
    Op.GTE: lambda column, value: column >= value,
    Op.LT: lambda column, value: column < value,
    Op.LTE: lambda column, value: column <= value,
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """What of a query decides the text of its statement; all else are parameters.

    ``sort`` is complete.  ``properties`` and ``tags`` are numbers of conditions; ``rare`` is the
    name of the one whose matches are few enough to begin with.
    """

    is_admin: bool
    has_project: bool
    visibility: str | None
    any_member_status: bool
    os_hidden: bool
    sort: tuple[tuple[str, bool], ...]
    filters: tuple[tuple[str, Op], ...]
    properties: int
    tags: int
    after_marker: bool
    rare: str | None = None


def list_page(database: Database, query: ImageQuery, viewer: Viewer) -> ImagePage:
    """One page of the images that a viewer may see (contract §1.3).

    Costs the page, its parts, one statement for a marker and one for properties or tags.  Raises
    MarkerNotFound when the marker is no image that the viewer may see.
    """
    if query.limit == 0:
        return ImagePage([], full=False)
    shape = _shape(query, viewer)
    values = _values(query, viewer)
    with database.read() as connection:
        if query.marker is not None:
            values |= _marker(connection, shape, query.marker, viewer)
        shape = replace(shape, rare=_rarest(connection, shape, values))
        found = connection.execute(_page(shape), values).all()
        parts = rows.parts_of_many(connection, [row[0] for row in found]) if found else {}
    return ImagePage(
        [rows.image(row, parts.get(row[0]) or rows.Parts()) for row in found],
        full=len(found) == query.limit,
    )


def _shape(query: ImageQuery, viewer: Viewer) -> _Shape:
    return _Shape(
        is_admin=viewer.is_admin,
        has_project=viewer.project_id is not None,
        visibility=query.visibility,
        any_member_status=query.member_status == "all",
        os_hidden=query.os_hidden,
        sort=_complete(query.sort),
        filters=tuple((each.column, each.op) for each in query.filters),
        properties=len(query.properties),
        tags=len(query.tags),
        after_marker=query.marker is not None,
    )


def _complete(sort: tuple[tuple[str, bool], ...]) -> tuple[tuple[str, bool], ...]:
    """The sort keys with the tie-breakers, up to the id: that is unique, nothing ties behind it."""
    descending = sort[0][1] if sort else True
    names = [name for name, _ in sort]
    keys = sort + tuple((name, descending) for name in _TIE_BREAKERS if name not in names)
    return keys[: [name for name, _ in keys].index("id") + 1]


def _values(query: ImageQuery, viewer: Viewer) -> dict[str, object]:
    values: dict[str, object] = {
        "limit": query.limit,
        "viewer": viewer.project_id,
        "visibility": query.visibility,
        "member_status": query.member_status,
    }
    for number, condition in enumerate(query.filters):
        values[f"filter{number}"] = _bindable(condition.value)
    for number, (name, value) in enumerate(query.properties.items()):
        values[f"property{number}"] = name
        values[f"value{number}"] = value
        values[f"prefix{number}"] = value[:VALUE_PREFIX]
    for number, tag in enumerate(query.tags):
        values[f"tag{number}"] = tag
    return values


def _bindable(value: object) -> object:
    """A bound that no column can reach stays one when it is cut to what drivers can pass."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_INT64_MAX, min(value, _INT64_MAX))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_bindable(each) for each in value]
    return value


def _marker(
    connection: Connection, shape: _Shape, marker: str, viewer: Viewer
) -> dict[str, object]:
    """The sort keys of the marker's row, as parameters."""
    row = connection.execute(
        _keys_of_one(shape.sort, viewer.is_admin, viewer.project_id is not None),
        {"id": marker, "viewer": viewer.project_id},
    ).one_or_none()
    if row is None:
        raise errors.MarkerNotFound(marker=marker)
    return {f"key{number}": value for number, value in enumerate(row)}


def _rarest(connection: Connection, shape: _Shape, values: dict[str, object]) -> str | None:
    """The condition on a property or tag with the fewest matches, if those are few."""
    if not shape.properties and not shape.tags:
        return None
    counts = connection.execute(_matches(shape.properties, shape.tags), values)
    fewest, name = min((count, name) for name, count in counts)
    return name if fewest < _RARE else None


@lru_cache(maxsize=64)
def _keys_of_one(sort: tuple[tuple[str, bool], ...], is_admin: bool, has_project: bool) -> _Select:
    return sa.select(*(_SORT_KEYS[name](images.c) for name, _ in sort)).where(
        images.c.id == sa.bindparam("id"),
        images.c.deleted == sa.false(),
        rows.is_visible(is_admin=is_admin, has_project=has_project),
    )


@lru_cache(maxsize=64)
def _matches(properties: int, tags: int) -> sa.CompoundSelect[*tuple[Any, ...]]:
    """Each condition's name and number of matches, counted up to ``_RARE``."""
    return sa.union_all(
        *(
            sa.select(sa.literal_column(f"'{name}'"), sa.func.count()).select_from(
                matching.limit(_RARE).subquery()
            )
            for name, matching in _matching(properties, tags)
        )
    )


@lru_cache(maxsize=512)
def _page(shape: _Shape) -> _Select:
    """The statement of one page."""
    conditions = list(_conditions(shape))
    limit: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)
    walks = [
        sa.select(*rows.COLUMNS)
        .where(*conditions, view)
        .order_by(*_order(shape, images.c))
        .limit(limit)
        for view in _views(shape)
    ]
    if len(walks) == 1:
        return walks[0]
    merged = sa.union_all(*(sa.select(walk.subquery()) for walk in walks)).subquery()
    return sa.select(merged).order_by(*_order(shape, merged.c)).limit(limit)


def _views(shape: _Shape) -> list[_Condition]:
    """The parts of the catalogue that the query lists; no image is in two of them."""
    visibility, owner = images.c.visibility, images.c.owner
    wanted = visibility == sa.bindparam("visibility", type_=visibility.type)
    viewer = sa.bindparam("viewer", type_=sa.String)
    one_visibility = shape.visibility not in (None, "all")
    if shape.is_admin:
        if one_visibility:
            return [wanted]
        if shape.visibility == "all":
            return [sa.true()]
        ours = visibility != Visibility.COMMUNITY.value
        return [ours | (owner == viewer)] if shape.has_project else [ours]

    listed_from_others = {
        None: [Visibility.PUBLIC],
        "all": [Visibility.PUBLIC, Visibility.COMMUNITY],
        "public": [Visibility.PUBLIC],
        "community": [Visibility.COMMUNITY],
    }.get(shape.visibility, [])
    if not shape.has_project:
        return [visibility == each.value for each in listed_from_others] or [sa.false()]
    others = owner.is_(None) | (owner != viewer)
    views: list[_Condition] = [(visibility == each.value) & others for each in listed_from_others]
    views.append((owner == viewer) & wanted if one_visibility else owner == viewer)
    if shape.visibility in (None, "all", "shared"):
        shared = sa.select(image_members.c.image_id).where(
            image_members.c.member == viewer, image_members.c.deleted == sa.false()
        )
        if not shape.any_member_status:
            shared = shared.where(image_members.c.status == sa.bindparam("member_status"))
        views.append((visibility == Visibility.SHARED.value) & others & images.c.id.in_(shared))
    return views


def _conditions(shape: _Shape) -> Iterator[_Condition]:
    """What holds for every image of the page, whoever looks."""
    yield images.c.deleted == sa.false()
    yield images.c.os_hidden == (sa.true() if shape.os_hidden else sa.false())
    yield images.c.status != Status.KILLED.value
    for number, (column, op) in enumerate(shape.filters):
        yield _filter(column, op, f"filter{number}")
    for name, matching in _matching(shape.properties, shape.tags):
        if name == shape.rare:
            yield images.c.id.in_(matching)
        else:
            (table,) = matching.get_final_froms()
            assert isinstance(table, sa.Table)
            yield matching.where(table.c.image_id == images.c.id).correlate(images).exists()
    if shape.after_marker:
        yield _after(shape)


def _filter(name: str, op: Op, parameter: str) -> _Condition:
    column = images.c[name]
    if op is Op.IN:
        return column.in_(sa.bindparam(parameter, expanding=True))
    value: sa.BindParameter[Any] = sa.bindparam(parameter, type_=column.type)
    condition = _OPERATORS[op](column, value)
    if op is Op.EQ and name in _SORT_KEYS:
        # The index of a nullable key holds the key, not the column.
        key = _SORT_KEYS[name](images.c)
        return condition if key is column else condition & (key == value)
    return condition


def _matching(properties: int, tags: int) -> Iterator[tuple[str, _Select]]:
    """Every condition on a property or tag: its name, and the ids of the images it holds for."""
    table = image_properties.c
    # Literals again; PostgreSQL and SQLite index this expression.
    prefix = sa.func.substr(
        table.value, sa.literal_column("1"), sa.literal_column(str(VALUE_PREFIX))
    )
    for number in range(properties):
        yield (
            f"property{number}",
            sa.select(table.image_id).where(
                table.name == sa.bindparam(f"property{number}"),
                prefix == sa.bindparam(f"prefix{number}", type_=sa.Text),
                table.value == sa.bindparam(f"value{number}"),
                table.deleted == sa.false(),
            ),
        )
    for number in range(tags):
        yield (
            f"tag{number}",
            sa.select(image_tags.c.image_id).where(
                image_tags.c.value == sa.bindparam(f"tag{number}"),
                image_tags.c.deleted == sa.false(),
            ),
        )


def _order(shape: _Shape, columns: Any) -> list[sa.ColumnElement[Any]]:
    return [
        _SORT_KEYS[name](columns).desc() if descending else _SORT_KEYS[name](columns).asc()
        for name, descending in shape.sort
    ]


def _after(shape: _Shape) -> _Condition:
    """Behind the marker, whose sort keys are the parameters key0, key1, …"""
    keys = [_SORT_KEYS[name](images.c) for name, _ in shape.sort]
    marks: list[sa.BindParameter[Any]] = [
        sa.bindparam(f"key{number}", type_=key.type) for number, key in enumerate(keys)
    ]
    descending = [each for _, each in shape.sort]
    if len(set(descending)) == 1:
        # Compared as a row, the keys are a range of the index.
        left, right = sa.tuple_(*keys), sa.tuple_(*marks)
        return left < right if descending[0] else left > right
    beyond = [
        key < mark if down else key > mark
        for key, mark, down in zip(keys, marks, descending, strict=True)
    ]
    equal = [key == mark for key, mark in zip(keys, marks, strict=True)]
    # The first condition follows from the second, and is a range of the index.
    return (beyond[0] | equal[0]) & sa.or_(
        *(sa.and_(*equal[:number], beyond[number]) for number in range(len(keys)))
    )
