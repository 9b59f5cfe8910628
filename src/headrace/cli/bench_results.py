"""What `headrace bench` writes: tables, figures by name, JSON, a report; warnings; progress."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from headrace.bench import cpu, omni, table
from headrace.bench.outcome import Outcome
from headrace.bench.run import FarEnd
from headrace.bench.spec import Spec
from headrace.bench.summary import Ratio, Summary, ratios
from headrace.cli import output
from headrace.cli.bench_wishes import Wishes


class Results:
    """Results as they come; ``url`` is the image service, if one is measured."""

    def __init__(
        self, asked: Wishes, far: FarEnd | None, *, as_json: bool, url: str | None
    ) -> None:
        self._asked = asked
        self._far = far
        self._as_json = as_json
        self._url = url
        self._summaries: list[Summary] = []
        self._ratios: list[Ratio] = []
        self._headed: object = None
        self._clear: Callable[[], None] = lambda: None

    def add(self, summary: Summary) -> None:
        """One case is measured: write it, unless all is written as one at the end."""
        self._summaries.append(summary)
        if self._as_json:
            return
        self._clear()
        self._show(summary)
        for line in self._warnings(summary):
            output.note(line)

    def compared(self, first: Sequence[Outcome], second: Sequence[Outcome]) -> None:
        """Two cases were measured in turn."""
        self._ratios = ratios(first, second, self._asked.goal.level)
        if self._as_json:
            return
        self._clear()
        names = [table.title(taken[0].spec) for taken in (first, second)]
        click.echo(f"{' over '.join(names)}, {len(first)} pairs:")
        for ratio in self._ratios:
            mean, half = ratio.interval.mean, ratio.interval.half_width
            pairs = " ".join(f"{each:.2f}" for each in ratio.pairs)
            click.echo(f"  {ratio.name:<14} {mean:.3f} ± {half:.3f}   ({pairs})")

    def finish(self) -> None:
        """All is measured."""
        if self._as_json:
            results = [self._as_object(summary) for summary in self._summaries]
            found: object = results
            if self._asked.compare:
                found = {"results": results, "ratios": list(map(_ratio_object, self._ratios))}
            click.echo(json.dumps(found, indent=1, allow_nan=False))
        if self._asked.report is not None:
            self._write_report(self._asked.report)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[Spec, int], None]]:
        """A line on the terminal that says which measurement runs.

        It is drawn between measurements only: a thread that kept drawing it would be measured.
        """
        if not sys.stderr.isatty():
            yield lambda _case, _number: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed
        from rich.progress import TimeRemainingColumn as Remaining

        most, cases = self._asked.goal.at_most, len(self._asked.cases)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(), MofNCompleteColumn(), Elapsed(), Remaining(),
        )  # fmt: skip
        done = 0
        with Progress(
            *columns, console=Console(stderr=True), transient=True, auto_refresh=False
        ) as bar:
            task = bar.add_task("", total=cases * most)

            def tell(case: Spec, number: int) -> None:
                nonlocal done
                # A case may have needed fewer measurements than it was given.
                done = done + 1 if self._asked.compare else len(self._summaries) * most + number
                bar.start()
                bar.update(task, completed=done - 1, description=table.title(case), refresh=True)

            self._clear = bar.stop
            yield tell

    # showing

    def _show(self, summary: Summary) -> None:
        asked = self._asked
        if asked.style == "keys":
            found = omni.values(summary, asked.names, asked.rate)
            click.echo("\n".join(f"{name}={omni.shown(value)}" for name, value in found.items()))
        elif asked.style is not None:
            self._show_row(omni.values(summary, asked.names, asked.rate))
        elif asked.verbosity == 0:
            name = "THROUGHPUT"
            if asked.local_cpu or asked.remote_cpu:
                name = "LOCAL_SD" if asked.local_cpu else "REMOTE_SD"
            click.echo(omni.shown(omni.values(summary, [name], asked.rate)[name]))
        else:
            self._show_table(summary)

    def _show_row(self, found: dict[str, omni.Value]) -> None:
        cells = {name: omni.shown(value) for name, value in found.items()}
        if self._asked.style == "csv":
            lines: Sequence[str] = [",".join(cells), ",".join(cells.values())]
        else:
            widths = [max(len(name), len(cell)) for name, cell in cells.items()]
            lines = [
                "  ".join(f"{cell:<{n}}" for cell, n in zip(row, widths, strict=True)).rstrip()
                for row in (cells.keys(), cells.values())
            ]
        click.echo("\n".join(lines[not self._head("row") :]))

    def _show_table(self, summary: Summary) -> None:
        asked, test = self._asked, summary.first.spec.test
        cpu_wanted = {"local_cpu": asked.local_cpu, "remote_cpu": asked.remote_cpu}
        if self._head(test):
            where = self._url or (self._far.host if self._far is not None else "")
            click.echo(table.banner(test, "this machine", where))
            click.echo(table.header(test, asked.rate, **cpu_wanted))
            click.echo()
        click.echo(table.figures(summary, asked.rate, **cpu_wanted))
        if asked.verbosity > 1:
            for name, value in omni.values(summary, omni.MORE, asked.rate).items():
                if value is not None:
                    click.echo(f"  {name}={omni.shown(value)}")

    def _head(self, what: str) -> bool:
        """Whether a head is due: once for all rows that it fits."""
        due = self._asked.banner and self._headed != what
        self._headed = what
        return due

    # warnings

    def _warnings(self, summary: Summary) -> list[str]:
        asked, goal, lines = self._asked, self._asked.goal, []
        sure = summary.meets(goal, local_cpu=asked.local_cpu, remote_cpu=asked.remote_cpu)
        if goal.at_most > 1 and not asked.compare and not sure:
            found = summary.confidence
            lines.append(
                f"not as sure as asked for after {len(summary.outcomes)} measurements: an interval "
                f"of {goal.width_percent:g} % was wanted; throughput has {found.throughput:.1f} %, "
                f"the near end's CPU {_percent(found.local_cpu)}, "
                f"the far end's {_percent(found.remote_cpu)}"
            )
        for storm in (each.storm for each in summary.outcomes if each.storm):
            if storm.warm is not None:
                lines.append(f"the cache may have had the image: {storm.warm}")
            if (missing := summary.first.spec.streams - len(storm.lasts)) > 0:
                lines.append(f"{missing} clients did not get the image: {storm.failure}")
        if asked.local_cpu or asked.remote_cpu:
            here = self._far is not None and cpu.one_machine(cpu.facts(), self._far.facts)
            for end, share in summary.disturbance(here).items():
                lines.append(
                    f"{share:.0%} of the {end} machine's busy time was not this measurement's"
                )
        return lines

    # as one

    def _as_object(self, summary: Summary) -> dict[str, Any]:
        figures = omni.values(summary, list(omni.FIGURES), self._asked.rate)
        return {
            **{name: None if value == math.inf else value for name, value in figures.items()},
            "local_facts": cpu.facts(),
            "remote_facts": None if self._far is None else self._far.facts,
            "warnings": self._warnings(summary),
        }

    def _write_report(self, path: str) -> None:
        from headrace.bench import report

        facts = {"near end": cpu.facts()}
        if self._far is not None:
            facts["far end"] = self._far.facts
        report.write(path, self._summaries, self._ratios, facts, self._asked.rate)
        output.note(f"the report is in {path}")


def _percent(width: float | None) -> str:
    return "is not measured" if width is None else f"{width:.1f} %"


def _ratio_object(ratio: Ratio) -> dict[str, Any]:
    return {
        "name": ratio.name,
        "mean": ratio.interval.mean,
        "half_width": ratio.interval.half_width,
        "pairs": list(ratio.pairs),
    }
