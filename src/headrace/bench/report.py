"""Results as a page of HTML that needs nothing else: tables, plots, the facts of both machines."""

import html
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from headrace import __version__
from headrace.bench import omni
from headrace.bench.cpu import Usage
from headrace.bench.outcome import Outcome
from headrace.bench.spec import Spec
from headrace.bench.stats import interval
from headrace.bench.summary import Ratio, Summary
from headrace.bench.units import Rate
from headrace.errors import ClientError

_COLUMNS = (
    "VIA", "STREAMS", "LOCAL_SEND_SIZE", "LOCAL_RECV_SIZE", "RANGE_SIZE", "ELAPSED_TIME",
    "THROUGHPUT", "LOCAL_CPU_UTIL", "REMOTE_CPU_UTIL", "LOCAL_SD", "REMOTE_SD", "LOCAL_PROC_SD",
    "REMOTE_PROC_SD", "LOCAL_SOFTIRQ_UTIL", "REMOTE_SOFTIRQ_UTIL", "CONFIDENCE_ITERATION",
)  # fmt: skip

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-size: 0.85rem; margin: 1rem 0; display: block;
        overflow-x: auto }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ccc; text-align: right;
         white-space: nowrap }
th:first-child, td:first-child { text-align: left }
svg { max-width: 100%; height: auto }
figure { margin: 1.5rem 0 }
"""


@dataclass(frozen=True)
class _Point:
    """Where a value stands in a plot, and how far the true one may lie from it."""

    x: float
    y: float
    error: float


def require() -> None:
    """Raise ClientError if what draws the plots is not installed."""
    if find_spec("matplotlib") is None:
        raise ClientError(reason="a report needs matplotlib: pip install 'headrace[report]'")


def write(
    path: str,
    summaries: Sequence[Summary],
    ratios: Sequence[Ratio],
    facts: Mapping[str, Mapping[str, str]],
    rate: Rate,
) -> None:
    """Write the page; ClientError if it cannot be written."""
    text = page(summaries, ratios, facts, rate)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ClientError(reason=f"{path}: {error.strerror}") from error


def page(
    summaries: Sequence[Summary],
    ratios: Sequence[Ratio],
    facts: Mapping[str, Mapping[str, str]],
    rate: Rate,
) -> str:
    """The page's text; ``facts`` are of each end."""
    level = f"{summaries[0].level:.0%}"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        f"<p>headrace {__version__}, {now}. Service demand is CPU time of the whole machine for "
        f"each KB (1024 bytes); bars show the interval of {level} confidence.</p>",
        *_plots(summaries, rate),
        "<h2>Figures</h2>",
        *(_figures(test, each, rate) for test, each in _by_test(summaries).items()),
        _ratios(summaries, ratios) if ratios else "",
        "<h2>Machines</h2>",
        _facts(facts),
    ]
    title = "Measurements of " + ", ".join(_by_test(summaries))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _by_test(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    found: dict[str, list[Summary]] = defaultdict(list)
    for summary in summaries:
        found[summary.first.spec.test].append(summary)
    return found


# --- tables


def _figures(test: str, summaries: Sequence[Summary], rate: Rate) -> str:
    rows = [omni.values(summary, _COLUMNS, rate) for summary in summaries]
    names = [name for name in _COLUMNS if any(row[name] is not None for row in rows)]
    titles = [f"THROUGHPUT, {rate.label}" if name == "THROUGHPUT" else name for name in names]
    if summaries[0].first.spec.counts_transactions:
        titles = ["THROUGHPUT, per second" if "THROUGHPUT" in title else title for title in titles]
    cells = [[omni.shown(row[name]) for name in names] for row in rows]
    return f"<h3>{html.escape(test)}</h3>\n{_table(titles, cells)}"


def _ratios(summaries: Sequence[Summary], ratios: Sequence[Ratio]) -> str:
    one, other = (_name(each.first.spec) for each in summaries[:2])
    cells = [
        [
            ratio.name,
            f"{ratio.interval.mean:.3f} ± {ratio.interval.half_width:.3f}",
            " ".join(f"{pair:.3f}" for pair in ratio.pairs),
        ]
        for ratio in ratios
    ]
    title = html.escape(f"{one} over {other}")
    return f"<h2>{title}</h2>\n{_table(['', 'ratio', 'pair by pair'], cells)}"


def _facts(facts: Mapping[str, Mapping[str, str]]) -> str:
    names = list(dict.fromkeys(name for each in facts.values() for name in each))
    cells = [[name, *(each.get(name, "") for each in facts.values())] for name in names]
    return _table(["", *facts], cells)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f"<table>\n{line(titles, 'th')}\n{body}\n</table>"


# --- plots


def _plots(summaries: Sequence[Summary], rate: Rate) -> list[str]:
    """Throughput and both ends' service demand: by size, by streams, else by case."""
    by: dict[str, Callable[[Spec], float | None]] = {
        "bytes a call": _size,
        "streams": lambda spec: spec.streams,
    }
    found = []
    for transactions in (True, False):  # they have units of their own
        some = [each for each in summaries if each.first.spec.counts_transactions == transactions]
        rows = [
            _plot(some, rate, label, where)
            for label, where in by.items()
            if len({where(each.first.spec) for each in some}) > 1
        ]
        found += rows or ([_plot(some, rate, "", None)] if some else [])
    return found


def _size(spec: Spec) -> float | None:
    if spec.test == "IMAGE_RANGE":
        return spec.request
    return spec.receive_size if spec.test == "IMAGE_GET" else spec.send_size


def _plot(
    summaries: Sequence[Summary],
    rate: Rate,
    label: str,
    where: Callable[[Spec], float | None] | None,
) -> str:
    """One row of plots as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams |= {"svg.hashsalt": "headrace", "svg.fonttype": "none", "font.size": 9}
    mpl.rcParams |= {"axes.grid": True, "grid.alpha": 0.3}
    mpl.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}
    kinds = [
        (name, unit, get)
        for name, unit, get in _kinds(summaries[0].first.spec, rate)
        if any(each.series(get) for each in summaries)
    ]
    figure, axes = pyplot.subplots(
        1, len(kinds), figsize=(4.2 * len(kinds), 3.4), squeeze=False, layout="constrained"
    )
    try:
        for axis, (name, unit, get) in zip(axes[0], kinds, strict=True):
            if where is None:
                _draw_bars(axis, summaries, get)
            else:
                _draw_lines(axis, summaries, get, where, label)
            axis.set_title(name)
            axis.set_ylabel(unit)
            axis.set_ylim(bottom=0)
        figure.legend(*_legend(axes[0][0]), loc="outside lower center", ncols=3, frameon=False)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    finally:
        pyplot.close(figure)
    svg = written.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}</figure>"  # HTML has no XML declaration


Get = Callable[[Outcome], float | None]


def _kinds(spec: Spec, rate: Rate) -> list[tuple[str, str, Get]]:
    """What is drawn: its title, its unit, the figure of one measurement."""
    speed, demand = rate.label, "µs/KB"
    if spec.counts_transactions:
        speed, demand = "per second", "µs/transaction"
    return [
        ("Throughput", speed, lambda each: _throughput(each, rate)),
        ("Service demand, near end", demand, lambda each: _demand(each, each.local.usage)),
        ("Service demand, far end", demand, lambda each: _demand(each, each.remote.usage)),
    ]


def _throughput(outcome: Outcome, rate: Rate) -> float:
    if outcome.spec.counts_transactions:
        return outcome.rate
    return rate.of(outcome.bytes, outcome.seconds)


def _demand(outcome: Outcome, usage: Usage | None) -> float | None:
    return outcome.demand(None if usage is None else usage.busy)


def _point(x: float, summary: Summary, get: Get) -> _Point | None:
    values = summary.series(get)
    if not values:
        return None
    found = interval(values, summary.level)
    return _Point(x, found.mean, found.half_width if len(values) > 1 else 0.0)


def _draw_lines(
    axis: Any,
    summaries: Sequence[Summary],
    get: Get,
    where: Callable[[Spec], float | None],
    label: str,
) -> None:
    lines: dict[str, list[_Point]] = defaultdict(list)
    for summary in summaries:
        spec = summary.first.spec
        x = where(spec)
        point = None if x is None else _point(x, summary, get)
        if point is not None:
            lines[_name(spec, without=label)].append(point)
    for name, points in lines.items():
        axis.errorbar(
            [each.x for each in points], [each.y for each in points],
            [each.error for each in points], label=name, marker="o", markersize=3, capsize=2,
        )  # fmt: skip
    axis.set_xscale("log", base=2)
    ticks = sorted({each.x for points in lines.values() for each in points})
    axis.set_xticks(ticks, [_short(tick) for tick in ticks], rotation=45)
    axis.minorticks_off()
    axis.set_xlabel(label)


def _draw_bars(axis: Any, summaries: Sequence[Summary], get: Get) -> None:
    for number, summary in enumerate(summaries):
        point = _point(number, summary, get)
        if point is not None:
            axis.bar(
                point.x, point.y, yerr=point.error or None, label=_name(summary.first.spec),
                capsize=3,
            )  # fmt: skip
    axis.set_xticks([])


def _legend(axis: Any) -> tuple[list[Any], list[str]]:
    handles, labels = axis.get_legend_handles_labels()
    return handles, labels


def _name(spec: Spec, without: str = "") -> str:
    """A case in words, but for what is on the plot's axis."""
    words = [spec.test]
    if spec.via:
        words.append(spec.via)
    size = _size(spec)
    if size is not None and without != "bytes a call":
        words.append(_short(size))
    if spec.streams > 1 and without != "streams":
        words.append(f"{spec.streams} streams")
    return " ".join(words)


def _short(number: float) -> str:
    """A size as it is asked for: 64K, 1M."""
    for suffix, unit in (("G", 2**30), ("M", 2**20), ("K", 2**10)):
        if number >= unit and number % unit == 0:
            return f"{number / unit:.0f}{suffix}"
    return f"{number:.0f}"
