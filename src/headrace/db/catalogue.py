"""Lists of images: one page by a fixed number of statements, at a cost that the page sets.

A page is an ordered walk over an index, begun behind the marker (keyset paging) and ended after
``limit`` images, so that neither the size of the catalogue nor the number of the page matters.
Two things would spoil that, and have an answer each (db/orders.py has more):

- What a project may see is a union (its own, the public ones, those shared with it), and no index
  holds a union in order.  Each is walked by itself to ``limit``, and the walks are merged.
- A condition such as a custom property, and being one's own in the order of names, may hold for
  every image or for one in a million.  A look ahead says which: rare matches are collected and
  sorted, once for all views; for others the walk tests each image.

What a walk tests of an image lies beside its sort key in the index, and so does what is sorted by
beside the id: rows are read of those images alone that are on the page, or nearly so.  What remains
is that a condition which some thousands of a million meet costs as many looks, one way or another.

The text of a statement depends on the shape of a query only, so statements are built once each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import rows, walks
from headrace.db.conditions import LEADING, counted, leaders, lookups
from headrace.db.engine import Database
from headrace.db.hints import estimated_rows
from headrace.db.orders import SORT_KEYS
from headrace.db.schema import VALUE_PREFIX, images
from headrace.db.shape import Select, Shape, Way, shape_of
from headrace.db.views import views, views_by_lookup
from headrace.model import ImagePage, ImageQuery, Viewer

# The most matches of a condition that are counted, and so collected: counting costs, too.
_FEW = 3000
_ALL = "images"
_INT64_MAX = (1 << 63) - 1


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
    shape = shape_of(database.dialect, query, viewer)
    values = _values(query, viewer)
    with database.read() as connection:
        if query.marker is not None:
            values |= _marker(connection, shape, query.marker, viewer)
        bounds = _bounds(shape, few)
        counts = _look_ahead(connection, shape, values | bounds)
        statement = walks.page(shape, _plan(shape, counts, query.limit, bounds))
        found = connection.execute(statement, values).all()
        parts = rows.parts_of_many(connection, [row[0] for row in found]) if found else {}
    return ImagePage(
        [rows.image(row, parts.get(row[0]) or rows.Parts()) for row in found],
        full=len(found) == query.limit,
    )


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


def _marker(connection: Connection, shape: Shape, marker: str, viewer: Viewer) -> dict[str, object]:
    """The sort keys of the marker's row, as parameters."""
    row = connection.execute(
        _keys_of_one(shape.sort, viewer.is_admin, viewer.project_id is not None),
        {"id": marker, "viewer": viewer.project_id},
    ).one_or_none()
    if row is None:
        raise errors.MarkerNotFound(marker=marker)
    return {f"key{number}": value for number, value in enumerate(row)}


@lru_cache(maxsize=64)
def _keys_of_one(sort: tuple[tuple[str, bool], ...], is_admin: bool, has_project: bool) -> Select:
    return sa.select(*(SORT_KEYS[name](images.c) for name, _ in sort)).where(
        images.c.id == sa.bindparam("id"),
        images.c.deleted == sa.false(),
        rows.is_visible(is_admin=is_admin, has_project=has_project),
    )


def _look_ahead(connection: Connection, shape: Shape, values: dict[str, object]) -> dict[str, int]:
    """The number of matches of each look-up, up to its bound, and about that of all images."""
    statement = _counts(shape)
    if statement is None:
        return {}
    return {row[0]: int(row[1] or 0) for row in connection.execute(statement, values)}


@lru_cache(maxsize=128)
def _counts(shape: Shape) -> sa.CompoundSelect[*tuple[Any, ...]] | None:
    found = dict(counted(shape)) | views_by_lookup(shape)
    if not found:
        return None
    return sa.union_all(
        sa.select(sa.literal_column(f"'{_ALL}'"), estimated_rows(images)),
        *(
            sa.select(sa.literal_column(f"'{name}'"), sa.func.count()).select_from(
                lookup.limit(sa.bindparam(_kind(name), type_=sa.Integer)).subquery()
            )
            for name, lookup in found.items()
        ),
    )


@dataclass(frozen=True, slots=True)
class _Choices:
    """What a plan of a shape is made of, by name.

    ``lookups`` lead to images whoever looks, ``leaders`` are columns with the look-ups of which
    walks may be led.  ``views`` have the column by whose index each is walked, if there is one.
    """

    lookups: list[str]
    leaders: dict[str, str]
    views: dict[str, str | None]


@lru_cache(maxsize=128)
def _choices(shape: Shape) -> _Choices:
    return _Choices(
        lookups=[name for name, _ in lookups(shape)],
        leaders=dict(leaders(shape)),
        views={view.name: view.column for view in views(shape)},
    )


def _plan(
    shape: Shape, counts: Mapping[str, int], limit: int, bounds: Mapping[str, int]
) -> tuple[Way, ...]:
    """What is to lead to the images of each view."""
    choices = _choices(shape)
    few = _few(counts, limit, bounds)
    rare = [name for name in choices.views if name in few]
    rest = [name for name in choices.views if name not in few]
    least = min(few.intersection(choices.lookups), key=counts.__getitem__, default=None)
    if least is not None and (rest or counts[least] < sum(counts[name] for name in rare)):
        return (Way(tuple(choices.views), lookup=least),)
    ways = [Way((name,), lookup=name) for name in rare]
    walked: dict[str, list[str]] = {}
    for name in rest:
        walked.setdefault(_leading(shape, choices, name, counts), []).append(name)
    for leading, names in walked.items():
        # Along its own index a view is one range of it; along others they are met together.
        together = tuple(name for name in names if choices.views[name] != leading)
        ways += [Way((name,), along=leading) for name in names if name not in together]
        ways += [Way(together, along=leading)] if together else []
    return tuple(ways)


def _few(counts: Mapping[str, int], limit: int, bounds: Mapping[str, int]) -> set[str]:
    """The look-ups that are better collected than waited for on a walk.

    Of all images a walk tests limit * all / matches, collecting looks at each match.
    """
    known = counts.get(_ALL, 0)
    worth = isqrt(limit * known) if known > 0 else max(bounds.values())
    most = {kind: min(bound, worth * bound // bounds["few"]) for kind, bound in bounds.items()}
    return {name for name in counts if name != _ALL and counts[name] < most[_kind(name)]}


def _bounds(shape: Shape, few: int) -> dict[str, int]:
    """How many matches are counted at most, by the kind of the look-up.

    A filter leads to entries of its column's index, which have who may see an image beside them.
    Where a walk would meet the images of others, too, more of these are worth a look.
    """
    is_thin = not shape.is_admin and shape.sort[0][0] != "created_at"
    return {"few": few, "few_entries": few * 4 if is_thin else few}


def _kind(lookup: str) -> str:
    """Which bound is that of a look-up."""
    return "few_entries" if lookup.startswith("filter") else "few"


def _leading(shape: Shape, choices: _Choices, view: str, counts: Mapping[str, int]) -> str:
    """The column by whose index, headrace_images_<column>, a view is walked in its order."""
    first = shape.sort[0][0]
    if first != "created_at":
        return first
    equal = {column: counts[name] for column, name in choices.leaders.items()}
    own = choices.views[view]
    if own is not None:
        equal.setdefault(own, counts.get(view, 0))
    return min(equal, key=lambda column: (equal[column], LEADING.index(column)), default=first)
