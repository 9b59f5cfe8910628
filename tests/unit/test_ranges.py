"""Ranges as the Image API serves them, and nothing but our errors for anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import errors
from headrace.api import ranges

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-999", (0, 1000)),
        ("bytes=10-19", (10, 10)),
        ("bytes=990-5000", (990, 10)),
        ("bytes=500-", (500, 500)),
        ("bytes=-1", (999, 1)),
        ("bytes=-5000", (0, 1000)),
        ("bytes= 1 - 2", (1, 2)),
    ],
)
def test_served(header: str, expected: tuple[int, int]) -> None:
    assert ranges.requested(header, SIZE) == expected


@pytest.mark.parametrize(
    "header",
    [
        "bytes=1000-",
        "bytes=1000-1001",
        "bytes=20-10",
        "bytes=-0",
        "bytes=-",
        "",
        "bytes=",
        "bytes=a-b",
        "items=0-1",
        "bytes 0-1",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes=" + "9" * 200 + "-",
        "bytes=٣-٤",
    ],
)
def test_not_satisfiable(header: str) -> None:
    with pytest.raises(errors.RangeNotSatisfiable):
        ranges.requested(header, SIZE)


def test_several_ranges_are_refused() -> None:
    with pytest.raises(errors.BadRequest):
        ranges.requested("bytes=0-1,5-6", SIZE)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=0-0"])
def test_nothing_of_an_empty_image_can_be_served(header: str) -> None:
    with pytest.raises(errors.RangeNotSatisfiable):
        ranges.requested(header, 0)


@pytest.mark.parametrize(
    ("header", "expected"), [("bytes 0-9/*", (0, 10)), ("bytes 5-5/1000", (5, 1))]
)
def test_legacy_served(header: str, expected: tuple[int, int]) -> None:
    assert ranges.legacy(header, SIZE) == expected


@pytest.mark.parametrize(
    "header", ["bytes 0-1000/*", "bytes */1000", "bytes 9-1/*", "bytes 0-1/999", "junk", ""]
)
def test_legacy_not_satisfiable(header: str) -> None:
    with pytest.raises(errors.RangeNotSatisfiable):
        ranges.legacy(header, SIZE)


@given(st.text(), st.integers(0, 2**70))
def test_what_is_served_lies_within(header: str, size: int) -> None:
    try:
        offset, length = ranges.requested(header, size)
    except (errors.RangeNotSatisfiable, errors.BadRequest):
        return
    assert 0 <= offset < offset + length <= size
