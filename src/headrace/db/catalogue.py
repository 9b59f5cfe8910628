"""Lists of images: one page by a fixed number of statements, at a cost that the page sets.

A page is an ordered walk over an index, begun behind the marker (keyset paging) and ended after
``limit`` images, so that neither the size of the catalogue nor the number of the page matters.
Four things would spoil that, and have an answer each:

- What a project may see is a union (its own, the public ones, those shared with it), and no index
  holds a union in order.  Each is walked by itself to ``limit``, and the walks are merged.
- A condition such as a custom property may hold for every image or for one in a million.  A look
  ahead says which: rare matches are collected and sorted, for others the walk tests each image.
- What lies behind the marker is one range of an index only while all keys are columns sorted the
  same way; otherwise it is two, and two walks.
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
from headrace.db.hints import along, exactly, in_range, of_key, unindexed
from headrace.db.schema import (
    VALUE_PREFIX,
    image_members,
    image_properties,
    image_tags,
    images,
)
from headrace.model import ImagePage, ImageQuery, Op, Status, Viewer, Visibility

# Matches of a condition below which collecting and sorting them is cheaper than a walk: with 1,000
# in a catalogue of 300,000, both cost a few milliseconds.
_FEW = 1000
_INT64_MAX = (1 << 63) - 1

_Key = Callable[[Any], sa.ColumnElement[Any]]
_Condition = sa.ColumnElement[bool]
_Select = sa.Select[*tuple[Any, ...]]

# Literals, not parameters: an index on an expression serves only that very expression.
_EMPTY = sa.literal_column("''", sa.String)
_ZERO = sa.literal_column("0", sa.BigInteger)


def _plain(name: str) -> _Key:
    return lambda columns: columns[name]


def _or_empty(name: str) -> _Key:
    return lambda columns: sa.func.coalesce(columns[name], _EMPTY)


_COLUMN_KEYS = {name: _plain(name) for name in ("status", "id", "created_at")}
_EXPRESSION_KEYS: dict[str, _Key] = {
    **{name: _or_empty(name) for name in ("name", "container_format", "disk_format")},
    "size": lambda columns: sa.func.coalesce(columns["size"], _ZERO),
    "updated_at": lambda columns: sa.func.coalesce(columns["updated_at"], columns["created_at"]),
}
_SORT_KEYS = _COLUMN_KEYS | _EXPRESSION_KEYS
_TIE_BREAKERS = ("created_at", "id")
_INDEXED = {*_SORT_KEYS, "owner", "visibility"}  # by the migrations, as headrace_images_<name>

_OPERATORS: dict[Op, Callable[[Any, Any], _Condition]] = {
    Op.EQ: lambda column, value: column == value,
    Op.NEQ: lambda column, value: column != value,
    Op.GT: lambda column, value: column > value,
    Op.GTE: lambda column, value: column >= value,
    Op.LT: lambda column, value: column < value,
    Op.LTE: lambda column, value: column <= value,
}

# Filters that an index answers, but not in the order of a walk.
_LOOKED_UP = {
    *((name, op) for name in ("id", "checksum", "os_hash_value") for op in (Op.EQ, Op.IN)),
    *((name, Op.IN) for name in ("name", "owner", "status", "container_format", "disk_format")),
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """What of a query decides the text of its statement; all else are parameters.

    ``sort`` is complete.  ``properties`` and ``tags`` are numbers of conditions.  The look ahead,
    which counts up to ``few``, adds ``rare``, the condition whose matches a page begins with, and
    ``few_shared``: whether the images shared with the viewer are few.
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
    few: int
    rare: str | None = None
    few_shared: bool = False

    @property
    def lists_shared(self) -> bool:
        """Whether images of others that are shared with the viewer belong to the list."""
        return not self.is_admin and self.has_project and self.visibility in (None, "all", "shared")


def list_page(
    database: Database, query: ImageQuery, viewer: Viewer, *, few: int = _FEW
) -> ImagePage:
    """One page of the images that a viewer may see.

    Costs one statement for the page and one for its parts, one for a marker and one for a look
    ahead; of a condition with less than ``few`` matches all are collected.  Raises MarkerNotFound
    when the marker is no image that the viewer may see.
    """
    if query.limit == 0:
        return ImagePage([], full=False)
    shape = _shape(query, viewer, few)
    values = _values(query, viewer)
    with database.read() as connection:
        if query.marker is not None:
            values |= _marker(connection, shape, query.marker, viewer)
        found = connection.execute(_page(_look_ahead(connection, shape, values)), values).all()
        parts = rows.parts_of_many(connection, [row[0] for row in found]) if found else {}
    return ImagePage(
        [rows.image(row, parts.get(row[0]) or rows.Parts()) for row in found],
        full=len(found) == query.limit,
    )


def _shape(query: ImageQuery, viewer: Viewer, few: int) -> _Shape:
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
        few=few,
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


def _look_ahead(connection: Connection, shape: _Shape, values: dict[str, object]) -> _Shape:
    """The shape with what is known only by counting."""
    statement = _counts(shape)
    if statement is None:
        return shape
    counts = {row[0]: row[1] for row in connection.execute(statement, values)}
    few_shared = counts.pop("shared", shape.few) < shape.few
    rare = min(counts, key=counts.__getitem__, default=None)
    if rare is not None and counts[rare] >= shape.few:
        rare = None
    return replace(shape, rare=rare, few_shared=few_shared)


@lru_cache(maxsize=64)
def _keys_of_one(sort: tuple[tuple[str, bool], ...], is_admin: bool, has_project: bool) -> _Select:
    return sa.select(*(_SORT_KEYS[name](images.c) for name, _ in sort)).where(
        images.c.id == sa.bindparam("id"),
        images.c.deleted == sa.false(),
        rows.is_visible(is_admin=is_admin, has_project=has_project),
    )


@lru_cache(maxsize=128)
def _counts(shape: _Shape) -> sa.CompoundSelect[*tuple[Any, ...]] | None:
    """Each look-up's name and number of matches, counted up to ``few``."""
    lookups = dict(_lookups(shape))
    if shape.lists_shared:
        lookups["shared"] = _shared(shape)
    if not lookups:
        return None
    return sa.union_all(
        *(
            sa.select(sa.literal_column(f"'{name}'"), sa.func.count()).select_from(
                lookup.limit(shape.few).subquery()
            )
            for name, lookup in lookups.items()
        )
    )


@lru_cache(maxsize=128)
def _page(shape: _Shape) -> _Select:
    """The statement of one page."""
    limit: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)
    walks = [
        walk.limit(limit)
        for view, collected in _views(shape)
        for walk in _walks(shape, view, collected)
    ]
    if len(walks) == 1:
        return walks[0]
    merged = sa.union_all(*(sa.select(walk.subquery()) for walk in walks)).subquery()
    return sa.select(merged).order_by(*_order(shape, merged.c)).limit(limit)


def _walks(shape: _Shape, view: _Condition, collected: _Select | None) -> Iterator[_Select]:
    """The images of a view in their order, in walks that have none in common."""
    ranges = list(_behind_marker(shape)) if shape.after_marker else [(sa.true(), 0)]
    order = _order(shape, images.c)
    conditions = [*_conditions(shape), view]
    everything = sa.select(*rows.COLUMNS)
    if collected is None:
        walk = along(everything, images, [f"headrace_images_{key}" for key in _ordered_by(shape)])
        for behind, settled in ranges:
            yield walk.where(*conditions, behind).order_by(*order[settled:])
    else:
        anywhere = sa.or_(*(behind for behind, _ in ranges))
        yield everything.where(
            images.c.id.in_(collected), unindexed(sa.and_(*conditions, anywhere))
        ).order_by(*order)


def _ordered_by(shape: _Shape) -> list[str]:
    """The keys whose indexes hold images in the query's order, among those of its conditions."""
    first = shape.sort[0][0]
    if first in _EXPRESSION_KEYS:
        return []
    if first != "created_at":
        return [first]
    keys = [first, *(name for name, op in shape.filters if op is Op.EQ)]
    if not shape.is_admin:
        keys += ["visibility", "owner"] if shape.has_project else ["visibility"]
    elif shape.visibility not in (None, "all"):
        keys.append("visibility")
    return list(dict.fromkeys(key for key in keys if key in _INDEXED))


def _views(shape: _Shape) -> list[tuple[_Condition, _Select | None]]:
    """The parts of the catalogue that the query lists; no image is in two of them.

    With each, the ids of the few images to begin with, or None for a walk.
    """
    rare = dict(_lookups(shape)).get(shape.rare or "")
    visibility, owner = images.c.visibility, images.c.owner
    wanted = visibility == sa.bindparam("visibility", type_=visibility.type)
    viewer = sa.bindparam("viewer", type_=sa.String)
    one_visibility = shape.visibility not in (None, "all")
    if shape.is_admin:
        if one_visibility:
            return [(wanted, rare)]
        if shape.visibility == "all":
            return [(sa.true(), rare)]
        listed = visibility != Visibility.COMMUNITY.value
        return [(listed | exactly(owner == viewer) if shape.has_project else listed, rare)]

    open_to_all = {
        None: [Visibility.PUBLIC],
        "all": [Visibility.PUBLIC, Visibility.COMMUNITY],
        "public": [Visibility.PUBLIC],
        "community": [Visibility.COMMUNITY],
    }.get(shape.visibility, [])
    mine = exactly(owner == viewer)
    others = (owner.is_(None) | ~mine) if shape.has_project else sa.true()
    views: list[tuple[_Condition, _Select | None]] = [
        ((visibility == each.value) & others, rare) for each in open_to_all
    ]
    if shape.has_project:
        views.append((mine & wanted if one_visibility else mine, rare))
    if shape.lists_shared:
        shared = (visibility == Visibility.SHARED.value) & others
        if rare is None and shape.few_shared:
            views.append((shared, _shared(shape)))
        else:
            views.append((shared & _holds(_shared(shape), image_members), rare))
    return views or [(sa.false(), None)]


def _conditions(shape: _Shape) -> Iterator[_Condition]:
    """What holds for every image of the page, whoever looks."""
    yield images.c.deleted == sa.false()
    yield images.c.os_hidden == (sa.true() if shape.os_hidden else sa.false())
    yield images.c.status != Status.KILLED.value
    for number, (column, op) in enumerate(shape.filters):
        yield _filter(column, op, f"filter{number}")
    for number in range(shape.properties):
        yield _holds(_with_property(number), image_properties)
    for number in range(shape.tags):
        yield _holds(_with_tag(number), image_tags)


def _holds(lookup: _Select, table: sa.Table) -> _Condition:
    """Whether an image is among those of a look-up in ``table``."""
    return lookup.where(table.c.image_id == images.c.id).correlate(images).exists()


def _filter(name: str, op: Op, parameter: str) -> _Condition:
    column = images.c[name]
    if op is Op.IN:
        return exactly(column.in_(sa.bindparam(parameter, expanding=True)))
    value: sa.BindParameter[Any] = sa.bindparam(parameter, type_=column.type)
    condition = _OPERATORS[op](column, value)
    if op is Op.EQ:
        condition = exactly(condition)
    if op is Op.EQ and name in _EXPRESSION_KEYS:
        # The index holds the key, in which NULL is empty: both conditions are needed.
        return unindexed(condition) & (_EXPRESSION_KEYS[name](images.c) == value)
    return condition


def _lookups(shape: _Shape) -> Iterator[tuple[str, _Select]]:
    """The conditions that may hold for few images: a name, and the ids of those images."""
    for number, (column, op) in enumerate(shape.filters):
        if (column, op) in _LOOKED_UP:
            yield f"filter{number}", _with_column(shape, column, op, f"filter{number}")
    for number in range(shape.properties):
        yield f"property{number}", _starting_alike(_with_property(number), number)
    for number in range(shape.tags):
        yield f"tag{number}", _with_tag(number)


def _with_column(shape: _Shape, name: str, op: Op, parameter: str) -> _Select:
    image = images.alias("found")
    key = _SORT_KEYS.get(name, _plain(name))(image.c)
    wanted = of_key(*(_is_or_is_in(each, op, parameter) for each in (key, image.c[name])))
    living = (image.c.deleted == sa.false()) & (
        image.c.os_hidden == (sa.true() if shape.os_hidden else sa.false())
    )
    # The sort keys' indexes begin with these two columns, those of Glance's must do without.
    return sa.select(image.c.id).where(wanted, living if name in _SORT_KEYS else unindexed(living))


def _is_or_is_in(key: sa.ColumnElement[Any], op: Op, parameter: str) -> _Condition:
    if op is Op.IN:
        return key.in_(sa.bindparam(parameter, expanding=True))
    return key == sa.bindparam(parameter, type_=key.type)


def _with_property(number: int) -> _Select:
    table = image_properties.c
    return sa.select(table.image_id).where(
        exactly(table.name == sa.bindparam(f"property{number}")),
        unindexed(exactly(table.value == sa.bindparam(f"value{number}"))),
        unindexed(table.deleted == sa.false()),
    )


def _starting_alike(lookup: _Select, number: int) -> _Select:
    """A look-up of a property by the index, which holds the start of its value.

    Where images are tested one by one, this would only make a planner expect fewer matches.
    """
    start = sa.func.substr(
        image_properties.c.value, sa.literal_column("1"), sa.literal_column(str(VALUE_PREFIX))
    )
    return lookup.where(start == sa.bindparam(f"prefix{number}", type_=sa.Text))


def _with_tag(number: int) -> _Select:
    return sa.select(image_tags.c.image_id).where(
        exactly(image_tags.c.value == sa.bindparam(f"tag{number}")),
        unindexed(image_tags.c.deleted == sa.false()),
    )


def _shared(shape: _Shape) -> _Select:
    """The ids of images that the viewer is a member of."""
    shared = sa.select(image_members.c.image_id).where(
        exactly(image_members.c.member == sa.bindparam("viewer", type_=sa.String)),
        unindexed(image_members.c.deleted == sa.false()),
    )
    if shape.any_member_status:
        return shared
    return shared.where(image_members.c.status == sa.bindparam("member_status"))


def _order(shape: _Shape, columns: Any) -> list[sa.ColumnElement[Any]]:
    return [
        _SORT_KEYS[name](columns).desc() if descending else _SORT_KEYS[name](columns).asc()
        for name, descending in shape.sort
    ]


def _behind_marker(shape: _Shape) -> Iterator[tuple[_Condition, int]]:
    """What lies behind the marker, whose sort keys are the parameters key0, key1, …

    In ranges of an index that have no image in common, each with the number of leading keys that
    are the same throughout (SQLite does not see that for itself when they are expressions).
    """
    terms = [
        _Term(_SORT_KEYS[name](images.c), f"key{number}", descending)
        for number, (name, descending) in enumerate(shape.sort)
    ]
    if all(name in _COLUMN_KEYS for name, _ in shape.sort) and _is_one_way(terms):
        yield _behind(terms), 0
    else:
        yield terms[0].is_equal & _behind(terms[1:]), 1
        yield terms[0].is_behind, 0


class _Term:
    """One sort key of a row against the marker's."""

    def __init__(self, key: sa.ColumnElement[Any], parameter: str, descending: bool) -> None:
        self.key = key
        self.mark: sa.BindParameter[Any] = sa.bindparam(parameter, type_=key.type)
        self.descending = descending
        self.is_equal = key == self.mark
        self.is_behind = key < self.mark if descending else key > self.mark


def _is_one_way(terms: list[_Term]) -> bool:
    return len({term.descending for term in terms}) == 1


def _behind(terms: list[_Term]) -> _Condition:
    """Behind the marker in the order of all terms."""
    first, *rest = terms
    if not rest:
        return first.is_behind
    key_by_key = first.is_behind | (first.is_equal & _behind(rest))
    if _is_one_way(terms):
        # As a row of values, which is a range; what follows is not.
        keys = sa.tuple_(*(term.key for term in terms))
        marks = sa.tuple_(*(term.mark for term in terms))
        return in_range(keys < marks if first.descending else keys > marks, key_by_key)
    return key_by_key
