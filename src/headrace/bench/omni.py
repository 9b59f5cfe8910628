"""Every figure by the name netperf's omni tests give it."""

from collections.abc import Callable, Mapping, Sequence

from headrace.bench.cpu import Usage
from headrace.bench.outcome import Buffers, End, Outcome, Storm
from headrace.bench.spec import IMAGE_TESTS, TO_HERE
from headrace.bench.stats import percentile
from headrace.bench.summary import Summary
from headrace.bench.units import Rate
from headrace.errors import UsageError

Value = str | int | float | None
Figure = Callable[[Summary, Rate], Value]


def _first(get: Callable[[Outcome], Value]) -> Figure:
    """What is the same of all measurements, or is shown of the first."""
    return lambda summary, _rate: get(summary.first)


def _mean(get: Callable[[Outcome], float | None]) -> Figure:
    return lambda summary, _rate: summary.mean(get)


def _whole(get: Callable[[Outcome], float | None]) -> Figure:
    def figure(summary: Summary, _rate: Rate) -> Value:
        mean = summary.mean(get)
        return None if mean is None else round(mean)

    return figure


def _throughput(summary: Summary, rate: Rate) -> Value:
    if summary.first.spec.counts_transactions:
        return summary.mean(lambda each: each.rate)
    return summary.mean(lambda each: rate.of(each.bytes, each.seconds))


def _units(summary: Summary, rate: Rate) -> str:
    return "Trans/s" if summary.first.spec.counts_transactions else rate.label


def _direction(outcome: Outcome) -> str:
    if outcome.spec.test == "TCP_RR":
        return "Send|Recv"
    return "Receive" if outcome.spec.test in TO_HERE else "Send"


def _latency(outcome: Outcome) -> float | None:
    """µs a transaction takes: each stream does one after the other."""
    if not outcome.transactions:
        return None
    return outcome.seconds * 1e6 * outcome.spec.streams / outcome.transactions


def _per_second(outcome: Outcome) -> float | None:
    return outcome.transactions / outcome.seconds if outcome.transactions else None


def _of_requests(get: Callable[[Outcome], int]) -> Callable[[Outcome], Value]:
    return lambda each: get(each) if each.spec.test == "TCP_RR" else None


def _of_images(get: Callable[[Outcome], Value]) -> Callable[[Outcome], Value]:
    return lambda each: get(each) if each.spec.test in IMAGE_TESTS else None


def _of_storm(get: Callable[[Storm], float | None]) -> Callable[[Outcome], float | None]:
    return lambda each: None if each.storm is None else get(each.storm)


def _over_ideal(outcome: Outcome) -> float | None:
    """Seconds over those that the same bytes take at the rate of the same clients afterwards."""
    if outcome.storm is None or not outcome.bytes:
        return None
    return outcome.seconds * outcome.storm.rate / outcome.bytes


def _store(figure: Callable[[Usage], float | None]) -> Callable[[Outcome], float | None]:
    return _of_storm(lambda storm: None if storm.store is None else figure(storm.store))


def _wait(share: float, get: Callable[[Storm], Sequence[float]]) -> Figure:
    return _mean(_of_storm(lambda storm: percentile(get(storm), share) if get(storm) else None))


def _storm_rate(summary: Summary, rate: Rate) -> Value:
    return summary.mean(_of_storm(lambda storm: rate.of(storm.rate, 1.0)))


def _storm() -> dict[str, Figure]:
    """Of BOOT_STORM: what it took from behind the service, and how long clients waited."""
    return {
        "BACKEND_READS": _mean(_of_storm(lambda storm: storm.reads)),
        "BACKEND_BYTES": _whole(_of_storm(lambda storm: storm.read_bytes)),
        "FIRST_BYTE_P50": _wait(0.5, lambda storm: storm.firsts),
        "FIRST_BYTE_P99": _wait(0.99, lambda storm: storm.firsts),
        "FETCH_P50": _wait(0.5, lambda storm: storm.lasts),
        "FETCH_P99": _wait(0.99, lambda storm: storm.lasts),
        "CLIENTS_SERVED": _mean(_of_storm(lambda storm: len(storm.lasts))),
        "WARM_THROUGHPUT": _storm_rate,
        "OVER_WARM": _mean(_over_ideal),
        "STORE_PROC_UTIL": _mean(_store(lambda usage: usage.process_utilisation)),
        "STORE_PROC_SD": _mean(
            lambda each: each.demand(_store(lambda usage: usage.processes)(each))
        ),
        "CACHE": _first(
            lambda each: None if each.storm is None else "warm" if each.storm.warm else "cold"
        ),
    }


def _cpu(end: Callable[[Outcome], End], figure: Callable[[Usage], float | None]) -> Figure:
    return _mean(lambda each: end(each).measured(figure))


def _demand(end: Callable[[Outcome], End], used: Callable[[Usage], float | None]) -> Figure:
    return _mean(lambda each: each.demand(end(each).measured(used)))


def _buffer(
    prefix: str, end: Callable[[Outcome], End], get: Callable[[Buffers], tuple[int, int]]
) -> dict[str, Figure]:
    """A socket buffer as asked for, at the start and at the end; of LSS, LSR, RSS or RSR."""

    def of(part: Callable[[Buffers], Value]) -> Figure:
        def figure(outcome: Outcome) -> Value:
            buffers = end(outcome).buffers
            return None if buffers is None else part(buffers)

        return _first(figure)

    return {
        f"{prefix}_SIZE_REQ": of(lambda buffers: buffers.asked),
        f"{prefix}_SIZE": of(lambda buffers: get(buffers)[0]),
        f"{prefix}_SIZE_END": of(lambda buffers: get(buffers)[1]),
    }


def _end(name: str, end: Callable[[Outcome], End]) -> dict[str, Figure]:
    """The figures that each end has: its CPU, and how it moved the data."""
    return {
        f"{name}_CPU_UTIL": _cpu(end, lambda usage: usage.utilisation),
        f"{name}_CPU_METHOD": _first(lambda _each: "S"),
        f"{name}_SD": _demand(end, lambda usage: usage.busy),
        f"{name}_PROC_UTIL": _cpu(end, lambda usage: usage.process_utilisation),
        f"{name}_PROC_SD": _demand(end, lambda usage: usage.processes),
        f"{name}_SOFTIRQ_UTIL": _cpu(end, lambda usage: usage.softirq_percent),
        f"{name}_CPU_COUNT": _whole(lambda each: end(each).measured(lambda usage: usage.cores)),
        f"{name}_SEND_SIZE": _first(lambda each: end(each).send_size),
        f"{name}_RECV_SIZE": _first(lambda each: end(each).receive_size),
        f"{name}_SEND_CALLS": _whole(lambda each: end(each).send_calls),
        f"{name}_RECV_CALLS": _whole(lambda each: end(each).receive_calls),
        f"{name}_CONG_CONTROL": _first(lambda each: end(each).congestion),
        f"{name}_NODELAY": _first(lambda each: int(each.spec.nodelay)),
    }


def _local(outcome: Outcome) -> End:
    return outcome.local


def _remote(outcome: Outcome) -> End:
    return outcome.remote


FIGURES: Mapping[str, Figure] = {
    "TEST": _first(lambda each: each.spec.test),
    "THROUGHPUT": _throughput,
    "THROUGHPUT_UNITS": _units,
    "ELAPSED_TIME": _mean(lambda each: each.seconds),
    "DIRECTION": _first(_direction),
    "PROTOCOL": _first(lambda _each: "TCP"),
    **_end("LOCAL", _local),
    **_end("REMOTE", _remote),
    "SD_UNITS": _first(lambda each: "usec/Tran" if each.spec.counts_transactions else "usec/KB"),
    "CONFIDENCE_LEVEL": lambda summary, _rate: round(summary.level * 100),
    "CONFIDENCE_ITERATION": lambda summary, _rate: len(summary.outcomes),
    "THROUGHPUT_CONFID": lambda summary, _rate: summary.confidence.throughput,
    "LOCAL_CPU_CONFID": lambda summary, _rate: summary.confidence.local_cpu,
    "REMOTE_CPU_CONFID": lambda summary, _rate: summary.confidence.remote_cpu,
    **_buffer("LSS", _local, lambda buffers: buffers.send),
    **_buffer("LSR", _local, lambda buffers: buffers.receive),
    **_buffer("RSS", _remote, lambda buffers: buffers.send),
    **_buffer("RSR", _remote, lambda buffers: buffers.receive),
    "TRANSPORT_MSS": _first(lambda each: each.mss),
    "TRANSACTION_RATE": _mean(_per_second),
    "RT_LATENCY": _mean(_latency),
    "REQUEST_SIZE": _first(_of_requests(lambda each: each.spec.request)),
    "RESPONSE_SIZE": _first(_of_requests(lambda each: each.spec.response)),
    # Those netperf has no name for: of image tests.
    "VIA": _first(lambda each: each.spec.via),
    "STREAMS": _first(_of_images(lambda each: each.spec.streams)),
    "IMAGE_SIZE": _first(lambda each: each.image_size),
    "RANGE_SIZE": _first(
        lambda each: each.spec.request if each.spec.test == "IMAGE_RANGE" else None
    ),
    "PAGE_CACHE": _first(_of_images(lambda each: "cold" if each.spec.cold else "hot")),
    **_storm(),
}

USUAL = (
    "LSS_SIZE_END", "RSR_SIZE_END", "LOCAL_SEND_SIZE", "ELAPSED_TIME", "THROUGHPUT",
    "THROUGHPUT_UNITS", "LOCAL_CPU_UTIL", "REMOTE_CPU_UTIL", "LOCAL_SD", "REMOTE_SD", "SD_UNITS",
)  # fmt: skip

MORE = (
    *(name for name in FIGURES if "PROC" in name or "CALLS" in name or "SOFT" in name),
    "TRANSACTION_RATE",
    "RT_LATENCY",
)
"""What a table has no column for."""


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
