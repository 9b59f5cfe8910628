"""What `headrace bench` is asked for: its words, read and checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace.bench import omni, units
from headrace.bench.spec import (
    BOOT_STORM,
    COPY,
    FROM_FILE,
    IMAGE_TESTS,
    TESTS,
    TO_HERE,
    WAYS,
    Spec,
)
from headrace.bench.stats import Goal
from headrace.cli.netserver import read_secret
from headrace.errors import UsageError

RANGE_SIZE = 1 << 20  # bytes that IMAGE_RANGE asks for
SWEEP = "4K..16M"
COMPARED = 5  # pairs, unless -i says otherwise
MOST_STREAMS = 1024
CLIENTS = "200"  # of a storm


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for: ``cases`` in this order, or two of them in turn."""

    cases: Sequence[Spec]
    compare: bool
    goal: Goal
    host: str | None
    port: int
    secret: bytes | None
    file: str | None
    image: str | None
    far_pids: Sequence[int]
    store_pids: Sequence[int]
    far_file: str | None
    local_cpu: bool
    remote_cpu: bool
    rate: units.Rate
    verbosity: int
    banner: bool
    style: str | None
    """"csv", "columns" or "keys" for figures by name."""
    names: Sequence[str]
    report: str | None

    @property
    def tests(self) -> set[str]:
        return {case.test for case in self.cases}


def wishes(
    given: dict[str, Any], specific: dict[str, Any], *, encrypted: Callable[[], bool]
) -> Wishes:
    """Of the options before ``--`` and of those after it; raises UsageError.

    ``encrypted`` tells whether the service is reached by TLS, through which bytes can only be
    copied; it is not asked where no service is measured.
    """
    compare = given["compare"] is not None
    tests = _tests(given["compare"] if compare else given["tests"], compare=compare)
    cases = _cases(tests, given, specific, encrypted=encrypted)
    if compare and len(cases) != 2:
        raise UsageError(reason="--compare takes two tests, each of one size, way and stream count")
    _check_image_options(given, [test for test, _ in tests])
    level, width = units.confidence(given["confidence"] or "99,5")
    least = most = COMPARED if compare else 1
    if given["iterations"] or given["confidence"]:
        least, most = units.iterations(given["iterations"] or "10,3")
    style, names = _selectors(specific)
    return Wishes(
        cases=cases,
        compare=compare,
        goal=Goal(level, width, least, most),
        host=given["host"],
        port=given["port"],
        secret=read_secret(given["secret_file"]),
        file=given["file"],
        image=given["image"],
        far_pids=given["far_pids"],
        store_pids=given["store_pids"],
        far_file=given["far_file"],
        local_cpu=given["local_cpu"],
        remote_cpu=given["remote_cpu"],
        rate=units.Rate(given["unit"]),
        verbosity=given["verbosity"],
        banner=given["banner"] == "1",
        style=style,
        names=names,
        report=given["report"],
    )


def _tests(text: str, *, compare: bool) -> list[tuple[str, str | None]]:
    """The tests of TEST[:WAY],… with their ways."""
    found: list[tuple[str, str | None]] = []
    for word in text.split(","):
        name, _, way = word.partition(":")
        test = name.strip().upper()
        if test not in TESTS:
            raise UsageError(reason=f"no such test: {name}; there are {', '.join(TESTS)}")
        if way and way not in WAYS.get(test, ()):
            raise UsageError(reason=_no_way(test, way))
        found.append((test, way or None))
    if compare and len(found) != 2:
        raise UsageError(reason="--compare takes two tests")
    return found


def _no_way(test: str, way: str) -> str:
    if test not in WAYS:
        return f"{test} has no ways to choose from"
    return f"{test} goes by {' or '.join(WAYS[test])}, not by {way}"


def _cases(
    tests: Sequence[tuple[str, str | None]],
    given: dict[str, Any],
    specific: dict[str, Any],
    *,
    encrypted: Callable[[], bool],
) -> list[Spec]:
    """Every test by every way, with every number of streams, in every size."""
    template = _template(given, specific)
    streams, sizes = _numbers(given["streams"], "streams"), _sizes(given, specific)
    clients = _numbers(given["clients"], "clients")
    asked = given["via"].split(",") if given["via"] else []
    cases = []
    for test, own in tests:
        case = replace(template, test=test)
        if test not in IMAGE_TESTS:
            cases += [_of_size(case, size) for size in sizes]
            continue
        if test == "IMAGE_RANGE" and not specific["request"]:
            case = replace(case, request=RANGE_SIZE)
        for way in _ways(test, [own] if own else asked, encrypted=encrypted):
            for count in clients if test == BOOT_STORM else streams:
                one = replace(case, via=way, streams=count)
                cases += [_of_size(one, size) for size in sizes]
    return cases


def _ways(test: str, asked: Sequence[str], *, encrypted: Callable[[], bool]) -> Sequence[str]:
    """Those asked for, else the one that a client of ours would take."""
    for way in asked:
        if way not in WAYS[test]:
            raise UsageError(reason=_no_way(test, way))
        if way != COPY and encrypted():
            raise UsageError(reason=f"through TLS bytes can only be copied, not by {way}")
    return asked or [COPY if encrypted() else WAYS[test][0]]


def _template(given: dict[str, Any], specific: dict[str, Any]) -> Spec:
    length = units.length(given["length"])
    request, response = units.pair(specific["request"] or "1,1")
    slow = None if given["slow"] is None else units.size(given["slow"])
    if slow == 0 or request == 0:
        raise UsageError(reason="a rate and the size of a range are at least one byte")
    return Spec(
        test="",
        seconds=length.seconds,
        nbytes=length.bytes,
        receive_size=_size(specific["receive"]),
        local_buffer=_size(specific["local"]),
        remote_buffer=_size(specific["remote"]),
        nodelay=specific["nodelay"],
        congestion=specific["congestion"],
        request=request or 1,
        response=response or 1,
        data_port=_port(specific["ports"]),
        sink=_sink(given["sink"]),
        slow=slow,
        cold=given["cold"],
    )


def _of_size(case: Spec, size: int | None) -> Spec:
    """The case with calls of this size: of the end that it lets choose."""
    if size is None:
        return case
    if case.test == "IMAGE_RANGE":
        return replace(case, request=size)
    if case.test in TO_HERE:
        return replace(case, receive_size=size)
    return replace(case, send_size=size)


def _sizes(given: dict[str, Any], specific: dict[str, Any]) -> list[int | None]:
    text = specific["send"] or given["sizes"]
    if given["sweep"] or (text and ".." in text):
        return [*units.doublings(*units.span(text or SWEEP))]
    return [_size(text)]


def _numbers(text: str, what: str) -> list[int]:
    counts = text.split(",")
    if not all(count.isascii() and count.isdigit() for count in counts):
        raise UsageError(reason=f"{text!r}: expected numbers of {what} such as 1,8")
    found = [int(count[:9]) for count in counts]
    if not all(0 < count <= MOST_STREAMS for count in found):
        raise UsageError(reason=f"there are 1 to {MOST_STREAMS} {what}")
    return found


def _check_image_options(given: dict[str, Any], tests: Sequence[str]) -> None:
    """Refuse what the tests asked for would not heed."""
    image = [test for test in tests if test in IMAGE_TESTS]
    of_images = {
        "--via": given["via"], "--streams": given["streams"] != "1", "--slow": given["slow"],
        "--image": given["image"], "--far-pid": given["far_pids"], "--far-file": given["far_file"],
    }  # fmt: skip
    if not image and (useless := [name for name, value in of_images.items() if value]):
        raise UsageError(reason=f"{useless[0]} is of the image tests: {', '.join(IMAGE_TESTS)}")
    _check_storm(given, image)
    if given["sink"] is not None and (image or "TCP_RR" in tests):
        raise UsageError(reason="--sink is of the raw tests of one direction")
    if given["cold"]:
        hot = [test for test in tests if test not in FROM_FILE and test not in image]
        if hot:
            raise UsageError(reason=f"--cold: {hot[0]} reads no file")
        if not given["far_file"] and any(test in TO_HERE for test in image):
            raise UsageError(reason="--cold wants --far-file: the image's file at the service")


def _check_storm(given: dict[str, Any], image: Sequence[str]) -> None:
    """Refuse what a storm would not heed, and what only a storm would."""
    if BOOT_STORM not in image:
        if given["clients"] != CLIENTS or given["store_pids"]:
            raise UsageError(reason=f"--clients and --store-pid are of {BOOT_STORM}")
        return
    if given["cold"] or given["slow"]:
        raise UsageError(reason=f"{BOOT_STORM} goes without --cold and --slow")
    if given["streams"] != "1" and set(image) == {BOOT_STORM}:
        raise UsageError(reason=f"{BOOT_STORM} has --clients, not --streams")
    if given["length"].startswith("-"):
        raise UsageError(reason=f"{BOOT_STORM} fetches the whole image: -l is in seconds")


def _selectors(specific: dict[str, Any]) -> tuple[str | None, list[str]]:
    for style in ("keys", "csv", "columns"):
        if specific[style] is not None:
            return style, omni.chosen(specific[style])
    return None, []


def _sink(text: str | None) -> str | None:
    if text is None:
        return None
    if not text.startswith("file:/"):
        raise UsageError(reason="--sink is file: and an absolute path")
    return text.removeprefix("file:")


def _port(text: str | None) -> int:
    """The far end's, the second of two; 0 for any."""
    found = (text or "0").rpartition(",")[2]
    if not (found.isascii() and found.isdigit() and int(found) < 65536):
        raise UsageError(reason=f"{text!r} is no port")
    return int(found)


def _size(text: str | None) -> int | None:
    return None if text is None else units.size(text)
