"""From a query string to an ImageQuery, and back to the links of a page."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlencode

from headrace import errors
from headrace.model import Filter, ImageQuery, NamespaceQuery, Op, Paging, Visibility

NAMESPACE_SORT_KEYS = frozenset(
    {"namespace", "display_name", "visibility", "owner", "created_at", "updated_at", "id"}
)
PART_SORT_KEYS = frozenset({"name", "created_at", "updated_at", "id"})
SORT_KEYS = frozenset(
    {
        "name", "status", "container_format", "disk_format", "size", "id", "created_at",
        "updated_at",
    }
)  # fmt: skip
INTEGERS = frozenset({"size", "virtual_size", "min_ram", "min_disk"})
TEXTS_WITH_IN = frozenset({"name", "status", "id", "container_format", "disk_format"})
TEXTS = frozenset({"owner", "checksum", "os_hash_algo", "os_hash_value"})
TIMES = frozenset({"created_at", "updated_at"})
# Each is a join or a subquery of one statement, compiled and kept for the next list like it.
_MOST_CONDITIONS = 32
_TIME_OPS = frozenset(Op) - {Op.IN}
MEMBER_STATUS = frozenset({"pending", "accepted", "rejected", "all"})

# What may follow in a comma list: "quoted", or bare up to the next comma.
_ITEM = re.compile(r',(?:"((?:[^"\\]|\\.)*)"|((?:[^",\\]|\\.)*))(?=,|\Z)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

Pairs = list[tuple[str, str]]


def image_query(pairs: Pairs, default_limit: int, max_limit: int) -> ImageQuery:
    """What the (name, value) pairs of a query string ask for; raises InvalidQuery."""
    given = dict(pairs)
    filters: list[Filter] = []
    properties: dict[str, str] = {}
    for name, value in pairs:
        if name in _CONTROLS or name == "deleted":
            continue
        if name == "changes-since":
            raise errors.InvalidQuery(name=name, reason="withdrawn; use updated_at=gte:…")
        condition = _filter(name, value)
        if condition is None:
            properties[name] = value
        else:
            filters.append(condition)
    tags = tuple(value for name, value in pairs if name == "tag")
    if len(filters) + len(properties) + len(tags) > _MOST_CONDITIONS:
        raise errors.InvalidQuery(name="(all)", reason=f"more than {_MOST_CONDITIONS} conditions")
    return ImageQuery(
        limit=_limit(given.get("limit"), default_limit, max_limit),
        marker=_marker(given),
        sort=_sort(pairs),
        filters=tuple(filters),
        properties=properties,
        tags=tags,
        visibility=_choice(given, "visibility", {*Visibility, "all"}),
        member_status=_choice(given, "member_status", MEMBER_STATUS) or "accepted",
        os_hidden=_boolean("os_hidden", given.get("os_hidden", "false").lower()),
    )


_CONTROLS = frozenset(
    {
        "limit", "marker", "sort", "sort_key", "sort_dir", "tag", "visibility",
        "member_status", "os_hidden",
    }
)  # fmt: skip


def namespace_query(pairs: Pairs, default_limit: int, max_limit: int) -> NamespaceQuery:
    """What a query string asks for of the namespaces of definitions; raises InvalidQuery.

    Parameters that mean nothing are passed over, as Glance does: its clients send some.
    """
    given = dict(pairs)
    types = given.get("resource_types")
    return NamespaceQuery(
        paging=Paging(
            limit=_limit(given.get("limit"), default_limit, max_limit),
            marker=_marker(given),
            sort_key=_choice(given, "sort_key", NAMESPACE_SORT_KEYS) or "created_at",
            descending=_choice(given, "sort_dir", ("asc", "desc")) != "asc",
        ),
        visibility=_choice(given, "visibility", ("public", "private")),
        resource_types=tuple(types.split(",")) if types is not None else (),
    )


def part_paging(pairs: Pairs, max_limit: int, usual: Paging, least: int = 0) -> Paging:
    """Which page of the parts of a namespace a query string asks for; raises InvalidQuery.

    Without a limit that is all of them: a namespace is shown whole, too.
    """
    given = dict(pairs)
    limit = given.get("limit")
    number = None if limit is None else _limit(limit, max_limit, max_limit)
    if number is not None and number < least:
        raise errors.InvalidQuery(name="limit", reason=f"less than {least}")
    sort_key = _choice(given, "sort_key", PART_SORT_KEYS)
    direction = _choice(given, "sort_dir", ("asc", "desc"))
    if sort_key is None and direction is None:
        return replace(usual, limit=number, marker=_marker(given))
    return Paging(
        limit=number,
        marker=_marker(given),
        sort_key=sort_key or "created_at",
        descending=direction != "asc",
    )


def resource_type(pairs: Pairs) -> str | None:
    """The one parameter of a request for a single namespace or property; raises InvalidQuery."""
    for name, _ in pairs:
        if name != "resource_type":
            raise errors.InvalidQuery(name=name, reason="means nothing here")
    return dict(pairs).get("resource_type") or None


def page_link(path: str, pairs: Pairs, marker: str | None) -> str:
    """The path of a page: the query as it came, every repeated parameter kept, at ``marker``."""
    kept = [(name, value) for name, value in pairs if name != "marker"]
    if marker is not None:
        kept.append(("marker", marker))
    return f"{path}?{urlencode(kept)}" if kept else path


def _limit(text: str | None, default: int, most: int) -> int:
    if text is None:
        return min(default, most)
    number = _integer("limit", text)
    if number < 0:
        raise errors.InvalidQuery(name="limit", reason="negative")
    return min(number, most)


def _marker(given: Mapping[str, str]) -> str | None:
    marker = given.get("marker")
    if marker == "":
        raise errors.InvalidQuery(name="marker", reason="empty")
    return marker


def _choice(given: Mapping[str, str], name: str, allowed: Iterable[str]) -> str | None:
    value = given.get(name)
    if value is not None and value not in allowed:
        raise errors.InvalidQuery(name=name, reason=f"not one of {', '.join(sorted(allowed))}")
    return value


def _boolean(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise errors.InvalidQuery(name=name, reason="neither true nor false")
    return text == "true"


def _integer(name: str, text: str) -> int:
    # Nineteen digits are more than a BIGINT holds; int() of a megabyte of digits takes for ever.
    try:
        number = int(text) if len(text) < 20 else None
    except ValueError:
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        raise errors.InvalidQuery(name=name, reason="not an integer")
    return number


def _sort(pairs: Pairs) -> tuple[tuple[str, bool], ...]:
    keys = [value for name, value in pairs if name == "sort_key"]
    directions = [value for name, value in pairs if name == "sort_dir"]
    compact = [value for name, value in pairs if name == "sort"]
    if compact and (keys or directions):
        raise errors.InvalidQuery(name="sort", reason="not together with sort_key or sort_dir")
    if compact:
        parts = [part.strip().partition(":") for part in compact[-1].split(",")]
        order = [(key, direction or "desc") for key, _, direction in parts]
    else:
        keys = keys or ["created_at"]
        directions = directions or ["desc"]
        if len(directions) == 1:
            directions *= len(keys)
        if len(directions) != len(keys):
            raise errors.InvalidQuery(name="sort_dir", reason="as many as sort_key, or one")
        order = list(zip(keys, directions, strict=True))
    for key, direction in order:
        if key not in SORT_KEYS:
            raise errors.InvalidQuery(name="sort_key", reason=f"cannot sort by {key!r}")
        if direction not in ("asc", "desc"):
            raise errors.InvalidQuery(name="sort_dir", reason="neither asc nor desc")
    first_of_each: dict[str, bool] = {}
    for key, direction in order:
        first_of_each.setdefault(key, direction == "desc")
    return tuple(first_of_each.items())


def _filter(name: str, value: str) -> Filter | None:
    """The condition on a column that a parameter means; None for a custom property."""
    if name in TEXTS_WITH_IN:
        return _text_filter(name, value)
    if name in TIMES:
        return _time_filter(name, value)
    if name in TEXTS:
        return Filter(name, Op.EQ, value)
    if name in INTEGERS:
        return Filter(name, Op.EQ, _integer(name, value))
    if name == "protected":
        return Filter(name, Op.EQ, _boolean(name, value))
    column, _, bound = name.rpartition("_")
    if column in INTEGERS and bound in ("min", "max"):
        return Filter(column, Op.GTE if bound == "min" else Op.LTE, _integer(name, value))
    return None


def _text_filter(name: str, value: str) -> Filter:
    operator, colon, operand = value.partition(":")
    if not colon:
        return Filter(name, Op.EQ, value)
    if operator == "eq":
        return Filter(name, Op.EQ, operand)
    if operator == "in":
        return Filter(name, Op.IN, tuple(_listed(name, operand)))
    raise errors.InvalidQuery(name=name, reason=f"operator {operator!r} is neither eq nor in")


def _listed(name: str, text: str) -> list[str]:
    """The items of a comma list; an item holding commas is quoted, a backslash escapes."""
    items: list[str] = []
    rest = f",{text}"
    while rest:
        item = _ITEM.match(rest)
        if item is None:
            raise errors.InvalidQuery(name=name, reason="a quote or backslash out of place")
        quoted, bare = item.groups()
        items.append(_ESCAPED.sub(r"\1", bare if quoted is None else quoted))
        rest = rest[item.end() :]
    return items


def _time_filter(name: str, value: str) -> Filter:
    operator, colon, operand = value.partition(":")
    if colon and operator in _TIME_OPS:
        return Filter(name, Op(operator), _time(name, operand))
    return Filter(name, Op.EQ, _time(name, value))


def _time(name: str, text: str) -> datetime:
    """A time as stored: naive UTC."""
    # The plus sign of a zone offset arrives as a space when a client did not quote it.
    mended = text.strip().replace(" ", "+") if "T" in text else text.strip()
    try:
        moment = datetime.fromisoformat(mended)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise errors.InvalidQuery(name=name, reason="not an ISO 8601 time") from None
