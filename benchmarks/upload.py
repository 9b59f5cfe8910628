"""Upload of 1 GiB: throughput beside the ideal of its stages and beside Glance, CPU of the server
beside the digests alone; on a disk, and on a tmpfs, where no disk is in the way.

The client is `headrace bench`, by sendfile, the same for every server.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks import glance, network, processes, stages, tool
from benchmarks.client import SHA256_ALONE
from benchmarks.cpu import Server
from benchmarks.plan import Plan, interleaved, random_file, settle, warm
from benchmarks.row import GIB, Row, ratio_at_least, ratio_at_most
from benchmarks.stages import Stages
from benchmarks.tool import Sample
from tools.hosts import free_port
from tools.serving import serving

BEYOND_DIGESTS = 1.0
"""µs/KB that the server may cost beyond the digests: receiving, landing, making durable."""

_ALGORITHMS = {"md5 + sha512": ("md5", "sha512"), "sha256": ("sha256",)}
_SETTINGS = {"md5 + sha512": {}, "sha256": SHA256_ALONE}
_GLANCE = "Glance 33"
_GLANCE_DIGESTS = "md5 + sha512"  # always both
_STAGES = "stages"


def run(plan: Plan) -> list[Row]:
    """Rows of the disk, then of the tmpfs under every congestion control there is."""
    source = plan.disk / "source"
    random_file(source, GIB)
    warm(source)
    system, *others = network.alternatives()
    rows = _on(f"disk, {system}", plan, plan.disk, source, durable=True)
    if plan.memory is not None and plan.memory_has(4 * GIB):
        for congestion in (system, *others):
            with network.under(congestion):
                rows += _on(f"tmpfs, {congestion}", plan, plan.memory, source, durable=False)
    return rows


def _on(place: str, plan: Plan, directory: Path, source: Path, *, durable: bool) -> list[Row]:
    algorithms = sorted({name for names in _ALGORITHMS.values() for name in names})
    disk = directory if durable else None
    with _servers(directory) as servers, processes.yardstick("landing", directory) as landing:
        measures: dict[str, Callable[[], Sample | Stages]] = {
            name: partial(_upload, server, source) for name, server in servers.items()
        }
        measures[_STAGES] = partial(_stages, landing, source, algorithms, disk)
        taken = interleaved(plan.rounds, measures)
    found = [each for each in taken.pop(_STAGES) if isinstance(each, Stages)]
    samples = {name: [each for each in taken[name] if isinstance(each, Sample)] for name in taken}
    return [
        *(row for name in _ALGORITHMS for row in _rows(place, name, samples, found)),
        *_stage_rows(place, algorithms, found, durable=durable),
    ]


def _rows(
    place: str, name: str, samples: dict[str, list[Sample]], found: list[Stages]
) -> Iterator[Row]:
    title = f"upload, {name}, {place}"
    algorithms = _ALGORITHMS[name]
    rates = [sample.rate for sample in samples[name]]
    demands = [sample.demand for sample in samples[name]]
    ideals = [each.ideal(algorithms) for each in found]
    floors = [each.digests(algorithms) + BEYOND_DIGESTS for each in found]
    yield Row(
        f"{title}: throughput", "MB/s", rates, ideals, "ideal of its stages", ratio_at_least(0.75)
    )
    yield Row(f"{title}: server CPU", "µs/KB", demands, floors, "digests + 1.0", ratio_at_most(1.0))
    same = name == _GLANCE_DIGESTS
    peer = _GLANCE if same else f"{_GLANCE}, {_GLANCE_DIGESTS}"
    target = ratio_at_least(3.0) if same else None
    theirs = [sample.rate for sample in samples[_GLANCE]]
    yield Row(f"{title}: throughput", "MB/s", rates, theirs, peer, target)
    costs = [sample.demand for sample in samples[_GLANCE]]
    yield Row(f"{title}: server CPU", "µs/KB", demands, costs, peer)


def _stage_rows(
    place: str, algorithms: Sequence[str], found: list[Stages], *, durable: bool
) -> Iterator[Row]:
    yield Row(f"stage, {place}: client's sendfile", "µs/KB", [each.client for each in found])
    yield Row(f"stage, {place}: receive by splice", "µs/KB", [each.landing for each in found])
    if durable:
        yield Row(f"stage, {place}: write, durable", "µs/KB", [each.disk for each in found])
    for name in algorithms:
        costs = [each.pread[name] for each in found]
        yield Row(f"stage, {place}: {name} of the page cache", "µs/KB", costs)


@contextlib.contextmanager
def _servers(directory: Path) -> Iterator[dict[str, Server]]:
    homes = [directory / "glance", *(directory / name for name in _SETTINGS)]
    glance.prepare(homes[0], free_port())
    try:
        with contextlib.ExitStack() as stack:
            servers: dict[str, Server] = {
                name: stack.enter_context(serving(directory / name, env=env))
                for name, env in _SETTINGS.items()
            }
            servers[_GLANCE] = stack.enter_context(glance.serving(homes[0]))
            yield servers
    finally:
        for home in homes:
            shutil.rmtree(home, ignore_errors=True)


def _upload(server: Server, source: Path) -> Sample:
    settle()
    return tool.put(server, source)


def _stages(
    landing: processes.Yardstick, source: Path, algorithms: Sequence[str], disk: Path | None
) -> Stages:
    settle()
    return stages.measure(landing, source, algorithms, disk)
