"""How fast a command starts: CPU of help and of a listing, beside python-glanceclient."""

from functools import partial
from pathlib import Path

from benchmarks import imageapi, processes
from benchmarks.client import GLANCE, glance_options
from benchmarks.plan import Plan, interleaved
from benchmarks.row import Row, at_most, ratio_at_most
from tools.serving import COMMAND, serving

IMAGES = 20


def run(plan: Plan) -> list[Row]:
    """Rows of ``--help`` and of ``index``."""
    with serving(plan.disk / "startup") as server:
        for number in range(IMAGES):
            imageapi.create(server, f"image {number}")
        port = str(server.port)
        theirs = [*glance_options(server), "image-list"]
        return [
            *_rows(plan, ["--help"], ["--help"]),
            *_rows(plan, ["-H", "127.0.0.1", "-p", port, "index"], theirs),
        ]


def _rows(plan: Plan, ours: list[str], theirs: list[str]) -> list[Row]:
    """Rows of a command that the last words name."""
    taken = interleaved(
        plan.rounds,
        {
            "Headrace": partial(_start, COMMAND, ours),
            "glance": partial(_start, GLANCE, theirs),
        },
    )
    name, beside = f"headrace {ours[-1]}: CPU", f"glance {theirs[-1]}"
    return [
        Row(name, "s", taken["Headrace"], taken["glance"], beside, target)
        for target in (at_most(0.20), ratio_at_most(0.3))
    ]


def _start(program: Path, words: list[str]) -> float:
    return processes.run([program, *words]).cpu_us / 1e6
