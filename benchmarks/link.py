"""`headrace bench` beside the plainest loops in C that do the same: what the tool itself costs.

The C program (loop.c) is built for this alone.  Both measure on loopback, not paced.
"""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.plan import Plan, interleaved, random_file, warm
from benchmarks.processes import ROOT
from benchmarks.row import KIB, MB, MIB, Row, ratio_at_least, ratio_at_most
from tools.serving import COMMAND, environment

_SECONDS = "2"
_CONGESTION = "reno"
_TESTS = {"stream": "TCP_STREAM", "sendfile": "TCP_SENDFILE"}
_SIZES = (64 * KIB, MIB)


@dataclass(frozen=True)
class Sample:
    """MB/s, and µs/KB: of both ends together, of the sending and of the receiving process."""

    rate: float
    both: float
    sender: float
    receiver: float


def run(plan: Plan) -> list[Row]:
    """Rows of sends of 64 KiB and of 1 MiB, from memory and from a file."""
    program = plan.disk / "loop"
    subprocess.run(["cc", "-O2", "-o", program, ROOT / "benchmarks" / "loop.c"], check=True)
    file = plan.disk / "file"
    random_file(file, 256 * MIB)
    warm(file)
    rows = []
    for test in _TESTS:
        for size in _SIZES:
            measures: dict[str, Callable[[], Sample]] = {
                "ours": partial(_ours, test, size, file),
                "C": partial(_plain, program, test, size, file),
            }
            taken = interleaved(plan.rounds, measures)
            rows += _rows(f"bench, {test}, sends of {size // KIB} KiB", taken)
    return rows


def _rows(title: str, taken: dict[str, list[Sample]]) -> list[Row]:
    beside = "a loop in C"

    def of(field: str) -> tuple[list[float], list[float]]:
        ours, plain = ([getattr(each, field) for each in taken[who]] for who in ("ours", "C"))
        return ours, plain

    return [
        Row(f"{title}: throughput", "MB/s", *of("rate"), beside, ratio_at_least(0.85)),
        Row(f"{title}: CPU of both ends", "µs/KB", *of("both"), beside, ratio_at_most(1.15)),
        Row(f"{title}: sender's CPU", "µs/KB", *of("sender"), beside),
        Row(f"{title}: receiver's CPU", "µs/KB", *of("receiver"), beside),
    ]


def _ours(test: str, size: int, file: Path) -> Sample:
    words: list[str | Path] = [
        COMMAND,
        "bench",
        "-t",
        _TESTS[test],
        "-l",
        _SECONDS,
        "-f",
        "M",
        "-F",
        file,
        "--json",
    ]
    done = subprocess.run(
        [*words, "--", "-m", str(size), "-K", _CONGESTION],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    (found,) = json.loads(done.stdout)
    rate = found["THROUGHPUT"] * MIB / MB
    sender, receiver = found["LOCAL_PROC_SD"], found["REMOTE_PROC_SD"]
    return Sample(rate, sender + receiver, sender, receiver)


def _plain(program: Path, test: str, size: int, file: Path) -> Sample:
    done = subprocess.run(
        [program, test, str(size), _SECONDS, _CONGESTION, file], check=True, stdout=subprocess.PIPE
    )
    found = json.loads(done.stdout)
    kib = found["bytes"] / KIB
    sender, receiver = found["sender"] * 1e6 / kib, found["receiver"] * 1e6 / kib
    return Sample(found["bytes"] / MB / found["seconds"], sender + receiver, sender, receiver)
