"""The server's start: CPU to its first answer, and the memory it then has."""

import shutil
from pathlib import Path

from benchmarks import cpu, imageapi
from benchmarks.plan import Plan, interleaved
from benchmarks.row import KIB, MIB, Row, at_most
from tools.serving import serving

FEW_REQUESTS = 20


def run(plan: Plan) -> list[Row]:
    """Rows of an empty state directory and of one that exists, and of memory, with one worker."""
    fresh, existing = plan.disk / "fresh", plan.disk / "existing"
    with serving(existing):
        pass
    taken = interleaved(
        plan.rounds, {"new": lambda: _start_anew(fresh), "existing": lambda: _start(existing)}
    )
    pss, resident = _memory(existing)
    return [
        Row("start to first answer, new state: CPU", "s", taken["new"], target=at_most(1.0)),
        Row("start to first answer, old state: CPU", "s", taken["existing"], target=at_most(1.0)),
        Row("memory of the server (sum of PSS)", "MiB", [pss], target=at_most(100)),
        Row("memory of the server (sum of RSS)", "MiB", [resident]),
    ]


def _start_anew(state_dir: Path) -> float:
    spent = _start(state_dir)
    shutil.rmtree(state_dir)
    return spent


def _start(state_dir: Path) -> float:
    with serving(state_dir) as server:
        imageapi.request(server, "GET", "/v2/images")
        return cpu.used(server.pids()) / 1e6


def _memory(state_dir: Path) -> tuple[float, float]:
    """PSS, which counts a page shared by n processes as 1/n in each, and RSS; MiB."""
    with serving(state_dir) as server:
        for _ in range(FEW_REQUESTS):
            imageapi.show(server, imageapi.create(server))
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in server.pids()]
        return sum(_field(each, "Pss") for each in rollups), sum(
            _field(each, "Rss") for each in rollups
        )


def _field(rollup: str, name: str) -> float:
    (line,) = (line for line in rollup.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * KIB / MIB
