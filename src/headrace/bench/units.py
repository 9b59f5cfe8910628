"""Sizes, pairs, lengths and rates, written as netperf writes them.

    size        = digits [suffix]      K, M, G: 2**10, 2**20, 2**30; k, m, g: 10**3, 10**6, 10**9
    pair        = size | size "," size | size "," | "," size
    span        = size ".." size       from the lower, which is not 0, to the higher
    length      = number | "-" size    seconds, or bytes
    iterations  = count ["," count]    the most and the least runs, in either order
    confidence  = level ["," number]   95 or 99, and the full width of the interval in percent
    number      = digits ["." digits]

netperf reads as far as it understands and moves a number that is out of bounds to the nearest that
is not.  Here either is a UsageError: a figure must be of the test that was asked for.
"""

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from headrace.errors import UsageError

SIZE_MAX = 2**62  # an offset within it plus a size still fits into off_t
SECONDS_MAX = (2**31 - 1) // 1000  # poll() takes milliseconds in a signed 32-bit integer
LEAST_RUNS = 3  # fewer say next to nothing about their spread
MOST_RUNS = 30
LEVELS = {"95": 0.95, "99": 0.99}
DEFAULT_WIDTH = 5.0

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "k": 10**3, "m": 10**6, "g": 10**9}
_SIZE = re.compile(r"([0-9]+)([KMGkmg]?)")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_COUNT = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Length:
    """How long a test runs: for ``seconds`` or until it has moved ``bytes``; the other is None."""

    seconds: float | None
    bytes: int | None


class Rate(StrEnum):
    """The units of a throughput: bytes by powers of two, bits by powers of ten."""

    G = "G"
    M = "M"
    K = "K"
    g = "g"
    m = "m"
    k = "k"

    @property
    def label(self) -> str:
        """The unit as a table's heading has it."""
        return _LABELS[self]

    def of(self, bytes: float, seconds: float) -> float:
        """The throughput in this unit; ``seconds`` is not 0."""
        amount = bytes if self.value.isupper() else bytes * 8
        return amount / seconds / _UNITS[self]


_LABELS = {
    Rate.G: "GBytes/s",
    Rate.M: "MBytes/s",
    Rate.K: "KBytes/s",
    Rate.g: "10^9bits/s",
    Rate.m: "10^6bits/s",
    Rate.k: "10^3bits/s",
}


def size(text: str) -> int:
    """A size in bytes, from 0 to SIZE_MAX."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise _refused(text, "expected a size such as 65536, 64K or 10m")
    digits, suffix = match.groups()
    # int() refuses thousands of digits with an error of its own.
    fits = len(digits.lstrip("0")) <= len(str(SIZE_MAX))
    if not fits or (found := int(digits.lstrip("0") or "0") * _UNITS.get(suffix, 1)) > SIZE_MAX:
        raise _refused(text, f"a size is at most {SIZE_MAX} bytes")
    return found


def pair(text: str) -> tuple[int | None, int | None]:
    """Two sizes: "A" is (A, A), "A," is (A, None), ",B" is (None, B)."""
    first, comma, second = text.partition(",")
    if not comma:
        both = size(first)
        return both, both
    if not (first or second):
        raise _refused(text, "at least one of the two sizes is needed")
    return size(first) if first else None, size(second) if second else None


def span(text: str) -> tuple[int, int]:
    """The ends of a row of sizes, 0 < low <= high."""
    first, dots, second = text.partition("..")
    if not dots:
        raise _refused(text, "expected two sizes such as 4K..16M")
    low, high = size(first), size(second)
    if low == 0:
        raise _refused(text, "a row of doublings cannot start at 0")
    if low > high:
        raise _refused(text, "the first size is larger than the second")
    return low, high


def doublings(low: int, high: int) -> list[int]:
    """``low``, twice that and so on, and ``high`` at the end; ValueError unless 0 < low <= high."""
    if not 0 < low <= high:
        raise ValueError(f"no span of sizes: {low}..{high}")
    sizes = []
    while low < high:
        sizes.append(low)
        low *= 2
    return [*sizes, high]


def length(text: str) -> Length:
    """How long a test runs: seconds where positive, bytes where negative."""
    if text.startswith("-"):
        count = size(text[1:])
        if count == 0:
            raise _refused(text, "a test moves at least one byte")
        return Length(seconds=None, bytes=count)
    seconds = _number(text, "expected seconds, or bytes after a minus sign, such as 10 or -1G")
    if not 0 < seconds <= SECONDS_MAX:
        raise _refused(text, f"a test takes more than 0 and at most {SECONDS_MAX} seconds")
    return Length(seconds=seconds, bytes=None)


def iterations(text: str) -> tuple[int, int]:
    """How often a test is run, as (at_least, at_most); one number is both, (1, 1) a single run."""
    first, comma, second = text.partition(",")
    counts = [first, second] if comma else [first]
    if not all(_COUNT.fullmatch(count) for count in counts):
        raise _refused(text, "expected numbers of runs such as 30,3")
    low, high = min(map(int, counts)), max(map(int, counts))
    if (low, high) != (1, 1) and not LEAST_RUNS <= low <= high <= MOST_RUNS:
        raise _refused(text, f"a test is run once, or {LEAST_RUNS} to {MOST_RUNS} times")
    return low, high


def confidence(text: str) -> tuple[float, float]:
    """A level, as a probability, and the full width of the interval in percent of the mean."""
    percent, comma, width_text = text.partition(",")
    level = LEVELS.get(percent)
    if level is None:
        raise _refused(text, f"the level is one of {', '.join(LEVELS)}")
    if not comma:
        return level, DEFAULT_WIDTH
    width = _number(width_text, "expected a width in percent such as 5 or 2.5")
    if not 0 < width < math.inf:
        raise _refused(text, "the width must be above 0 and finite")
    return level, width


def _number(text: str, expected: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise _refused(text, expected)
    return float(text)


def _refused(text: str, reason: str) -> UsageError:
    shown = text if len(text) <= 60 else text[:59] + "…"
    return UsageError(reason=f"{shown!r}: {reason}")
