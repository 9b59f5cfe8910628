"""headrace bench: throughput, CPU utilisation and service demand, netperf's way."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from headrace.bench import image, omni, run, storm
from headrace.bench.outcome import Outcome
from headrace.bench.spec import BOOT_STORM, FROM_FILE, IMAGE_TESTS, TESTS, TO_HERE, WAYS, Spec
from headrace.bench.summary import Summary
from headrace.cli import completion
from headrace.cli.bench_results import Results
from headrace.cli.bench_wishes import CLIENTS, SWEEP, Wishes, wishes
from headrace.cli.session import ServiceCommand, Session
from headrace.errors import UsageError

_FILE_SIZE = 256 << 20  # bytes of a file that is made to be sent

Measure = Callable[[Spec], Outcome]


@click.command(add_help_option=False)
@click.option("-P", "ports", metavar="PORT[,PORT]", help="Far port of the data connection.")
@click.option("-m", "send", metavar="SIZE", help="Bytes of one send [the socket's buffer].")
@click.option("-M", "receive", metavar="SIZE", help="Bytes of one receive [the same].")
@click.option("-s", "local", metavar="SIZE", help="Socket buffers of the near end.")
@click.option("-S", "remote", metavar="SIZE", help="Socket buffers of the far end.")
@click.option(
    "-r", "request", metavar="REQ[,RESP]",
    help="Bytes of request, response [1,1]; of a range of IMAGE_RANGE [1M].",
)  # fmt: skip
@click.option("-K", "congestion", metavar="NAME", help="Congestion control of both ends.")
@click.option("-D", "nodelay", is_flag=True, help="Send at once (TCP_NODELAY).")
@click.option("-o", "csv", metavar="NAMES", help="Figures by name, as CSV.")
@click.option("-O", "columns", metavar="NAMES", help="The same in columns; ? lists the names.")
@click.option("-k", "keys", metavar="NAMES", help="The same as NAME=value lines; ALL is all.")
def test_options(**given: Any) -> dict[str, Any]:
    """What stands behind ``--``: the options of the test, which netperf calls test-specific."""
    return given


class Bench(ServiceCommand):
    """A command whose help also lists what may stand behind ``--``."""

    left_out = frozenset({"host", "port", "verbose", "timeout"})

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [row for row in (each.get_help_record(ctx) for each in test_options.params) if row]
        with formatter.section("Options of the test, after --"):
            formatter.write_dl(rows)
        super().format_epilog(ctx, formatter)


@click.command(
    cls=Bench,
    epilog="SIZE is a number of bytes; K, M, G are powers of 2, k, m, g powers of 10.  The service "
    "of the image tests is named as for every command: --url, --token, --cafile, --insecure; "
    "--json writes every figure.",
)
@click.option("-H", "host", metavar="HOST", help="The far end [one of its own, on loopback].")
@click.option(
    "-p", "port", type=click.IntRange(1, 65535), default=12865, show_default=True,
    help="Its control port.",
)  # fmt: skip
@click.option(
    "-t", "tests", default="TCP_STREAM", show_default=True, metavar="TEST[,TEST…]",
    shell_complete=completion.listed(TESTS),
    help="TCP_STREAM, TCP_MAERTS, TCP_SENDFILE, TCP_SPLICE, TCP_ZEROCOPY, TCP_RR; of an image "
    "service: IMAGE_GET, IMAGE_PUT, IMAGE_RANGE, BOOT_STORM.",
)  # fmt: skip
@click.option(
    "-l", "length", default="10", show_default=True, metavar="SECONDS|-BYTES",
    help="How long a measurement is.",
)  # fmt: skip
@click.option("-c", "local_cpu", is_flag=True, help="Measure the near end's CPU.")
@click.option("-C", "remote_cpu", is_flag=True, help="Measure the far end's CPU.")
@click.option(
    "-F", "file", type=click.Path(exists=True, dir_okay=False),
    help="The file that is sent, if the test sends one [256 MiB of random bytes].",
)  # fmt: skip
@click.option("-i", "iterations", metavar="MAX,MIN", help="Repeat until sure [10,3 with -I].")
@click.option(
    "-I", "confidence", metavar="LEVEL[,WIDTH]",
    help="How sure: 95 or 99 %, and how wide the interval may be, in % of the mean [99,5].",
)  # fmt: skip
@click.option(
    "--compare", metavar="TEST,TEST", shell_complete=completion.listed(TESTS),
    help="Take two tests in turn, five times or as -i says, and give the ratio pair by pair; "
    "TEST:WAY is an image test by a way of its own.",
)  # fmt: skip
@click.option(
    "--sweep", is_flag=True, help=f"Every size of a send from -m A..B [{SWEEP}], doubling it."
)
@click.option("-m", "sizes", metavar="SIZE|A..B", help="The same as -m after --.")
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
@click.option("--sink", metavar="file:PATH", help="Have what is received stored.")
@click.option(
    "--cold", is_flag=True,
    help="Drop what is read from the page cache first, and read it once.",
)  # fmt: skip
@click.option(
    "--via", metavar="WAY[,WAY…]", shell_complete=completion.listed(WAYS["IMAGE_PUT"]),
    help="How image tests move bytes here: sendfile (IMAGE_PUT), splice, copy.",
)  # fmt: skip
@click.option(
    "--streams", default="1", show_default=True, metavar="N[,N…]",
    help="Clients of an image test at once.",
)  # fmt: skip
@click.option(
    "--clients", default=CLIENTS, show_default=True, metavar="N[,N…]",
    help="Clients of BOOT_STORM; -l is how long they fetch again, when the cache has the image.",
)  # fmt: skip
@click.option("--slow", metavar="SIZE", help="Bytes a second that each client takes at most.")
@click.option(
    "--image",
    metavar="ID",
    shell_complete=completion.images,
    help="The image to fetch [one made of -F, then deleted].",
)
@click.option(
    "--far-pid", "far_pids", type=click.IntRange(1), multiple=True, metavar="PID",
    help="A process of the service, on the far end's machine, to be told apart (with children).",
)  # fmt: skip
@click.option(
    "--store-pid", "store_pids", type=click.IntRange(1), multiple=True, metavar="PID",
    help="The same of the store behind the service of BOOT_STORM, on that machine.",
)  # fmt: skip
@click.option("--far-file", metavar="PATH", help="The image's file there, for --cold.")
@click.option(
    "--report", type=click.Path(dir_okay=False, writable=True), metavar="FILE",
    help="Write a page of HTML with plots, too (needs matplotlib).",
)  # fmt: skip
@click.argument("test_words", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF THE TEST]")
@click.pass_obj
def bench(session: Session, /, **given: Any) -> None:
    """Measure a link, or an image service, netperf's way.

    Service demand is what counts: CPU time for each KB moved, in µs, of the whole machine.  As in
    netperf, options before -- are of all tests, options after it of the test.

    \b
        headrace bench -t TCP_STREAM,TCP_SENDFILE -c -C -l 5 -- -m 64K
        headrace bench --compare TCP_SENDFILE,TCP_STREAM -c -C -l 2 -- -m 64K
        headrace netserver -H 10.0.0.5 &             on the far machine
        headrace bench -H 10.0.0.5 -t TCP_SENDFILE -F image.raw -c -C -I 99,5
        headrace bench -t IMAGE_GET --streams 1,8 -c -C --url http://10.0.0.5:9292
        headrace bench -t BOOT_STORM --clients 200 --image ID -C -l 5
        headrace bench --compare IMAGE_PUT:sendfile,IMAGE_PUT:copy -c -l 3
        headrace bench -t TCP_SENDFILE --sweep -m 4K..16M -c -C -l 2 --report out.html
    """
    specific = _test_options(given["test_words"])
    if "?" in (specific[option] for option in ("csv", "columns", "keys")):
        click.echo("\n".join(omni.FIGURES))
        return
    asked = wishes(given, specific, encrypted=lambda: session.endpoint().startswith("https:"))
    if asked.report is not None:
        _require_report(asked.report)
    with _measuring(asked, session) as (measure, far):
        results = Results(asked, far, as_json=session.as_json, url=_url(asked, session))
        with results.progress() as tell:
            if asked.compare:
                _compare(asked, measure, tell, results)
            else:
                for case in asked.cases:
                    results.add(_repeat(asked, measure, tell, case))
        results.finish()


def _test_options(words: tuple[str, ...]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = test_options.main(
            list(words), prog_name="headrace bench --", standalone_mode=False
        )
    except click.ClickException as error:
        raise UsageError(reason=f"after --: {error.format_message()}") from error
    return found


def _require_report(path: str) -> None:
    """Say now, not after an hour of measuring, that there can be no report."""
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(reason=f"{path}: there is no such directory")
    from headrace.bench import report

    report.require()


def _url(asked: Wishes, session: Session) -> str | None:
    """The service that is measured, without a password."""
    return session.connection(1.0).endpoint.url if asked.tests & set(IMAGE_TESTS) else None


Tell = Callable[[Spec, int], None]


def _repeat(asked: Wishes, measure: Measure, tell: Tell, case: Spec) -> Summary:
    """Measurements of one case, as many as it takes."""
    outcomes: list[Outcome] = []
    while True:
        tell(case, len(outcomes) + 1)
        outcomes.append(measure(case))
        summary = Summary(outcomes, asked.goal.level)
        sure = summary.meets(asked.goal, local_cpu=asked.local_cpu, remote_cpu=asked.remote_cpu)
        if asked.goal.exhausted(len(outcomes)) or sure:
            return summary


def _compare(asked: Wishes, measure: Measure, tell: Tell, results: Results) -> None:
    """Two cases in turn: drifts of the machine are in both of a pair."""
    taken: tuple[list[Outcome], list[Outcome]] = [], []
    for number in range(asked.goal.at_most):
        for case, outcomes in zip(asked.cases, taken, strict=True):
            tell(case, number + 1)
            outcomes.append(measure(case))
    for outcomes in taken:
        results.add(Summary(outcomes, asked.goal.level))
    results.compared(*taken)


@contextlib.contextmanager
def _measuring(asked: Wishes, session: Session) -> Iterator[tuple[Measure, run.FarEnd | None]]:
    """What measures a case, and the far end that takes part."""
    images = bool(asked.tests & set(IMAGE_TESTS))
    raw = bool(asked.tests - set(IMAGE_TESTS))
    with contextlib.ExitStack() as stack:
        watched = images and _can_watch(asked, session)
        far = _far_end(asked, stack) if raw or watched else None
        file = None
        if asked.tests & set(FROM_FILE):
            file = stack.enter_context(run.file_to_send(asked.file, _FILE_SIZE))
        service = storms = sending = fetching = None
        if images:
            watcher = far if watched else None
            service = image.Service(session.connection, watcher, asked.far_pids, asked.far_file)
            store = _far_end(asked, stack) if asked.store_pids else None
            storms = storm.Storms(
                session.connection, watcher, asked.far_pids, store, asked.store_pids
            )
        if file is not None and "IMAGE_PUT" in asked.tests:
            sending = image.file_to_send(file)
        if asked.tests & set(TO_HERE) & set(IMAGE_TESTS):
            fetching = stack.enter_context(
                image.image_to_fetch(
                    session.connection,
                    asked.image,
                    lambda: run.file_to_send(asked.file, _FILE_SIZE),
                )
            )

        def measure(case: Spec) -> Outcome:
            if case.test not in IMAGE_TESTS:
                assert far is not None
                return far.measure(case, file)
            assert service is not None
            subject = fetching if case.test in TO_HERE else sending
            assert subject is not None
            if case.test == BOOT_STORM:
                assert storms is not None
                return storms.measure(case, subject)
            return service.measure(case, subject)

        yield measure, far


def _can_watch(asked: Wishes, session: Session) -> bool:
    """Whether a far end is, or can be, on the service's machine."""
    if asked.host is not None or image.is_here(session.connection):
        return True
    if asked.remote_cpu or asked.far_pids or asked.store_pids or asked.far_file:
        raise UsageError(
            reason="the service is on another machine: -C, --far-pid, --store-pid and --far-file "
            "want `headrace netserver` there, and -H"
        )
    return False


def _far_end(asked: Wishes, stack: contextlib.ExitStack) -> run.FarEnd:
    """The far end that is named, or one of our own on loopback."""
    host, port = asked.host, asked.port
    if host is None:
        host, port = "127.0.0.1", stack.enter_context(run.own_far_end())
    return stack.enter_context(run.FarEnd(host, port, asked.secret))
