"""How far the mean of a few runs can be trusted: confidence intervals by Student's t."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean of ``count`` values, and how far from it, either way, the true one may lie."""

    mean: float
    half_width: float
    count: int

    @property
    def width_percent(self) -> float:
        """The full width over the mean, in percent: 5.0 is 2.5 % either way."""
        if self.half_width == 0:
            return 0.0
        if self.mean == 0:
            return math.inf
        return 200 * self.half_width / abs(self.mean)


@dataclass(frozen=True, slots=True)
class Goal:
    """When a test has been run often enough.

    ``level`` is a probability; ``width_percent`` is the full width of the interval, in percent of
    the mean; ``at_least`` and ``at_most`` are numbers of runs.
    """

    level: float
    width_percent: float
    at_least: int
    at_most: int

    def reached(self, *series: Sequence[float]) -> bool:
        """Whether every series has ``at_least`` values and is within the width; False of none.

        One value has an infinite interval: a single run reaches no goal.
        """
        return bool(series) and all(self._holds(values) for values in series)

    def exhausted(self, count: int) -> bool:
        """Whether no further run is allowed after ``count``."""
        return count >= self.at_most

    def _holds(self, values: Sequence[float]) -> bool:
        if len(values) < max(self.at_least, 1):
            return False
        return interval(values, self.level).width_percent <= self.width_percent


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that ``share`` of the sorted ``values``, 0 < share <= 1, do not exceed."""
    return values[math.ceil(share * len(values)) - 1]


def interval(values: Sequence[float], level: float) -> Interval:
    """The interval that holds the true mean with probability ``level``.

    Of one value it is infinite.  Raises ValueError of none, of a value that is not finite and of a
    level outside 0 to 1.
    """
    if not values:
        raise ValueError("no values")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    _check_level(level)
    count = len(values)
    mean = statistics.fmean(values)
    if count == 1:
        return Interval(mean, math.inf, count)
    error = statistics.stdev(values) / math.sqrt(count)
    return Interval(mean, t_quantile(level, count - 1) * error, count)


def t_quantile(level: float, freedom: int) -> float:
    """The t for which a variable of Student's distribution is within ±t with probability ``level``.

    ``freedom`` is the number of degrees of freedom; the time taken grows with it.  Raises
    ValueError unless 0 < level < 1 and freedom is a whole number from 1.
    """
    _check_level(level)
    if freedom < 1 or freedom != int(freedom):
        raise ValueError(f"degrees of freedom are a whole number from 1, not {freedom}")
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _within(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(middle)


def _check_level(level: float) -> None:
    if not 0 < level < 1:  # neither is NaN
        raise ValueError(f"a level lies between 0 and 1, not at {level}")


def _within(angle: float, freedom: int) -> float:
    """The probability of lying within ±t, where t is sqrt(freedom) * tan(angle).

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 (odd) and 26.7.4 (even): for
    whole degrees of freedom the distribution is a finite sum, here each term from the one before.
    """
    odd = freedom % 2
    square = math.cos(angle) ** 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for divisor in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (divisor - 1) / divisor
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total
