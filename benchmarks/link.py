"""`headrace bench` beside the plainest loops in C that do the same: what the tool itself costs; and
beside iperf3.

The C program (loop.c) is built for this alone.  All measure on loopback, not paced.

And what the tool is for: service demand of sendfile beside that of send, in calls of 64 KiB, on
loopback and, for root, between two network namespaces.
"""

import contextlib
import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.plan import Plan, interleaved, random_file, warm
from benchmarks.processes import ROOT
from benchmarks.row import KIB, MB, MIB, Row, ratio_at_least, ratio_at_most
from tools import namespaces
from tools.hosts import free_port, wait_for_port
from tools.serving import COMMAND, environment

_SECONDS = "2"
_CONGESTION = "reno"
_TESTS = {"stream": "TCP_STREAM", "sendfile": "TCP_SENDFILE"}
_SIZES = (64 * KIB, MIB)
_ENVIRONMENT = environment() | {"PATH": namespaces.environment()["PATH"]}


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
    with _iperf_server() as iperf:
        for test, size in itertools.product(_TESTS, _SIZES):
            measures: dict[str, Callable[[], Sample]] = {
                "ours": partial(_ours, test, size, file),
                "C": partial(_plain, program, test, size, file),
                "iperf3": partial(_iperf, test, size, iperf),
            }
            if test == "sendfile":  # iperf3's file is as long as a send, and stays in the caches
                measures["short"] = partial(_ours, test, size, _short(plan, size))
            taken = interleaved(plan.rounds, measures)
            rows += _rows(f"bench, {test}, sends of {size // KIB} KiB", taken)
    with _far_end([]) as host:
        rows.append(_example("loopback", [], host, plan, file))
    if os.geteuid() == 0:
        with namespaces.joined() as hosts, _far_end(hosts.words("far"), hosts.address) as host:
            rows.append(_example("veth pair", hosts.words("near"), host, plan, file))
    return rows


def _short(plan: Plan, size: int) -> Path:
    """A file of ``size`` bytes."""
    path = plan.disk / f"short-{size}"
    random_file(path, size)
    return path


@contextlib.contextmanager
def _far_end(under: list[str], host: str = "127.0.0.1") -> Iterator[str]:
    """A far end on its port at ``host``."""
    process = subprocess.Popen(
        [*under, COMMAND, "netserver", "-H", host],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_ENVIRONMENT,
    )  # fmt: skip
    with process:
        try:
            assert process.stderr is not None
            process.stderr.readline()
            yield host
        finally:
            process.kill()


def _example(where: str, under: list[str], host: str, plan: Plan, file: Path) -> Row:
    def demand(test: str) -> float:
        words = [*under, str(COMMAND), "bench", "-H", host, "-t", test, "-l", _SECONDS]
        words += ["-c", "-C", "-F", str(file), "-P", "0", "-v", "0", "--", "-m", "64K"]
        done = subprocess.run(
            words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_ENVIRONMENT
        )
        return float(done.stdout)

    taken = interleaved(plan.rounds, {name: partial(demand, name) for name in _TESTS.values()})
    return Row(
        f"service demand of sendfile, {where}", "µs/KB",
        taken["TCP_SENDFILE"], taken["TCP_STREAM"], "send", ratio_at_most(1.0),
    )  # fmt: skip


def _rows(title: str, taken: dict[str, list[Sample]]) -> list[Row]:
    beside = "a loop in C"

    def of(field: str) -> tuple[list[float], list[float]]:
        ours, plain = ([getattr(each, field) for each in taken[who]] for who in ("ours", "C"))
        return ours, plain

    same = taken.get("short", taken["ours"])
    iperf = [each.rate for each in same], [each.rate for each in taken["iperf3"]]
    return [
        Row(f"{title}: throughput", "MB/s", *of("rate"), beside, ratio_at_least(0.85)),
        Row(f"{title}: throughput", "MB/s", *iperf, "iperf3", ratio_at_least(0.85)),
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


@contextlib.contextmanager
def _iperf_server() -> Iterator[int]:
    """An iperf3 that waits on the port."""
    port = free_port()
    server = subprocess.Popen(
        ["iperf3", "-s", "-p", str(port), "-B", "127.0.0.1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with server:
        try:
            wait_for_port(port, [server])
            yield port
        finally:
            server.kill()


def _iperf(test: str, size: int, port: int) -> Sample:
    """iperf3's throughput; its CPU figures are not per byte, and left out."""
    words = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", _SECONDS, "-l", str(size), "-J"]
    words += ["-C", _CONGESTION, *(["-Z"] if test == "sendfile" else [])]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)["end"]["sum_received"]
    return Sample(found["bytes"] / MB / found["seconds"], 0.0, 0.0, 0.0)
