"""Two hundred downloads of a file that is still being filled, beside those of the same file when it
is whole: as fast as may be, and at the pace at which it grew.

By the embedded server alone: a small application on it, which opens the file.
"""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import network, processes
from benchmarks.cpu import during
from benchmarks.plan import Plan, interleaved, random_file
from benchmarks.row import KIB, MIB, Row, ratio_at_most
from tools.serving import READY, environment, family

CLIENTS = 200
SIZE = 32 * MIB
# What lands a second; all of them together get less than this machine can send.
RATE = 4 * MIB
BLOCK = 64 * KIB


_WHOLE, _PACED = "when it is whole", "when it is whole, at that pace"


@dataclass(frozen=True)
class _Sample:
    """µs/KB of the server, and seconds until half of the clients had their first byte."""

    demand: float
    waited: float


@dataclass(frozen=True)
class _Server:
    port: int
    process: "subprocess.Popen[str]"

    def pids(self) -> list[int]:
        return family(self.process.pid)


@contextlib.contextmanager
def _serving(directory: Path, *options: str) -> Iterator[_Server]:
    """The embedded server with an application that opens files of the directory."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.embedded_app", directory, *options],
        cwd=processes.ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith(READY):
            raise RuntimeError("the embedded server did not start")
        try:
            yield _Server(int(line.rpartition(":")[2]), process)
        finally:
            process.terminate()


def run(plan: Plan) -> list[Row]:
    """Rows of what the bytes cost, and of the wait for the first."""
    with (
        network.under(network.alternatives()[-1]),
        tempfile.TemporaryDirectory(dir=plan.disk) as name,
    ):
        directory = Path(name)
        random_file(directory / "whole", SIZE)
        with _serving(directory) as server, _serving(directory, f"rate={RATE}") as paced:
            _growing(server, directory)
            taken = interleaved(
                plan.rounds,
                {
                    "growing": lambda: _growing(server, directory),
                    _WHOLE: lambda: _sample(server, "/file/entry"),
                    _PACED: lambda: _sample(paced, "/file/entry"),
                },
            )
    demand = {name: [each.demand for each in samples] for name, samples in taken.items()}
    waited = {name: [each.waited for each in samples] for name, samples in taken.items()}
    title = f"{CLIENTS} downloads of a file that grows by {RATE // MIB} MiB a second"
    return [
        Row(f"{title}: server CPU", "µs/KB", demand["growing"], demand[_PACED], _PACED,
            ratio_at_most(1.15)),
        Row(f"{title}: server CPU", "µs/KB", demand["growing"], demand[_WHOLE], _WHOLE),
        Row(f"{title}: half have an answer after", "s", waited["growing"], waited[_WHOLE], _WHOLE),
    ]  # fmt: skip


def _growing(server: _Server, directory: Path) -> _Sample:
    """Downloads that begin with the fill."""
    (directory / "entry").unlink(missing_ok=True)
    files = [directory / "entry", directory / "whole"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fills", *files, str(BLOCK), str(BLOCK / RATE), "verify"],
        cwd=processes.ROOT, stdout=subprocess.PIPE, env=environment(),
    ) as fill:  # fmt: skip
        assert fill.stdout is not None
        fill.stdout.readline()
        return _sample(server, f"/growing/entry?size={SIZE}")


def _sample(server: _Server, path: str) -> _Sample:
    words = (str(server.port), path, str(CLIENTS))
    found, cpu = during(server, lambda: processes.result("takers", *words))
    if found["bytes"] < CLIENTS * SIZE:
        raise RuntimeError(f"{path}: {found['bytes']} bytes of {CLIENTS * SIZE}")
    return _Sample(cpu / (CLIENTS * SIZE / KIB), found["waited"])
