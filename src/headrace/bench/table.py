"""Results in the columns that netperf prints, in the place where it prints them."""

from collections.abc import Sequence

from headrace.bench import omni
from headrace.bench.summary import Summary
from headrace.bench.units import Rate

_TITLES = {
    "TCP_STREAM": "TCP STREAM",
    "TCP_MAERTS": "TCP MAERTS",
    "TCP_SENDFILE": "TCP SENDFILE",
    "TCP_SPLICE": "TCP SPLICE",
    "TCP_ZEROCOPY": "TCP ZEROCOPY",
    "TCP_RR": "TCP REQUEST/RESPONSE",
}


def banner(test: str, near: str, far: str) -> str:
    """The line before a test's table."""
    return f"{_TITLES[test]} TEST from {near} to {far}"


def header(test: str, rate: Rate, *, local_cpu: bool, remote_cpu: bool) -> str:
    """The lines above the figures: what, of which end, in which unit."""
    columns = _transactions() if test == "TCP_RR" else _stream(rate)
    if local_cpu or remote_cpu:
        columns += _cpu(test, local_cpu, remote_cpu)
    rows = zip(*(titles for titles, _ in columns), strict=True)
    widths = [width for _, width in columns]
    return "\n".join(_line(row, widths) for row in rows)


def figures(summary: Summary, rate: Rate, *, local_cpu: bool, remote_cpu: bool) -> str:
    """The line of figures below such a header."""
    test = summary.first.spec.test
    names = (
        ["LSS_SIZE", "LSR_SIZE", "REQUEST_SIZE", "RESPONSE_SIZE", "ELAPSED_TIME", "THROUGHPUT"]
        if test == "TCP_RR"
        else [*_stream_names(test), "ELAPSED_TIME", "THROUGHPUT"]
    )
    columns = _transactions() if test == "TCP_RR" else _stream(rate)
    cells = [_cell(value) for value in omni.values(summary, names, rate).values()]
    if local_cpu or remote_cpu:
        columns += _cpu(test, local_cpu, remote_cpu)
        found = omni.values(
            summary, ["LOCAL_CPU_UTIL", "REMOTE_CPU_UTIL", "LOCAL_SD", "REMOTE_SD"], rate
        )
        local_util, remote_util, local_sd, remote_sd = found.values()
        cells += [
            f"{local_util:.2f}" if local_cpu else "-1.00",
            f"{remote_util:.2f}" if remote_cpu else "-1.00",
            f"{local_sd:.3f}" if local_cpu else "-1.000",
            f"{remote_sd:.3f}" if remote_cpu else "-1.000",
        ]
    return _line(cells, [width for _, width in columns])


Column = tuple[Sequence[str], int]


def _stream_names(test: str) -> list[str]:
    if test == "TCP_MAERTS":
        return ["LSR_SIZE", "RSS_SIZE", "REMOTE_SEND_SIZE"]
    return ["RSR_SIZE", "LSS_SIZE", "LOCAL_SEND_SIZE"]


def _stream(rate: Rate) -> list[Column]:
    return [
        (("Recv", "Socket", "Size", "bytes"), 7),
        (("Send", "Socket", "Size", "bytes"), 7),
        (("Send", "Message", "Size", "bytes"), 8),
        (("", "Elapsed", "Time", "secs."), 8),
        (("", "", "Throughput", rate.label), 11),
    ]


def _transactions() -> list[Column]:
    return [
        (("Local", "Socket", "Send", "bytes"), 7),
        (("", "Size", "Recv", "bytes"), 7),
        (("", "Request", "Size", "bytes"), 8),
        (("", "Resp.", "Size", "bytes"), 8),
        (("", "Elapsed", "Time", "secs."), 8),
        (("", "Trans.", "Rate", "per sec"), 10),
    ]


def _cpu(test: str, local: bool, remote: bool) -> list[Column]:
    first, second = ("Recv", "Send") if test == "TCP_MAERTS" else ("Send", "Recv")
    if test == "TCP_RR":
        first, second = "", ""
    unit = "us/Tr" if test == "TCP_RR" else "us/KB"
    return [
        (("Utili", first, "local", "% S" if local else "% U"), 7),
        (("zation", second, "remote", "% S" if remote else "% U"), 7),
        (("Service", first, "local", unit), 8),
        (("Demand", second, "remote", unit), 7),
    ]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: omni.Value) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
