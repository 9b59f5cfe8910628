"""Lists of images: one page by a fixed number of statements, at a cost that the page sets.

A page is an ordered walk over an index, begun behind the marker (keyset paging) and ended after
``limit`` images, so that neither the size of the catalogue nor the number of the page matters.
Four things would spoil that, and have an answer each:

- What a project may see is a union (its own, the public ones, those shared with it), and no index
  holds a union in order.  Each is walked by itself to ``limit``, and the walks are merged.
- A condition such as a custom property, and being one's own in the order of names, may hold for
  every image or for one in a million.  A look ahead says which: rare matches are collected and
  sorted, for others the walk tests each image.
- What lies behind the marker is one range of an index only while all keys are columns sorted the
  same way; otherwise it is two, and two walks.
- NULLs sort differently on each database.  Nullable keys are compared as empty or 0, which is
  indexed; MySQL and MariaDB, where it is not, walk along the NULLs and all others apart.

The text of a statement depends on the shape of a query only, so statements are built once each.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isqrt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import rows
from headrace.db.engine import Database
from headrace.db.hints import (
    along,
    among,
    estimated_rows,
    exactly,
    in_range,
    indexes_expressions,
    of_key,
    one_by_one,
    unindexed,
)
from headrace.db.schema import (
    VALUE_PREFIX,
    image_members,
    image_properties,
    image_tags,
    images,
)
from headrace.model import ImagePage, ImageQuery, Op, Status, Viewer, Visibility

# The most matches of a condition that are counted, and so collected: counting costs, too.
_FEW = 3000
_ALL = "images"
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
_KEYS_OF_NULL: dict[str, _Key] = {
    **{name: lambda _columns: _EMPTY for name in ("name", "container_format", "disk_format")},
    "size": lambda _columns: _ZERO,
    "updated_at": _plain("created_at"),
}
_TIE_BREAKERS = ("created_at", "id")
# What an equality may lead a walk by, in the order of created_at; those that leave least first.
_LEADING = ("owner", "name", "visibility", "status", "container_format", "disk_format")
_INDEXED = {*_SORT_KEYS, *_LEADING}  # by the migrations, as headrace_images_<name>

_OPERATORS: dict[Op, Callable[[Any, Any], _Condition]] = {
    Op.EQ: lambda column, value: column == value,
    Op.NEQ: lambda column, value: column != value,
    Op.GT: lambda column, value: column > value,
    Op.GTE: lambda column, value: column >= value,
    Op.LT: lambda column, value: column < value,
    Op.LTE: lambda column, value: column <= value,
}

# Filters that an index answers, but not in the order of a walk: by NEQ it would answer with all.
_LOOKED_UP = {*_INDEXED, "checksum", "os_hash_value"}


@dataclass(frozen=True, slots=True)
class _Shape:
    """What of a query decides the text of its statement; all else are parameters.

    ``sort`` is complete.  ``properties`` and ``tags`` are numbers of conditions.  The look ahead,
    which counts up to ``few``, adds ``collected``: views, and the look-ups they are taken from.
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
    splits_nulls: bool
    collected: tuple[tuple[str, str], ...] = ()

    @property
    def lists_shared(self) -> bool:
        """Whether images of others that are shared with the viewer belong to the list."""
        return not self.is_admin and self.has_project and self.visibility in (None, "all", "shared")


@dataclass(frozen=True, slots=True)
class _View:
    """A part of the catalogue that the query lists: what ``is_in`` it, as far as ``also`` holds.

    ``column``, whose index leads to it, may be None: then it is nearly everything.  ``members`` are
    the ids of a part that is found in another table.
    """

    name: str
    is_in: _Condition
    column: str | None = None
    also: _Condition = field(default_factory=sa.true)
    members: _Select | None = None

    def lookup(self, shape: _Shape) -> _Select | None:
        """Its ids, if there may be better than to walk along its index."""
        if self.members is not None:
            return self.members
        is_walk = shape.sort[0][0] == "created_at" and not next(_lookups(shape), None)
        if self.column is None or is_walk:
            return None
        lookup = sa.select(images.c.id).where(self.is_in, *_living(shape, images))
        return along(lookup, images, f"headrace_images_{self.column}")


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
    shape = _shape(database, query, viewer, few)
    values = _values(query, viewer)
    with database.read() as connection:
        if query.marker is not None:
            values |= _marker(connection, shape, query.marker, viewer)
        shape = _look_ahead(connection, shape, values, query.limit)
        found = connection.execute(_page(shape), values).all()
        parts = rows.parts_of_many(connection, [row[0] for row in found]) if found else {}
    return ImagePage(
        [rows.image(row, parts.get(row[0]) or rows.Parts()) for row in found],
        full=len(found) == query.limit,
    )


def _shape(database: Database, query: ImageQuery, viewer: Viewer, few: int) -> _Shape:
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
        splits_nulls=not indexes_expressions(database.dialect),
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


def _look_ahead(
    connection: Connection, shape: _Shape, values: dict[str, object], limit: int
) -> _Shape:
    """The shape with what is known only by counting."""
    statement = _counts(shape)
    if statement is None:
        return shape
    counts = {row[0]: row[1] for row in connection.execute(statement, values)}
    # Of all images a walk tests limit * all / matches, collecting looks at each match.
    known = int(counts.pop(_ALL) or 0)
    bound = min(shape.few, isqrt(limit * known)) if known > 0 else shape.few
    collected = []
    for view, lookups in _choices(shape):
        least = min(lookups, key=counts.__getitem__, default=None)
        if least is not None and counts[least] < bound:
            collected.append((view, least))
    return replace(shape, collected=tuple(collected))


@lru_cache(maxsize=128)
def _choices(shape: _Shape) -> list[tuple[str, list[str]]]:
    """Each view's name, and the names of the look-ups that its images may be taken from."""
    anywhere = [name for name, _ in _lookups(shape)]
    own = _views_by_lookup(shape)
    return [
        (view.name, [*anywhere, view.name] if view.name in own else anywhere)
        for view in _views(shape)
    ]


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
    lookups = dict(_lookups(shape, counted=True)) | _views_by_lookup(shape)
    if not lookups:
        return None
    return sa.union_all(
        sa.select(sa.literal_column(f"'{_ALL}'"), estimated_rows(images)),
        *(
            sa.select(sa.literal_column(f"'{name}'"), sa.func.count()).select_from(
                lookup.limit(shape.few).subquery()
            )
            for name, lookup in lookups.items()
        ),
    )


@lru_cache(maxsize=128)
def _page(shape: _Shape) -> _Select:
    """The statement of one page."""
    limit: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)
    walks = [walk.limit(limit) for view in _views(shape) for walk in _walks(shape, view)]
    if len(walks) == 1:
        return walks[0]
    merged = sa.union_all(*(sa.select(walk.subquery()) for walk in walks)).subquery()
    return sa.select(merged).order_by(*_order(shape, merged.c, _SORT_KEYS)).limit(limit)


def _walks(shape: _Shape, view: _View) -> Iterator[_Select]:
    """The images of a view in their order, in selects that have none in common."""
    everything = sa.select(*rows.COLUMNS)
    collected = _collected(shape, view)
    if collected is not None:
        conditions = [view.is_in, view.also, *_living(shape, images), *_conditions(shape, None)]
        behind = sa.or_(*(behind for behind, _ in _ranges(shape, _SORT_KEYS)))
        yield everything.where(
            among(images.c.id, collected), unindexed(sa.and_(*conditions, behind))
        ).order_by(*_order(shape, images.c, _SORT_KEYS))
        return
    leading = _leading(shape, view)
    walk = along(everything, images, f"headrace_images_{leading}").where(
        *_living(shape, images),
        view.is_in if view.column == leading else unindexed(view.is_in),
        unindexed(view.also),
        *_conditions(shape, leading),
    )
    for piece, keys, same in _pieces(shape):
        order = _order(shape, images.c, keys)
        for behind, settled in _ranges(shape, keys):
            yield walk.where(piece, behind).order_by(*order[max(same, settled) :])


def _collected(shape: _Shape, view: _View) -> _Select | None:
    """The ids of the few images that those of a view are among, if they are to be collected."""
    name = dict(shape.collected).get(view.name)
    if name is None:
        return None
    return view.lookup(shape) if name == view.name else dict(_lookups(shape))[name]


def _leading(shape: _Shape, view: _View) -> str:
    """The column by whose index, headrace_images_<column>, a view is walked in its order."""
    first = shape.sort[0][0]
    if first != "created_at":
        return first
    equal = {view.column, *(name for name, op in shape.filters if op is Op.EQ)}
    return next((name for name in _LEADING if name in equal), first)


def _pieces(shape: _Shape) -> Iterator[tuple[_Condition, dict[str, _Key], int]]:
    """What is walked apart, by which keys, and how many of them are the same throughout."""
    first = shape.sort[0][0]
    if not (shape.splits_nulls and first in _EXPRESSION_KEYS):
        yield sa.true(), _SORT_KEYS, 0
        return
    column = images.c[first]
    yield column.is_not(None), _SORT_KEYS | {first: _plain(first)}, 0
    of_null = _KEYS_OF_NULL[first]
    yield column.is_(None), _SORT_KEYS | {first: of_null}, 0 if first == "updated_at" else 1


def _views(shape: _Shape) -> list[_View]:
    """The parts of the catalogue that the query lists; no image is in two of them."""
    visibility, owner = images.c.visibility, images.c.owner
    wanted = visibility == sa.bindparam("visibility", type_=visibility.type)
    viewer = sa.bindparam("viewer", type_=sa.String)
    one_visibility = shape.visibility not in (None, "all")
    mine = exactly(owner == viewer)
    if shape.is_admin:
        if one_visibility:
            return [_View("visible", wanted, "visibility")]
        if shape.visibility == "all":
            return [_View("all", sa.true())]
        listed = visibility != Visibility.COMMUNITY.value
        return [_View("all", listed | mine if shape.has_project else listed)]

    open_to_all = {
        None: [Visibility.PUBLIC],
        "all": [Visibility.PUBLIC, Visibility.COMMUNITY],
        "public": [Visibility.PUBLIC],
        "community": [Visibility.COMMUNITY],
    }.get(shape.visibility, [])
    others = (owner.is_(None) | ~mine) if shape.has_project else sa.true()
    views = [_View(each.value, visibility == each.value, "visibility", others)
             for each in open_to_all]  # fmt: skip
    if shape.has_project:
        views.append(_View("mine", mine, "owner", wanted if one_visibility else sa.true()))
    if shape.lists_shared:
        shared, members = visibility == Visibility.SHARED.value, _shared(shape)
        also = others & _holds(members, image_members)
        views.append(_View("shared", shared, "visibility", also, members))
    return views or [_View("none", sa.false())]


def _views_by_lookup(shape: _Shape) -> dict[str, _Select]:
    found = {view.name: view.lookup(shape) for view in _views(shape)}
    return {name: lookup for name, lookup in found.items() if lookup is not None}


def _living(shape: _Shape, table: Any) -> tuple[_Condition, _Condition]:
    """What the indexes of lists begin with, or go on with."""
    hidden = sa.true() if shape.os_hidden else sa.false()
    return table.c.deleted == sa.false(), table.c.os_hidden == hidden


def _conditions(shape: _Shape, leading: str | None) -> Iterator[_Condition]:
    """What holds for every image of the page, whoever looks; only ``leading`` is for its index."""
    yield images.c.status != Status.KILLED.value
    for number, (column, op) in enumerate(shape.filters):
        parameter = f"filter{number}"
        if column in (leading, shape.sort[0][0]) and op in _OPERATORS and leading is not None:
            yield _leading_filter(column, op, parameter)
        else:
            yield unindexed(_filter(column, op, parameter))
    for number in range(shape.properties):
        yield _holds(_with_property(number), image_properties)
    for number in range(shape.tags):
        yield _holds(_with_tag(number), image_tags)


def _holds(lookup: _Select, table: sa.Table) -> _Condition:
    """Whether an image is among those of a look-up in ``table``."""
    return one_by_one(lookup.where(table.c.image_id == images.c.id).correlate(images)).exists()


def _filter(name: str, op: Op, parameter: str) -> _Condition:
    column = images.c[name]
    condition = _is(column, op, parameter)
    return exactly(condition) if op in (Op.EQ, Op.IN) else condition


def _leading_filter(name: str, op: Op, parameter: str) -> _Condition:
    """A filter as a range of the index of its column."""
    if name not in _EXPRESSION_KEYS:
        return _filter(name, op, parameter)
    # The index holds the key, in which NULL is empty: both conditions are needed.
    in_index = _is(_EXPRESSION_KEYS[name](images.c), op, parameter)
    return unindexed(_filter(name, op, parameter)) & in_index


def _lookups(shape: _Shape, *, counted: bool = False) -> Iterator[tuple[str, _Select]]:
    """The conditions that may hold for few images: a name, and the ids of those images.

    What is only ``counted`` is so by the index, which holds the start of a property's value.
    """
    for number, (column, op) in enumerate(shape.filters):
        if column in _LOOKED_UP and op is not Op.NEQ:
            yield f"filter{number}", _with_column(shape, column, op, f"filter{number}")
    for number in range(shape.properties):
        alike = _starting_alike(number)
        yield f"property{number}", alike if counted else alike.where(_has_value(number))
    for number in range(shape.tags):
        yield f"tag{number}", _with_tag(number)


def _with_column(shape: _Shape, name: str, op: Op, parameter: str) -> _Select:
    image = images.alias("found")
    key = _SORT_KEYS.get(name, _plain(name))(image.c)
    wanted = of_key(*(_is(each, op, parameter) for each in (key, image.c[name])))
    living = sa.and_(*_living(shape, image))
    # Only our indexes hold these two columns, those of Glance's must do without.
    lookup = sa.select(image.c.id)
    if name not in _INDEXED:
        return lookup.where(wanted, unindexed(living))
    return along(lookup, image, f"headrace_images_{name}").where(wanted, living)


def _is(key: Any, op: Op, parameter: str) -> _Condition:
    if op is Op.IN:
        condition: _Condition = key.in_(sa.bindparam(parameter, expanding=True))
        return condition
    return _OPERATORS[op](key, sa.bindparam(parameter, type_=key.type))


def _with_property(number: int) -> _Select:
    table = image_properties.c
    return sa.select(table.image_id).where(
        exactly(table.name == sa.bindparam(f"property{number}")),
        _has_value(number),
        unindexed(table.deleted == sa.false()),
    )


def _has_value(number: int) -> _Condition:
    return unindexed(exactly(image_properties.c.value == sa.bindparam(f"value{number}")))


def _starting_alike(number: int) -> _Select:
    """A look-up of a property by the index.

    Where images are tested one by one, this would only make a planner expect fewer matches.
    """
    table = image_properties.c
    value: sa.BindParameter[str] = sa.bindparam(f"value{number}", type_=sa.Text)
    start = sa.func.substr(
        table.value, sa.literal_column("1"), sa.literal_column(str(VALUE_PREFIX))
    )
    return sa.select(table.image_id).where(
        exactly(table.name == sa.bindparam(f"property{number}")),
        of_key(start == sa.bindparam(f"prefix{number}", type_=sa.Text), table.value == value),
        table.deleted == sa.false(),
    )


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


def _order(shape: _Shape, columns: Any, keys: dict[str, _Key]) -> list[sa.ColumnElement[Any]]:
    return [
        keys[name](columns).desc() if descending else keys[name](columns).asc()
        for name, descending in shape.sort
    ]


def _ranges(shape: _Shape, keys: dict[str, _Key]) -> Iterator[tuple[_Condition, int]]:
    """What lies behind the marker, whose sort keys are the parameters key0, key1, …

    In ranges of an index that have no image in common, each with the number of leading keys that
    are the same throughout (SQLite does not see that for itself when they are expressions).
    Everything, if there is no marker.
    """
    if not shape.after_marker:
        yield sa.true(), 0
        return
    terms = [
        _Term(keys[name](images.c), f"key{number}", descending)
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
