"""The order of a list, and what of it lies behind a marker (keyset paging).

What lies behind the marker is one range of an index only while all keys are columns sorted the same
way; otherwise it is two, and two walks.

NULLs sort differently on each database.  Nullable keys are compared as empty or 0, which is
indexed; MySQL and MariaDB, where it is not, walk along the NULLs and all others apart.
"""

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from headrace.db.hints import in_range
from headrace.db.schema import images
from headrace.db.shape import Condition, Shape

Key = Callable[[Any], sa.ColumnElement[Any]]

# Literals, not parameters: an index on an expression serves only that very expression.
_EMPTY = sa.literal_column("''", sa.String)
_ZERO = sa.literal_column("0", sa.BigInteger)


def plain(name: str) -> Key:
    return lambda columns: columns[name]


def _or_empty(name: str) -> Key:
    return lambda columns: sa.func.coalesce(columns[name], _EMPTY)


_COLUMN_KEYS = {name: plain(name) for name in ("status", "id", "created_at")}
EXPRESSION_KEYS: dict[str, Key] = {
    **{name: _or_empty(name) for name in ("name", "container_format", "disk_format")},
    "size": lambda columns: sa.func.coalesce(columns["size"], _ZERO),
    "updated_at": lambda columns: sa.func.coalesce(columns["updated_at"], columns["created_at"]),
}
SORT_KEYS = _COLUMN_KEYS | EXPRESSION_KEYS
_KEYS_OF_NULL: dict[str, Key] = {
    **{name: lambda _columns: _EMPTY for name in ("name", "container_format", "disk_format")},
    "size": lambda _columns: _ZERO,
    "updated_at": plain("created_at"),
}


def order(shape: Shape, columns: Any, keys: dict[str, Key] = SORT_KEYS) -> list[Any]:
    """What to ORDER BY."""
    return [
        keys[name](columns).desc() if descending else keys[name](columns).asc()
        for name, descending in shape.sort
    ]


def behind(shape: Shape) -> Condition:
    """What lies behind the marker, whose sort keys are the parameters key0, key1, …"""
    return sa.or_(*(found for found, _ in _ranges(shape, SORT_KEYS)))


def stretches(shape: Shape) -> Iterator[tuple[Condition, list[Any]]]:
    """What lies behind the marker, in ranges of an index that have no image in common.

    Each with its own order: without the keys that are the same throughout (SQLite does not see that
    for itself when they are expressions).  Everything, if there is no marker.
    """
    for piece, keys, same in _pieces(shape):
        by = order(shape, images.c, keys)
        for found, settled in _ranges(shape, keys):
            yield piece & found, by[max(same, settled) :]


def _pieces(shape: Shape) -> Iterator[tuple[Condition, dict[str, Key], int]]:
    """What is walked apart, by which keys, and how many of them are the same throughout."""
    first = shape.sort[0][0]
    if not (shape.splits_nulls and first in EXPRESSION_KEYS):
        yield sa.true(), SORT_KEYS, 0
        return
    column = images.c[first]
    yield column.is_not(None), SORT_KEYS | {first: plain(first)}, 0
    of_null = _KEYS_OF_NULL[first]
    yield column.is_(None), SORT_KEYS | {first: of_null}, 0 if first == "updated_at" else 1


def _ranges(shape: Shape, keys: dict[str, Key]) -> Iterator[tuple[Condition, int]]:
    """Ranges behind the marker, each with the number of leading keys that are the same in it."""
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


def _behind(terms: list[_Term]) -> Condition:
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
