"""Every figure by the name netperf's omni tests give it."""

from collections.abc import Callable, Mapping, Sequence

from headrace.bench.run import Outcome
from headrace.bench.summary import Summary
from headrace.bench.units import Rate
from headrace.errors import UsageError

Value = str | int | float | None
Figure = Callable[[Summary, Rate], Value]


def _sd(end: str, kind: str) -> Figure:
    """Service demand: µs of CPU per KB, or per transaction."""

    def figure(summary: Summary, _rate: Rate) -> float:
        def one(outcome: Outcome) -> float:
            usage = outcome.local if end == "local" else outcome.remote
            if outcome.spec.test == "TCP_RR":
                used = usage.busy if kind == "machine" else usage.processes
                return used * 1e6 / outcome.transactions if outcome.transactions else 0.0
            demand = usage.demand if kind == "machine" else usage.process_demand
            return demand(outcome.bytes)

        return summary.mean(one)

    return figure


def _usage(end: str, name: str) -> Figure:
    return lambda summary, _rate: summary.mean(lambda each: getattr(getattr(each, end), name))


def _first(path: str) -> Figure:
    def figure(summary: Summary, _rate: Rate) -> Value:
        value: object = summary.first
        for name in path.split("."):
            value = value[int(name)] if name.isdigit() else getattr(value, name)  # type: ignore[index]
        return value  # type: ignore[return-value]

    return figure


def _throughput(summary: Summary, rate: Rate) -> float:
    if summary.first.spec.test == "TCP_RR":
        return summary.mean(lambda each: each.rate)
    return summary.mean(lambda each: rate.of(each.bytes, each.seconds))


def _units(summary: Summary, rate: Rate) -> str:
    return "Trans/s" if summary.first.spec.test == "TCP_RR" else rate.label


def _direction(summary: Summary, _rate: Rate) -> str:
    return {"TCP_MAERTS": "Receive", "TCP_RR": "Send|Recv"}.get(summary.first.spec.test, "Send")


def _buffer(prefix: str, end: str, way: str) -> dict[str, Figure]:
    """A socket buffer as asked for, at the start and at the end; of LSS, LSR, RSS or RSR."""
    return {
        f"{prefix}_SIZE_REQ": _first(f"{end}_buffers.asked"),
        f"{prefix}_SIZE": _first(f"{end}_buffers.{way}.0"),
        f"{prefix}_SIZE_END": _first(f"{end}_buffers.{way}.1"),
    }


def _calls(local: bool, sending: bool) -> Figure:
    """Calls of one end in one role; nothing where it does not have that role."""

    def figure(summary: Summary, _rate: Rate) -> Value:
        test = summary.first.spec.test
        sends = test == "TCP_RR" or (test == "TCP_MAERTS") != local
        receives = test == "TCP_RR" or (test == "TCP_MAERTS") == local
        if not (sends if sending else receives):
            return None
        return round(summary.mean(lambda each: each.send_calls if sending else each.receive_calls))

    return figure


def _size(local: bool, sending: bool) -> Figure:
    calls = _calls(local, sending)
    attribute = "send_size" if sending else "receive_size"

    def figure(summary: Summary, rate: Rate) -> Value:
        present = calls(summary, rate) is not None
        return getattr(summary.first, attribute) if present else None

    return figure


FIGURES: Mapping[str, Figure] = {
    "TEST": _first("spec.test"),
    "THROUGHPUT": _throughput,
    "THROUGHPUT_UNITS": _units,
    "ELAPSED_TIME": lambda summary, _rate: summary.mean(lambda each: each.seconds),
    "DIRECTION": _direction,
    "PROTOCOL": lambda _summary, _rate: "TCP",
    "LOCAL_CPU_UTIL": _usage("local", "utilisation"),
    "LOCAL_CPU_METHOD": lambda _summary, _rate: "S",
    "LOCAL_SD": _sd("local", "machine"),
    "LOCAL_PROC_UTIL": _usage("local", "process_utilisation"),
    "LOCAL_PROC_SD": _sd("local", "process"),
    "LOCAL_SOFTIRQ_UTIL": _usage("local", "softirq_percent"),
    "LOCAL_CPU_COUNT": _first("local.cores"),
    "REMOTE_CPU_UTIL": _usage("remote", "utilisation"),
    "REMOTE_CPU_METHOD": lambda _summary, _rate: "S",
    "REMOTE_SD": _sd("remote", "machine"),
    "REMOTE_PROC_UTIL": _usage("remote", "process_utilisation"),
    "REMOTE_PROC_SD": _sd("remote", "process"),
    "REMOTE_SOFTIRQ_UTIL": _usage("remote", "softirq_percent"),
    "REMOTE_CPU_COUNT": _first("remote.cores"),
    "SD_UNITS": lambda summary, _rate: (
        "usec/Tran" if summary.first.spec.test == "TCP_RR" else "usec/KB"
    ),
    "CONFIDENCE_LEVEL": lambda summary, _rate: round(summary.level * 100),
    "CONFIDENCE_ITERATION": lambda summary, _rate: len(summary.outcomes),
    "THROUGHPUT_CONFID": lambda summary, _rate: summary.confidence.throughput,
    "LOCAL_CPU_CONFID": lambda summary, _rate: summary.confidence.local_cpu,
    "REMOTE_CPU_CONFID": lambda summary, _rate: summary.confidence.remote_cpu,
    "LOCAL_SEND_SIZE": _size(local=True, sending=True),
    "LOCAL_RECV_SIZE": _size(local=True, sending=False),
    "REMOTE_SEND_SIZE": _size(local=False, sending=True),
    "REMOTE_RECV_SIZE": _size(local=False, sending=False),
    "LOCAL_SEND_CALLS": _calls(local=True, sending=True),
    "LOCAL_RECV_CALLS": _calls(local=True, sending=False),
    "REMOTE_SEND_CALLS": _calls(local=False, sending=True),
    "REMOTE_RECV_CALLS": _calls(local=False, sending=False),
    **_buffer("LSS", "local", "send"),
    **_buffer("LSR", "local", "receive"),
    **_buffer("RSS", "remote", "send"),
    **_buffer("RSR", "remote", "receive"),
    "LOCAL_NODELAY": lambda summary, _rate: int(summary.first.spec.nodelay),
    "REMOTE_NODELAY": lambda summary, _rate: int(summary.first.spec.nodelay),
    "TRANSPORT_MSS": _first("mss"),
    "TRANSACTION_RATE": lambda summary, _rate: (
        summary.mean(lambda each: each.rate) if summary.first.spec.test == "TCP_RR" else None
    ),
    "RT_LATENCY": lambda summary, _rate: (
        summary.mean(lambda each: each.seconds * 1e6 / each.transactions)
        if summary.first.transactions
        else None
    ),
    "REQUEST_SIZE": lambda summary, _rate: (
        summary.first.spec.request if summary.first.spec.test == "TCP_RR" else None
    ),
    "RESPONSE_SIZE": lambda summary, _rate: (
        summary.first.spec.response if summary.first.spec.test == "TCP_RR" else None
    ),
}

USUAL = (
    "LSS_SIZE_END", "RSR_SIZE_END", "LOCAL_SEND_SIZE", "ELAPSED_TIME", "THROUGHPUT",
    "THROUGHPUT_UNITS", "LOCAL_CPU_UTIL", "REMOTE_CPU_UTIL", "LOCAL_SD", "REMOTE_SD", "SD_UNITS",
)  # fmt: skip


def chosen(text: str) -> list[str]:
    """The selectors of a comma-separated list, in any case; raises UsageError for unknown ones."""
    if not text:
        return list(USUAL)
    names = [name.strip().upper() for name in text.split(",")]
    if names == ["ALL"]:
        return list(FIGURES)
    if unknown := [name for name in names if name not in FIGURES]:
        raise UsageError(reason=f"no such selector: {', '.join(unknown)}; -O ? lists them")
    return names


def values(summary: Summary, names: Sequence[str], rate: Rate) -> dict[str, Value]:
    """The chosen figures; None for what does not apply."""
    return {name: FIGURES[name](summary, rate) for name in names}


def shown(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
