"""Results in the columns that netperf prints, in the place where it prints them."""

from collections.abc import Sequence

from headrace.bench import omni
from headrace.bench.spec import BOOT_STORM, IMAGE_TESTS, TO_HERE, Spec
from headrace.bench.summary import Summary
from headrace.bench.units import Rate

_TITLES = {"TCP_RR": "TCP REQUEST/RESPONSE"}

_DIGITS = (2, 2, 3, 3)
"""Of utilisation and service demand, both ends."""

Column = tuple[Sequence[str], int, str]
"""Its four lines of title, its width, and the figure that stands below them."""


def title(spec: Spec) -> str:
    """A case in a few words: IMAGE_GET:splice, 4 streams."""
    way = f":{spec.via}" if spec.via else ""
    clients = "clients" if spec.test == BOOT_STORM else "streams"
    streams = f", {spec.streams} {clients}" if spec.streams > 1 else ""
    return f"{spec.test}{way}{streams}"


def banner(test: str, near: str, far: str) -> str:
    """The line before a test's table."""
    name = _TITLES.get(test, test.replace("_", " "))
    if test in IMAGE_TESTS:
        near, far = (far, near) if test in TO_HERE else (near, far)
    return f"{name} TEST from {near} to {far}"


def header(test: str, rate: Rate, *, local_cpu: bool, remote_cpu: bool) -> str:
    """The lines above the figures: what, of which end, in which unit."""
    columns = _columns(test, rate)
    if local_cpu or remote_cpu:
        columns += _cpu(test, local_cpu, remote_cpu)
    rows = zip(*(titles for titles, _, _ in columns), strict=True)
    return "\n".join(_line(row, columns) for row in rows)


def figures(summary: Summary, rate: Rate, *, local_cpu: bool, remote_cpu: bool) -> str:
    """The line of figures below such a header."""
    test = summary.first.spec.test
    columns = _columns(test, rate)
    cells = [_cell(value) for value in _below(columns, summary, rate)]
    if local_cpu or remote_cpu:
        more = _cpu(test, local_cpu, remote_cpu)
        columns += more
        wanted = (local_cpu, remote_cpu) * 2
        for value, shown, digits in zip(_below(more, summary, rate), wanted, _DIGITS, strict=True):
            # -1 is netperf's word for what was not measured.
            number = value if shown and isinstance(value, float) else -1.0
            cells.append(f"{number:.{digits}f}")
    return _line(cells, columns)


def _below(columns: Sequence[Column], summary: Summary, rate: Rate) -> list[omni.Value]:
    return list(omni.values(summary, [name for _, _, name in columns], rate).values())


def _columns(test: str, rate: Rate) -> list[Column]:
    if test == "TCP_RR":
        return _transactions()
    if test == BOOT_STORM:
        return _storm(rate)
    return _images(test, rate) if test in IMAGE_TESTS else _stream(test, rate)


def _stream(test: str, rate: Rate) -> list[Column]:
    receives, sends, size = "RSR_SIZE", "LSS_SIZE", "LOCAL_SEND_SIZE"
    if test == "TCP_MAERTS":
        receives, sends, size = "LSR_SIZE", "RSS_SIZE", "REMOTE_SEND_SIZE"
    return [
        (("Recv", "Socket", "Size", "bytes"), 7, receives),
        (("Send", "Socket", "Size", "bytes"), 7, sends),
        (("Send", "Message", "Size", "bytes"), 8, size),
        *_time_and_rate(rate),
    ]


def _transactions() -> list[Column]:
    return [
        (("Local", "Socket", "Send", "bytes"), 7, "LSS_SIZE"),
        (("", "Size", "Recv", "bytes"), 7, "LSR_SIZE"),
        (("", "Request", "Size", "bytes"), 8, "REQUEST_SIZE"),
        (("", "Resp.", "Size", "bytes"), 8, "RESPONSE_SIZE"),
        (("", "Elapsed", "Time", "secs."), 8, "ELAPSED_TIME"),
        (("", "Trans.", "Rate", "per sec"), 10, "THROUGHPUT"),
    ]


def _images(test: str, rate: Rate) -> list[Column]:
    size = ("Send", "LOCAL_SEND_SIZE") if test == "IMAGE_PUT" else ("Recv", "LOCAL_RECV_SIZE")
    columns: list[Column] = [
        (("", "", "", "Streams"), 7, "STREAMS"),
        (("", "", "", "Way"), 8, "VIA"),
        (("", "Image", "Size", "bytes"), 11, "IMAGE_SIZE"),
        ((size[0], "Message", "Size", "bytes"), 8, size[1]),
        *_time_and_rate(rate),
    ]
    if test == "IMAGE_RANGE":
        columns[3] = (("", "Range", "Size", "bytes"), 8, "RANGE_SIZE")
        columns.append((("", "Trans.", "Rate", "per sec"), 10, "TRANSACTION_RATE"))
    return columns


def _storm(rate: Rate) -> list[Column]:
    return [
        (("", "", "", "Clients"), 7, "STREAMS"),
        (("", "Image", "Size", "bytes"), 11, "IMAGE_SIZE"),
        (("", "Back", "End", "reads"), 6, "BACKEND_READS"),
        (("", "Back", "End", "bytes"), 11, "BACKEND_BYTES"),
        *_time_and_rate(rate),
        (("Over", "Time", "When", "Warm"), 6, "OVER_WARM"),
        (("First", "Byte", "p50", "secs."), 6, "FIRST_BYTE_P50"),
        (("First", "Byte", "p99", "secs."), 6, "FIRST_BYTE_P99"),
        (("", "Fetch", "p50", "secs."), 6, "FETCH_P50"),
        (("", "Fetch", "p99", "secs."), 6, "FETCH_P99"),
    ]


def _time_and_rate(rate: Rate) -> list[Column]:
    return [
        (("", "Elapsed", "Time", "secs."), 8, "ELAPSED_TIME"),
        (("", "", "Throughput", rate.label), 11, "THROUGHPUT"),
    ]


def _cpu(test: str, local: bool, remote: bool) -> list[Column]:
    first, second = ("Recv", "Send") if test in TO_HERE else ("Send", "Recv")
    if test == "TCP_RR":
        first, second = "", ""
    unit = "us/Tr" if test == "TCP_RR" else "us/KB"
    return [
        (("Utili", first, "local", "% S" if local else "% U"), 7, "LOCAL_CPU_UTIL"),
        (("zation", second, "remote", "% S" if remote else "% U"), 7, "REMOTE_CPU_UTIL"),
        (("Service", first, "local", unit), 8, "LOCAL_SD"),
        (("Demand", second, "remote", unit), 7, "REMOTE_SD"),
    ]


def _line(cells: Sequence[str], columns: Sequence[Column]) -> str:
    return " ".join(
        f"{cell:<{width}}" for cell, (_, width, _) in zip(cells, columns, strict=True)
    ).rstrip()


def _cell(value: omni.Value) -> str:
    return f"{value:.2f}" if isinstance(value, float) else omni.shown(value)
