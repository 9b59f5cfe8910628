"""``python -m benchmarks [PART …] [--rounds N]``: measure, and print a table.

Without a PART everything is measured, and docs/benchmarks.md written anew.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    cache,
    client,
    control,
    download,
    growing,
    hosts,
    link,
    lists,
    machine,
    memory,
    report,
    scale,
    start,
    startup,
    tokens,
    upload,
)
from benchmarks.plan import TMPFS, Plan
from benchmarks.processes import ROOT
from benchmarks.row import Row

PAGE = ROOT / "docs" / "benchmarks.md"
HOSTS_PAGE = ROOT / "docs" / "guides" / "deployment.md"
RESULTS = ROOT / ".cache" / "benchmarks.json"

_LOG_TAIL = 3000  # characters

PARTS: dict[str, Callable[[Plan], list[Row]]] = {
    "download": download.run,
    "upload": upload.run,
    "client": client.run,
    "startup": startup.run,
    "control": control.run,
    "lists": lists.run,
    "tokens": tokens.run,
    "start": start.run,
    "memory": memory.run,
    "hosts": hosts.run,
    "link": link.run,
    "scale": scale.run,
    "growing": growing.run,
    "cache": cache.run,
}


def main(arguments: list[str]) -> int:
    """Measure; 1 when a target was missed."""
    options = _parse(arguments)
    _forget_python_settings()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # tidy up, too
    RESULTS.parent.mkdir(exist_ok=True)
    parts = [_measure(name, options.rounds) for name in options.parts or PARTS]
    with tempfile.TemporaryDirectory(dir=RESULTS.parent) as disk:
        facts = machine.describe(Plan(options.rounds, Path(disk), _tmpfs()))
    RESULTS.write_text(report.as_json(facts, options.rounds, parts), encoding="utf-8")
    _publish_hosts(options, facts, [part for part in parts if part.name == "hosts"])
    _publish(options, facts, [part for part in parts if part.name != "hosts"])
    missed = [row.name for part in parts for row in part.rows if row.met is False]
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if missed else 0


def _publish(options: argparse.Namespace, facts: dict[str, str], parts: list[report.Part]) -> None:
    """Print the table, and write it, or its rows, into the page."""
    if not parts:
        return
    text = report.as_markdown(facts, options.rounds, parts)
    print(text)
    if not options.parts:
        report.write_into(PAGE, text)
    elif options.write:
        report.write_rows_into(PAGE, parts)


def _publish_hosts(
    options: argparse.Namespace, facts: dict[str, str], parts: list[report.Part]
) -> None:
    """The same for the guide's page, which has a table of its own."""
    for part in parts:
        text = report.as_markdown(facts, options.rounds, [part])
        text += f"\n\n{hosts.as_table(part.rows)}"
        print(text)
        if options.write or not options.parts:
            report.write_into(HOSTS_PAGE, text)


def _measure(name: str, rounds: int) -> report.Part:
    """Run one part in directories of its own, which are gone after it."""
    load = machine.other_load()
    print(f"{name}: {rounds} rounds, other load {load:.0%}", file=sys.stderr, flush=True)
    disk = Path(tempfile.mkdtemp(prefix="bench-", dir=RESULTS.parent))
    tmpfs = _tmpfs()
    memory_dir = None if tmpfs is None else Path(tempfile.mkdtemp(prefix="headrace-", dir=tmpfs))
    started = time.monotonic()
    try:
        rows = PARTS[name](Plan(rounds, disk, memory_dir))
        return report.Part(name, rows, time.monotonic() - started, load)
    except BaseException:
        _show_logs(disk, memory_dir)
        raise
    finally:
        for directory in filter(None, (disk, memory_dir)):
            shutil.rmtree(directory)


def _show_logs(*directories: Path | None) -> None:
    """What the servers said last, before their directories are gone."""
    for directory in filter(None, directories):
        for log in directory.rglob("*.log"):
            text = log.read_text(encoding="utf-8", errors="replace")
            print(f"{log}: ... {text[-_LOG_TAIL:]}", file=sys.stderr)


def _forget_python_settings() -> None:
    """Run every program as installed: its bytecode cached, its output buffered."""
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        os.environ.pop(name, None)


def _tmpfs() -> Path | None:
    return TMPFS if TMPFS.is_dir() else None


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--write", action="store_true", help="write the rows of the PARTs into the page, too"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement [5]")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
