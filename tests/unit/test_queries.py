"""Query strings of a list."""

import contextlib
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import errors
from headrace.api.queries import Pairs, image_query, page_link
from headrace.model import Filter, Op


def parse(*pairs: tuple[str, str]) -> Any:
    return image_query(list(pairs), 25, 1000)


def test_defaults() -> None:
    query = parse()
    assert (query.limit, query.marker, query.sort) == (25, None, (("created_at", True),))
    assert (query.visibility, query.member_status, query.os_hidden) == (None, "accepted", False)


@pytest.mark.parametrize(
    ("pairs", "sort"),
    [
        ([("sort_key", "name")], (("name", True),)),
        ([("sort_key", "name"), ("sort_dir", "asc")], (("name", False),)),
        (
            [("sort_key", "name"), ("sort_key", "size"), ("sort_dir", "asc")],
            (("name", False), ("size", False)),
        ),
        ([("sort", "name:asc,size,id:desc")], (("name", False), ("size", True), ("id", True))),
    ],
)
def test_sort(pairs: Pairs, sort: tuple[tuple[str, bool], ...]) -> None:
    assert parse(*pairs).sort == sort


def test_a_key_sorted_by_twice_counts_where_it_stands_first() -> None:
    assert parse(("sort", "name:asc,size,name:desc")).sort == (("name", False), ("size", True))


@pytest.mark.parametrize(
    ("pair", "condition"),
    [
        (("name", "a:b"), None),
        (("name", "eq:x"), Filter("name", Op.EQ, "x")),
        (("name", "x"), Filter("name", Op.EQ, "x")),
        (("status", "in:active,queued"), Filter("status", Op.IN, ("active", "queued"))),
        (("name", 'in:"a,b",c'), Filter("name", Op.IN, ("a,b", "c"))),
        (("name", 'in:"a\\"b",c\\"\\,d,'), Filter("name", Op.IN, ('a"b', 'c",d', ""))),
        (("size_min", "5"), Filter("size", Op.GTE, 5)),
        (("min_ram_max", "5"), Filter("min_ram", Op.LTE, 5)),
        (("size", "5"), Filter("size", Op.EQ, 5)),
        (("owner", "in:x"), Filter("owner", Op.EQ, "in:x")),
        (("protected", "true"), Filter("protected", Op.EQ, True)),
        (
            ("created_at", "gte:2026-01-02T03:04:05Z"),
            Filter("created_at", Op.GTE, datetime(2026, 1, 2, 3, 4, 5)),
        ),
        (
            ("updated_at", "lt:2026-01-02T03:04:05+02:00"),
            Filter("updated_at", Op.LT, datetime(2026, 1, 2, 1, 4, 5)),
        ),
        (
            ("updated_at", "2026-01-02T03:04:05"),
            Filter("updated_at", Op.EQ, datetime(2026, 1, 2, 3, 4, 5)),
        ),
    ],
)
def test_conditions(pair: tuple[str, str], condition: Filter | None) -> None:
    if condition is None:
        with pytest.raises(errors.InvalidQuery):
            parse(pair)
    else:
        assert parse(pair).filters == (condition,)


@pytest.mark.parametrize(
    "pair",
    [
        ("limit", "x"),
        ("limit", "-1"),
        ("limit", "9" * 5000),
        ("marker", ""),
        ("sort_key", "owner"),
        ("sort_dir", "up"),
        ("sort", "name:up"),
        ("visibility", "everyone"),
        ("member_status", "maybe"),
        ("os_hidden", "1"),
        ("protected", "True"),
        ("size_min", "1.5"),
        ("size", "99999999999999999999"),
        ("created_at", "gt:yesterday"),
        ("created_at", "in:2026-01-01"),
        ("name", 'in:"a'),
        ("name", 'in:a"b'),
        ("name", 'in:"a"b'),
        ("name", 'in:"a",b"'),
        ("name", "in:a\\"),
        ("changes-since", "2026-01-01"),
    ],
)
def test_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(errors.InvalidQuery):
        parse(pair)


def test_refused_together() -> None:
    with pytest.raises(errors.InvalidQuery):
        parse(("sort", "name"), ("sort_key", "name"))
    with pytest.raises(errors.InvalidQuery):
        parse(("sort_key", "name"), ("sort_key", "id"), ("sort_dir", "asc"), ("sort_dir", "asc"),
              ("sort_dir", "asc"))  # fmt: skip


def test_limits() -> None:
    assert parse(("limit", "0")).limit == 0
    assert parse(("limit", "100000")).limit == 1000


def test_anything_else_is_a_property_or_a_tag() -> None:
    query = parse(("os_distro", "debian"), ("tag", "a"), ("tag", "b"), ("deleted", "true"))
    assert query.properties == {"os_distro": "debian"}
    assert query.tags == ("a", "b")


def test_links_keep_repeated_parameters_and_drop_the_marker() -> None:
    pairs = [("tag", "a b"), ("tag", "c"), ("marker", "x"), ("limit", "2")]
    assert page_link("/v2/images", pairs, None) == "/v2/images?tag=a+b&tag=c&limit=2"
    assert page_link("/v2/images", pairs, "y") == "/v2/images?tag=a+b&tag=c&limit=2&marker=y"
    assert page_link("/v2/images", [], None) == "/v2/images"


names = st.sampled_from(["limit", "sort", "sort_key", "name", "size_min", "created_at", "x", "tag"])


@given(st.lists(st.tuples(names, st.text(max_size=30))))
def test_only_our_error_is_raised(pairs: Pairs) -> None:
    with contextlib.suppress(errors.InvalidQuery):
        image_query(pairs, 25, 1000)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_at_the_ends_of_the_calendar(text: str) -> None:
    with pytest.raises(errors.InvalidQuery):
        parse(("created_at", f"gt:{text}"))


def test_a_list_has_only_so_many_conditions() -> None:
    parse(*((f"p{number}", "x") for number in range(32)))
    with pytest.raises(errors.InvalidQuery):
        parse(*((f"p{number}", "x") for number in range(33)))
    with pytest.raises(errors.InvalidQuery):
        parse(*(("tag", str(number)) for number in range(33)))
