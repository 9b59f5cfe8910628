"""Sizes, pairs, lengths and rates as netperf has them, and UsageError for anything else."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench import units
from headrace.bench.units import Length, Rate
from headrace.errors import UsageError

SUFFIXES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "k": 10**3, "m": 10**6, "g": 10**9}
PARSERS: list[Callable[[str], object]] = [
    units.size,
    units.pair,
    units.span,
    units.length,
    units.iterations,
    units.confidence,
]

sizes = st.integers(0, units.SIZE_MAX)
positive_sizes = st.integers(1, units.SIZE_MAX)
# Next to nothing of st.text() is nearly right.
nearly = st.text("0123456789KMGkmg.,-+_ \n٣½")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("007", 7),
        ("4K", 4096),
        ("64K", 65536),
        ("16M", 16777216),
        ("1G", 1073741824),
        ("4k", 4000),
        ("10m", 10000000),
        ("1g", 1000000000),
        ("0G", 0),
        ("4611686018427387904", 2**62),
        ("4294967296G", 2**62),
        pytest.param("0" * 5000 + "5K", 5120, id="zeros"),
    ],
)
def test_a_size(text: str, expected: int) -> None:
    assert units.size(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "K",
        "-1",
        "+1",
        "1.5K",
        "1e3",
        "1_000",
        "0x10",
        " 1",
        "1 ",
        "1\n",
        "1 K",
        "1KB",
        "1KK",
        "1T",
        "٣",
        "3K٣",
        "²",
        "1\0",
        "\ud800",
    ],
)
def test_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="expected a size"):
        units.size(text)


@pytest.mark.parametrize(
    "text", ["4611686018427387905", "4294967297G", pytest.param("9" * 5000, id="endless")]
)
def test_a_size_has_a_bound(text: str) -> None:
    with pytest.raises(UsageError, match="at most 4611686018427387904 bytes"):
        units.size(text)


@given(sizes, st.sampled_from(sorted(SUFFIXES)))
def test_a_size_is_its_digits_times_its_suffix(number: int, suffix: str) -> None:
    unit = SUFFIXES[suffix]
    assert units.size(f"{number // unit}{suffix}") == number // unit * unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("32K", (32768, 32768)),
        ("32K,1m", (32768, 1000000)),
        ("32K,", (32768, None)),
        (",1m", (None, 1000000)),
        ("0,0", (0, 0)),
    ],
)
def test_a_pair(text: str, expected: tuple[int | None, int | None]) -> None:
    assert units.pair(text) == expected


@pytest.mark.parametrize("text", ["", ",", "1,2,3", ",,", "1,,", "a,1", "1,a", "1, 2", "1;2"])
def test_no_pair(text: str) -> None:
    with pytest.raises(UsageError):
        units.pair(text)


@given(st.none() | sizes, st.none() | sizes)
def test_a_pair_is_read_back(first: int | None, second: int | None) -> None:
    text = ",".join("" if each is None else str(each) for each in (first, second))
    if text == ",":
        with pytest.raises(UsageError, match="at least one"):
            units.pair(text)
    else:
        assert units.pair(text) == (first, second)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4K..16M", (4096, 16777216)), ("1..1", (1, 1)), ("1k..1K", (1000, 1024))],
)
def test_a_span(text: str, expected: tuple[int, int]) -> None:
    assert units.span(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("4K", "expected two sizes"),
        ("", "expected two sizes"),
        ("4K.16M", "expected two sizes"),
        ("4K-16M", "expected two sizes"),
        ("..", "expected a size"),
        ("4K..", "expected a size"),
        ("..16M", "expected a size"),
        ("4K...16M", "expected a size"),
        ("1..2..3", "expected a size"),
        ("16M..4K", "larger than the second"),
        ("1K..1k", "larger than the second"),
        ("0..4K", "cannot start at 0"),
    ],
)
def test_no_span(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        units.span(text)


@given(positive_sizes, positive_sizes)
def test_a_span_goes_up(first: int, second: int) -> None:
    low, high = sorted((first, second))
    assert units.span(f"{low}..{high}") == (low, high)
    if low < high:
        with pytest.raises(UsageError):
            units.span(f"{high}..{low}")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (4096, 32768, [4096, 8192, 16384, 32768]),
        (1, 1, [1]),
        (1, 2, [1, 2]),
        (3, 20, [3, 6, 12, 20]),
        (5, 9, [5, 9]),
    ],
)
def test_doublings(low: int, high: int, expected: list[int]) -> None:
    assert units.doublings(low, high) == expected


@given(positive_sizes, positive_sizes)
def test_doublings_fill_their_span(first: int, second: int) -> None:
    low, high = sorted((first, second))
    found = units.doublings(low, high)
    assert (found[0], found[-1]) == (low, high)
    assert all(after == 2 * before for before, after in pairwise(found[:-1]))
    assert all(before < after <= 2 * before for before, after in pairwise(found))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (2, 1), (-1, 1)])
def test_doublings_of_no_span(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="no span"):
        units.doublings(low, high)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", Length(10.0, None)),
        ("0.25", Length(0.25, None)),
        ("2147483", Length(2147483.0, None)),
        ("-1G", Length(None, 1073741824)),
        ("-1048576", Length(None, 1048576)),
        ("-1", Length(None, 1)),
    ],
)
def test_a_length(text: str, expected: Length) -> None:
    assert units.length(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "0",
        "0.0",
        "-0",
        "-0K",
        "--1",
        "+1",
        "-1.5",
        ".5",
        "5.",
        "1G",
        "1e3",
        "1,5",
        "nan",
        "inf",
        "infinity",
        "2147484",
        pytest.param("9" * 5000, id="endless"),
        pytest.param("0." + "0" * 5000 + "1", id="tiny"),
        "٣",
    ],
)
def test_no_length(text: str) -> None:
    with pytest.raises(UsageError):
        units.length(text)


@given(st.integers(1, units.SECONDS_MAX * 1000))
def test_seconds_are_read_back(milliseconds: int) -> None:
    text = f"{milliseconds / 1000:.3f}"
    assert units.length(text) == Length(milliseconds / 1000, None)


@given(positive_sizes)
def test_bytes_are_read_back(count: int) -> None:
    assert units.length(f"-{count}") == Length(None, count)


@pytest.mark.parametrize(
    ("letter", "label", "expected"),
    [
        ("G", "GBytes/s", 2.0),
        ("M", "MBytes/s", 2048.0),
        ("K", "KBytes/s", 2097152.0),
        ("g", "10^9bits/s", 17.179869184),
        ("m", "10^6bits/s", 17179.869184),
        ("k", "10^3bits/s", 17179869.184),
    ],
)
def test_a_rate(letter: str, label: str, expected: float) -> None:
    rate = Rate(letter)
    assert rate.label == label
    assert rate.of(5 * 2**32, 10.0) == pytest.approx(expected, rel=1e-12)


def test_the_letters_of_rates() -> None:
    assert "".join(Rate) == "GMKgmk"


@given(st.sampled_from(Rate), st.floats(1, 1e15), st.floats(1e-3, 1e6))
def test_a_rate_is_proportional(rate: Rate, moved: float, seconds: float) -> None:
    found = rate.of(moved, seconds)
    assert rate.of(2 * moved, seconds) == pytest.approx(2 * found)
    assert rate.of(moved, 2 * seconds) == pytest.approx(found / 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30,3", (3, 30)),
        ("3,30", (3, 30)),
        ("10,10", (10, 10)),
        ("5", (5, 5)),
        ("1", (1, 1)),
        ("1,1", (1, 1)),
        ("030,03", (3, 30)),
    ],
)
def test_iterations(text: str, expected: tuple[int, int]) -> None:
    assert units.iterations(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "30,",
        ",3",
        "0",
        "2",
        "31",
        "31,3",
        "30,2",
        "30,1",
        "1,3",
        "-3",
        "3.0",
        "3K",
        "5,4,3",
        "5, 4",
        "٣",
        pytest.param("9" * 5000, id="endless"),
    ],
)
def test_no_iterations(text: str) -> None:
    with pytest.raises(UsageError):
        units.iterations(text)


@given(st.integers(0, 40), st.integers(0, 40))
def test_iterations_in_either_order(first: int, second: int) -> None:
    low, high = sorted((first, second))
    if low == high == 1 or 3 <= low <= high <= 30:
        assert units.iterations(f"{first},{second}") == (low, high)
    else:
        with pytest.raises(UsageError):
            units.iterations(f"{first},{second}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("99,5", (0.99, 5.0)),
        ("95,10", (0.95, 10.0)),
        ("95,2.5", (0.95, 2.5)),
        ("99", (0.99, 5.0)),
        ("95", (0.95, 5.0)),
    ],
)
def test_a_confidence(text: str, expected: tuple[float, float]) -> None:
    assert units.confidence(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        ",5",
        "99,",
        "90",
        "90,5",
        "0.99,5",
        "99.0,5",
        "99,0",
        "99,0.0",
        "99,-5",
        "99,5%",
        "99,5,5",
        "99, 5",
        "99,nan",
        "99,inf",
        pytest.param("99," + "9" * 5000, id="endless"),
        pytest.param("99,0." + "0" * 5000 + "1", id="tiny"),
        "٩٩",
    ],
)
def test_no_confidence(text: str) -> None:
    with pytest.raises(UsageError):
        units.confidence(text)


@given(st.sampled_from(["95", "99"]), st.integers(1, 10**6))
def test_a_confidence_is_read_back(level: str, thousandths: int) -> None:
    level_found, width = units.confidence(f"{level},{thousandths / 1000:.3f}")
    assert level_found == int(level) / 100
    assert width == thousandths / 1000


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(text=st.text() | nearly | st.from_regex(r"\A[0-9]+[KMG]?(,|\.\.)?[0-9]*[kmg]?\Z"))
def test_any_text_is_read_or_a_usage_error(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except UsageError as error:
        reason = str(error)
    else:
        reason = ""
    assert reason.isprintable()
    assert len(reason) < 800
