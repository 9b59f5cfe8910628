"""Student's t as the tables have it, and intervals worked out by hand."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench.stats import Goal, Interval, interval, percentile, t_quantile

levels = st.floats(0.01, 0.999)
freedoms = st.integers(1, 60)
values = st.lists(st.floats(1, 1e6), min_size=2, max_size=30)


@pytest.mark.parametrize(
    ("level", "freedom", "published"),
    [
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 3, 3.182),
        (0.95, 4, 2.776),
        (0.95, 5, 2.571),
        (0.95, 9, 2.262),
        (0.95, 10, 2.228),
        (0.95, 19, 2.093),
        (0.95, 29, 2.045),
        (0.95, 30, 2.042),
        (0.95, 120, 1.980),
        (0.99, 1, 63.657),
        (0.99, 2, 9.925),
        (0.99, 3, 5.841),
        (0.99, 4, 4.604),
        (0.99, 5, 4.032),
        (0.99, 9, 3.250),
        (0.99, 10, 3.169),
        (0.99, 19, 2.861),
        (0.99, 29, 2.756),
        (0.99, 30, 2.750),
        (0.99, 120, 2.617),
        (0.90, 1, 6.314),
        (0.90, 4, 2.132),
        (0.50, 1, 1.000),
        (0.50, 2, 0.816),
    ],
)
def test_published_quantiles(level: float, freedom: int, published: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(published, abs=0.0005)


@given(levels)
def test_one_degree_of_freedom_is_cauchys_distribution(level: float) -> None:
    assert t_quantile(level, 1) == pytest.approx(math.tan(math.pi / 2 * level), rel=1e-9)


@given(levels)
def test_two_degrees_of_freedom_have_a_formula(level: float) -> None:
    assert t_quantile(level, 2) == pytest.approx(level * math.sqrt(2 / (1 - level**2)), rel=1e-9)


@given(levels, freedoms)
def test_the_density_adds_up_to_the_level(level: float, freedom: int) -> None:
    """Simpson's rule over t = sqrt(freedom) * tan(angle), where the density is a power of cos."""
    angle = math.atan(t_quantile(level, freedom) / math.sqrt(freedom))
    steps = 400
    heights = [math.cos(angle * step / steps) ** (freedom - 1) for step in range(steps + 1)]
    area = heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
    whole = math.sqrt(math.pi) * math.gamma(freedom / 2) / math.gamma((freedom + 1) / 2)
    assert 2 * area * angle / steps / 3 / whole == pytest.approx(level, rel=1e-7)


@given(levels, levels, freedoms)
def test_more_confidence_takes_more_room(first: float, second: float, freedom: int) -> None:
    low, high = sorted((first, second))
    if high - low > 1e-9:
        assert 0 < t_quantile(low, freedom) < t_quantile(high, freedom)


@given(levels)
def test_more_runs_take_less_room_and_end_at_the_normal_distribution(level: float) -> None:
    found = [t_quantile(level, freedom) for freedom in (1, 2, 3, 4, 5, 8, 13, 30, 100)]
    assert all(before > after for before, after in pairwise(found))
    assert math.erf(found[-1] / math.sqrt(2)) > level


@pytest.mark.parametrize("level", [5e-324, 1e-12, 1 - 2**-53])
@pytest.mark.parametrize("freedom", [1, 2, 29, 30])
def test_levels_at_the_edge(level: float, freedom: int) -> None:
    assert 0 <= t_quantile(level, freedom) < math.inf


@pytest.mark.parametrize("level", [0, 1, -0.5, 1.5, 95, math.nan, math.inf])
def test_no_level(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_quantile(level, 4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval([1.0], level)


@pytest.mark.parametrize("freedom", [0, -1, 1.5])
def test_no_degrees_of_freedom(freedom: float) -> None:
    with pytest.raises(ValueError, match="whole number from 1"):
        t_quantile(0.95, freedom)  # type: ignore[arg-type]


def test_an_interval_of_five() -> None:
    """Deviations of -2 to 2: a variance of 10/4, and t is 2.776 at four degrees of freedom."""
    found = interval([98.0, 99.0, 100.0, 101.0, 102.0], 0.95)
    assert (found.mean, found.count) == (100.0, 5)
    assert found.half_width == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)
    assert found.width_percent == pytest.approx(3.92649, rel=1e-5)


def test_an_interval_of_two() -> None:
    """The standard error is half the distance of the two."""
    found = interval([10.0, 12.0], 0.99)
    assert (found.mean, found.count) == (11.0, 2)
    assert found.half_width == pytest.approx(63.6567, rel=1e-6)
    assert found.width_percent == pytest.approx(200 * 63.6567 / 11, rel=1e-6)


def test_an_interval_of_three() -> None:
    """1, 2 and 6: a mean of 3, a variance of (4 + 1 + 9) / 2."""
    found = interval([1, 2, 6], 0.95)
    assert (found.mean, found.count) == (3.0, 3)
    assert found.half_width == pytest.approx(4.302653 * math.sqrt(7 / 3), rel=1e-6)


def test_equal_values_leave_no_doubt() -> None:
    found = interval([0.1] * 7, 0.99)
    assert found.mean == pytest.approx(0.1)
    assert (found.half_width, found.width_percent, found.count) == (0.0, 0.0, 7)


def test_one_value_says_nothing() -> None:
    found = interval([5.0], 0.95)
    assert found == Interval(5.0, math.inf, 1)
    assert found.width_percent == math.inf


def test_no_values() -> None:
    with pytest.raises(ValueError, match="no values"):
        interval([], 0.95)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        interval([1.0, value], 0.95)


@pytest.mark.parametrize(
    ("mean", "half_width", "expected"),
    [
        (100.0, 2.5, 5.0),
        (-100.0, 2.5, 5.0),
        (0.0, 0.0, 0.0),
        (0.0, 1.0, math.inf),
        (0.0, math.inf, math.inf),
        (1.0, math.inf, math.inf),
    ],
)
def test_width_in_percent(mean: float, half_width: float, expected: float) -> None:
    assert Interval(mean, half_width, 3).width_percent == expected


@given(values, st.sampled_from([0.95, 0.99]), st.floats(0.01, 100))
def test_the_unit_does_not_matter(values: list[float], level: float, factor: float) -> None:
    found = interval(values, level)
    scaled = interval([value * factor for value in values], level)
    assert scaled.mean == pytest.approx(found.mean * factor)
    assert scaled.width_percent == pytest.approx(found.width_percent, abs=1e-9)
    assert min(values) <= found.mean * (1 + 1e-12)
    assert found.mean <= max(values) * (1 + 1e-12)


@given(values)
def test_a_higher_level_is_wider(values: list[float]) -> None:
    likely, surely = interval(values, 0.95), interval(values, 0.99)
    assert likely.mean == surely.mean
    assert likely.half_width <= surely.half_width


@given(values)
def test_the_same_again_is_narrower(values: list[float]) -> None:
    once, twice = interval(values, 0.95), interval(values * 2, 0.95)
    assert twice.half_width <= once.half_width


STEADY = [98.0, 99.0, 100.0, 101.0, 102.0]  # 3.93 % wide at 95 %, 6.51 % at 99 %
GOAL = Goal(level=0.95, width_percent=5.0, at_least=3, at_most=10)


def test_a_goal_is_reached() -> None:
    assert GOAL.reached(STEADY)
    assert GOAL.reached(STEADY, [7.0] * 5)


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        (Goal(0.95, 3.93, 3, 10), True),
        (Goal(0.95, 3.92, 3, 10), False),
        (Goal(0.99, 6.52, 3, 10), True),
        (Goal(0.99, 6.51, 3, 10), False),
        (Goal(0.95, 5.0, 5, 10), True),
        (Goal(0.95, 5.0, 6, 10), False),
    ],
)
def test_the_bounds_of_a_goal(goal: Goal, expected: bool) -> None:
    assert goal.reached(STEADY) is expected


def test_every_series_has_to_reach_the_goal() -> None:
    assert not GOAL.reached(STEADY, [90.0, 95.0, 100.0, 105.0, 110.0])
    assert not GOAL.reached(STEADY, [7.0, 7.0])
    assert not GOAL.reached(STEADY, [])


def test_nothing_reaches_no_goal() -> None:
    assert not GOAL.reached()
    assert not Goal(0.95, 5.0, 0, 0).reached([])


def test_a_single_run_reaches_no_goal_and_is_all_there_is() -> None:
    single = Goal(0.95, 5.0, 1, 1)
    assert not single.reached([100.0])
    assert single.exhausted(1)


@pytest.mark.parametrize(("count", "expected"), [(0, False), (9, False), (10, True), (11, True)])
def test_a_goal_is_exhausted(count: int, expected: bool) -> None:
    assert GOAL.exhausted(count) is expected


@given(st.lists(st.floats(1, 1e6), max_size=30), st.floats(0.1, 50), st.floats(0.1, 50))
def test_what_reaches_a_narrow_goal_reaches_a_wide_one(
    values: list[float], first: float, second: float
) -> None:
    narrow, wide = sorted((first, second))
    if Goal(0.99, narrow, 3, 30).reached(values):
        assert Goal(0.99, wide, 3, 30).reached(values)
        assert Goal(0.95, narrow, 3, 30).reached(values)


@pytest.mark.parametrize(
    ("share", "value"), [(0.01, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.76, 4), (1.0, 4)]
)
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == value
    assert percentile([7.0], share) == 7.0
