"""headrace bench: throughput, CPU utilisation and service demand, netperf's way."""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.netserver import read_secret
from headrace.errors import UsageError

if TYPE_CHECKING:
    from headrace.bench.raw import Spec
    from headrace.bench.run import FarEnd, Outcome
    from headrace.bench.stats import Goal
    from headrace.bench.summary import Summary
    from headrace.bench.units import Rate

_FILE_SIZE = 256 << 20  # bytes of a file that is made to be sent


@click.command(add_help_option=False)
@click.option("-P", "ports", metavar="PORT[,PORT]", help="Far port of the data connection.")
@click.option("-m", "send", metavar="SIZE", help="Bytes of one send [the socket's buffer].")
@click.option("-M", "receive", metavar="SIZE", help="Bytes of one receive [the same].")
@click.option("-s", "local", metavar="SIZE", help="Socket buffers of the near end.")
@click.option("-S", "remote", metavar="SIZE", help="Socket buffers of the far end.")
@click.option("-r", "request", metavar="REQ[,RESP]", help="Bytes of request, response [1,1].")
@click.option("-K", "congestion", metavar="NAME", help="Congestion control of both ends.")
@click.option("-D", "nodelay", is_flag=True, help="Send at once (TCP_NODELAY).")
@click.option("-o", "csv", metavar="NAMES", help="Figures by name, as CSV.")
@click.option("-O", "columns", metavar="NAMES", help="The same in columns; ? lists the names.")
@click.option("-k", "keys", metavar="NAMES", help="The same as NAME=value lines; ALL is all.")
def test_options(**given: Any) -> dict[str, Any]:
    """What stands behind ``--``: the options of the test, which netperf calls test-specific."""
    return given


class Bench(click.Command):
    """A command whose help also lists what may stand behind ``--``."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [row for row in (each.get_help_record(ctx) for each in test_options.params) if row]
        with formatter.section("Options of the test, after --"):
            formatter.write_dl(rows)
        super().format_epilog(ctx, formatter)


@click.command(
    cls=Bench,
    epilog="SIZE is a number of bytes; K, M, G are powers of 2, k, m, g powers of 10.",
)
@click.option("-H", "host", metavar="HOST", help="The far end [one of its own, on loopback].")
@click.option(
    "-p", "port", type=click.IntRange(1, 65535), default=12865, show_default=True,
    help="Its control port.",
)  # fmt: skip
@click.option(
    "-t", "tests", default="TCP_STREAM", show_default=True, metavar="TEST[,TEST…]",
    help="TCP_STREAM, TCP_MAERTS, TCP_SENDFILE, TCP_SPLICE, TCP_ZEROCOPY, TCP_RR.",
)  # fmt: skip
@click.option(
    "-l", "length", default="10", show_default=True, metavar="SECONDS|-BYTES",
    help="How long a measurement is.",
)  # fmt: skip
@click.option("-c", "local_cpu", is_flag=True, help="Measure the near end's CPU.")
@click.option("-C", "remote_cpu", is_flag=True, help="Measure the far end's CPU.")
@click.option(
    "-F", "file", type=click.Path(exists=True, dir_okay=False),
    help="The file that TCP_SENDFILE and TCP_SPLICE send [random bytes].",
)  # fmt: skip
@click.option("-i", "iterations", metavar="MAX,MIN", help="Repeat until sure [10,3 with -I].")
@click.option(
    "-I", "confidence", metavar="LEVEL[,WIDTH]",
    help="How sure: 95 or 99 %, and how wide the interval may be, in % of the mean [99,5].",
)  # fmt: skip
@click.option(
    "--compare", metavar="TEST,TEST",
    help="Take two tests in turn, five times or as -i says, and give the ratio pair by pair.",
)  # fmt: skip
@click.option("-v", "verbosity", type=click.IntRange(0, 2), default=1, help="0: the result alone.")
@click.option(
    "-f", "unit", type=click.Choice(["G", "M", "K", "g", "m", "k"]), default="m",
    show_default=True, help="Of throughput: bytes (capitals) or bits per second.",
)  # fmt: skip
@click.option("-P", "banner", type=click.Choice(["0", "1"]), default="1", help="0: no heads.")
@click.option(
    "--secret-file", type=click.Path(exists=True, dir_okay=False),
    help="The secret that the far end wants.",
)  # fmt: skip
@click.option("--sink", metavar="file:PATH", help="Have the far end store what it receives.")
@click.option("--json", "as_json", is_flag=True, help="Every figure, as JSON.")
@click.argument("test_words", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF THE TEST]")
def bench(**given: Any) -> None:
    """Measure a link: throughput, CPU utilisation, service demand.

    Service demand is what counts: CPU time for each KB moved, in µs, of the whole machine.  As in
    netperf, options before -- are of all tests, options after it of the test.

    \b
        headrace bench -t TCP_STREAM,TCP_SENDFILE -c -C -l 5 -- -m 64K
        headrace bench --compare TCP_SENDFILE,TCP_STREAM -c -C -l 2 -- -m 64K
        headrace netserver -H 10.0.0.5 &             on the far machine
        headrace bench -H 10.0.0.5 -t TCP_SENDFILE -F image.raw -c -C -I 99,5
    """
    wishes = _wishes(given)
    if "?" in (wishes.specific[option] for option in ("csv", "columns", "keys")):
        _list_selectors()
        return
    results = []
    with _far_end(wishes) as far:
        if wishes.compare:
            _compare(wishes, far)
            return
        for number, test in enumerate(wishes.tests):
            summary = _measure(wishes, far, test)
            if wishes.as_json:
                results.append(_as_json(wishes, far, summary))
            else:
                _show(wishes, far, summary, head=number == 0 or test != wishes.tests[number - 1])
                _warn(wishes, far, summary)
    if wishes.as_json:
        click.echo(json.dumps(results, indent=1))


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for."""

    host: str | None
    port: int
    tests: list[str]
    compare: bool
    length: Any
    local_cpu: bool
    remote_cpu: bool
    file: str | None
    goal: "Goal"
    verbosity: int
    rate: "Rate"
    banner: bool
    secret: bytes | None
    sink: str | None
    as_json: bool
    specific: dict[str, Any]
    sizes: dict[str, int | None]


def _wishes(given: dict[str, Any]) -> Wishes:
    from headrace.bench import omni, raw, units
    from headrace.bench.stats import Goal

    words = list(given["test_words"])
    try:
        specific = test_options.main(words, prog_name="headrace bench --", standalone_mode=False)
    except click.ClickException as error:
        raise UsageError(reason=f"after --: {error.format_message()}") from error
    compare = given["compare"] is not None
    tests = (given["compare"] if compare else given["tests"]).upper().split(",")
    if compare and len(tests) != 2:
        raise UsageError(reason="--compare takes two tests")
    if compare and given["as_json"]:
        raise UsageError(reason="--compare has no --json")
    if unknown := [test for test in tests if test not in raw.TESTS]:
        raise UsageError(reason=f"no such test: {', '.join(unknown)}; {', '.join(raw.TESTS)}")
    for option in ("csv", "columns", "keys"):
        if specific[option] not in (None, "?"):
            omni.chosen(specific[option])
    level, width = units.confidence(given["confidence"] or "99,5")
    least = most = 5 if compare else 1
    if given["iterations"] or given["confidence"]:
        least, most = units.iterations(given["iterations"] or "10,3")
    request, response = units.pair(specific["request"] or "1,1")
    sink = given["sink"]
    if sink is not None and not sink.startswith("file:/"):
        raise UsageError(reason="--sink is file: and an absolute path of the far machine")
    return Wishes(
        host=given["host"],
        port=given["port"],
        tests=tests,
        compare=compare,
        length=units.length(given["length"]),
        local_cpu=given["local_cpu"],
        remote_cpu=given["remote_cpu"],
        file=given["file"],
        goal=Goal(level, width, least, most),
        verbosity=given["verbosity"],
        rate=units.Rate(given["unit"]),
        banner=given["banner"] == "1",
        secret=read_secret(given["secret_file"]),
        sink=None if sink is None else sink.removeprefix("file:"),
        as_json=given["as_json"],
        specific=specific,
        sizes={
            "send_size": _size(specific["send"]),
            "receive_size": _size(specific["receive"]),
            "local_buffer": _size(specific["local"]),
            "remote_buffer": _size(specific["remote"]),
            "data_port": _port(specific["ports"]),
            "request": request or 1,
            "response": response or 1,
        },
    )


def _port(text: str | None) -> int:
    """The far end's, the second of two; 0 for any."""
    found = (text or "0").rpartition(",")[2]
    if not (found.isascii() and found.isdigit() and int(found) < 65536):
        raise UsageError(reason=f"{text!r} is no port")
    return int(found)


def _size(text: str | None) -> int | None:
    from headrace.bench import units

    return None if text is None else units.size(text)


@contextlib.contextmanager
def _far_end(wishes: Wishes) -> Iterator["FarEnd"]:
    from headrace.bench import run

    with contextlib.ExitStack() as stack:
        host, port = wishes.host, wishes.port
        if host is None:
            host, port = "127.0.0.1", stack.enter_context(run.own_far_end())
        yield stack.enter_context(run.FarEnd(host, port, wishes.secret))


def _measure(wishes: Wishes, far: "FarEnd", test: str) -> "Summary":
    """Measurements of one test, as many as it takes."""
    from headrace.bench.summary import Summary

    spec = _spec(wishes, test)
    outcomes: list[Outcome] = []
    with _file(wishes, [test]) as file:
        while True:
            _tell(wishes, test, len(outcomes) + 1)
            outcomes.append(far.measure(spec, file))
            summary = Summary(outcomes, wishes.goal.level)
            sure = summary.meets(
                wishes.goal, local_cpu=wishes.local_cpu, remote_cpu=wishes.remote_cpu
            )
            if wishes.goal.exhausted(len(outcomes)) or sure:
                return summary


def _compare(wishes: Wishes, far: "FarEnd") -> None:
    """Two tests in turn: drifts of the machine are in both of a pair."""
    from headrace.bench.summary import Summary, ratios

    outcomes: dict[int, list[Outcome]] = {0: [], 1: []}
    with _file(wishes, wishes.tests) as file:
        for number in range(wishes.goal.at_most):
            for which, test in enumerate(wishes.tests):
                _tell(wishes, test, number + 1)
                outcomes[which].append(far.measure(_spec(wishes, test), file))
    for taken in outcomes.values():
        summary = Summary(taken, wishes.goal.level)
        _show(wishes, far, summary, head=True)
        _warn(wishes, far, summary)
    click.echo(f"{wishes.tests[0]} over {wishes.tests[1]}, {wishes.goal.at_most} pairs:")
    for ratio in ratios(outcomes[0], outcomes[1], wishes.goal.level):
        mean, half = ratio.interval.mean, ratio.interval.half_width
        pairs = " ".join(f"{each:.2f}" for each in ratio.pairs)
        click.echo(f"  {ratio.name:<14} {mean:.3f} ± {half:.3f}   ({pairs})")


def _spec(wishes: Wishes, test: str) -> "Spec":
    from headrace.bench.raw import Spec

    return Spec(
        test=test,
        seconds=wishes.length.seconds,
        nbytes=wishes.length.bytes,
        sink=wishes.sink,
        nodelay=wishes.specific["nodelay"],
        congestion=wishes.specific["congestion"],
        **wishes.sizes,  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def _file(wishes: Wishes, tests: Sequence[str]) -> Iterator[int | None]:
    """The file to send, if one of the tests sends any."""
    from headrace.bench import raw, run

    if not set(tests) & set(raw.FROM_FILE):
        yield None
        return
    with run.file_to_send(wishes.file, _FILE_SIZE) as file:
        yield file


def _tell(wishes: Wishes, test: str, number: int) -> None:
    """Say on a terminal what is going on; not from a thread, whose CPU would be measured, too."""
    if sys.stderr.isatty():
        most = f" of at most {wishes.goal.at_most}" if wishes.goal.at_most > 1 else ""
        print(
            f"\r\x1b[K{test}: measurement {number}{most} …\r", end="", file=sys.stderr, flush=True
        )


def _show(wishes: Wishes, far: "FarEnd", summary: "Summary", *, head: bool) -> None:
    from headrace.bench import omni, table

    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    specific, rate = wishes.specific, wishes.rate
    if specific["keys"] is not None:
        found = omni.values(summary, omni.chosen(specific["keys"]), rate)
        click.echo("\n".join(f"{name}={omni.shown(value)}" for name, value in found.items()))
        return
    names = specific["csv"] if specific["csv"] is not None else specific["columns"]
    if names is not None:
        found = omni.values(summary, omni.chosen(names), rate)
        _show_row(found, head=wishes.banner and head, csv=specific["csv"] is not None)
        return
    cpu = {"local_cpu": wishes.local_cpu, "remote_cpu": wishes.remote_cpu}
    test = summary.first.spec.test
    if wishes.verbosity == 0:
        name = (
            "LOCAL_SD" if wishes.local_cpu else "REMOTE_SD" if wishes.remote_cpu else "THROUGHPUT"
        )
        click.echo(omni.shown(omni.values(summary, [name], rate)[name]))
        return
    if wishes.banner:
        click.echo(table.banner(test, "this machine", far.host))
        click.echo(table.header(test, rate, **cpu))
        click.echo()
    click.echo(table.figures(summary, rate, **cpu))
    if wishes.verbosity > 1:
        more = [
            name for name in omni.FIGURES if "PROC" in name or "CALLS" in name or "SOFT" in name
        ]
        for name, value in omni.values(summary, more, rate).items():
            if value is not None:
                click.echo(f"  {name}={omni.shown(value)}")


def _show_row(found: dict[str, Any], *, head: bool, csv: bool) -> None:
    from headrace.bench import omni

    cells = {name: omni.shown(value) for name, value in found.items()}
    if csv:
        lines: Sequence[str] = [",".join(cells), ",".join(cells.values())]
    else:
        widths = [max(len(name), len(cell)) for name, cell in cells.items()]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (cells.keys(), cells.values())
        ]
    click.echo("\n".join(lines if head else lines[1:]))


def _warn(wishes: Wishes, far: "FarEnd", summary: "Summary") -> None:
    for line in _warnings(wishes, far, summary):
        output.note(line)


def _warnings(wishes: Wishes, far: "FarEnd", summary: "Summary") -> list[str]:
    from headrace.bench import cpu

    lines = []
    goal = wishes.goal
    sure = summary.meets(goal, local_cpu=wishes.local_cpu, remote_cpu=wishes.remote_cpu)
    if goal.at_most > 1 and not wishes.compare and not sure:
        found = summary.confidence
        lines.append(
            f"not as sure as asked for after {len(summary.outcomes)} measurements: an interval of "
            f"{goal.width_percent:g} % was wanted; throughput has {found.throughput:.1f} %, the "
            f"near end's CPU {found.local_cpu:.1f} %, the far end's {found.remote_cpu:.1f} %"
        )
    if wishes.local_cpu or wishes.remote_cpu:
        same = cpu.facts()["boot"] == far.facts.get("boot")
        for end, share in summary.disturbance(same).items():
            lines.append(f"{share:.0%} of the {end} machine's busy time was not this measurement's")
    return lines


def _as_json(wishes: Wishes, far: "FarEnd", summary: "Summary") -> dict[str, Any]:
    from headrace.bench import cpu, omni

    return {
        **omni.values(summary, list(omni.FIGURES), wishes.rate),
        "local_facts": cpu.facts(),
        "remote_facts": far.facts,
        "warnings": _warnings(wishes, far, summary),
    }


def _list_selectors() -> None:
    from headrace.bench import omni

    click.echo("\n".join(omni.FIGURES))
