"""Every host and front side by side: what a download of 1 GiB costs in all processes involved,
beside a bare sendfile loop, nginx serving the same file by itself, and Glance; and what an upload
costs Python when nginx has received it.

All of them run at once, idle but for the one that is measured, with literally the same file.  Where
the system's congestion control paces, one that does not is used: it would be measured otherwise.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import cpu, glance, imageapi, network, processes, stages, static, tool
from benchmarks.cpu import Server
from benchmarks.plan import Plan, interleaved, random_file, settle, warm
from benchmarks.row import GIB, KIB, MIB, Row, ratio_at_most
from benchmarks.tool import Sample
from tools import hosts
from tools.serving import family

STREAMS = {1: 3, 8: 1}
BARE, STATIC, GLANCE = "bare sendfile loop", "nginx, the file itself", "Glance 33 on uWSGI"
OFFLOADED = "upload of what nginx received: Python's CPU"

PASS = 0.25
"""µs/KB that a digest may cost beyond hashing memory: one pass over the file."""

_ALGORITHMS = ("md5", "sha512")
_ATTEMPTS = 5  # Apache ends and begins processes as it sees fit; then it is measured again
_SETTLED = 3.0


@dataclass(frozen=True)
class Deployment:
    """A server, and the image's id there."""

    server: Server
    image: str


def run(plan: Plan) -> list[Row]:
    """Rows of every host, most of them for the table of the deployment guide only."""
    directory = Path(tempfile.mkdtemp(prefix="headrace-", dir="/var/tmp"))
    directory.chmod(0o755)
    congestion = network.alternatives()[-1]
    try:
        source = directory / "image"
        random_file(source, GIB)
        source.chmod(0o644)
        warm(source)
        with network.under(congestion), _deployments(directory, source) as deployed:
            time.sleep(_SETTLED)
            rows = _downloads(plan, deployed)
            for name, each in deployed.items():
                resident, shared_out = _memory(each.server)
                rows.append(Row(f"{name}: RSS", "MiB", [resident], listed=False))
                rows.append(Row(f"{name}: PSS", "MiB", [shared_out], listed=False))
            rows += _uploads(plan, source)
        return rows
    finally:
        shutil.rmtree(directory)


def _downloads(plan: Plan, deployed: dict[str, Deployment]) -> list[Row]:
    rows = []
    for streams, measurements in STREAMS.items():
        measures: dict[str, Callable[[], Sample]] = {
            name: partial(_download, each, streams) for name, each in deployed.items()
        }
        taken = interleaved(measurements * plan.rounds, measures)
        bare = [sample.demand for sample in taken[BARE]]
        for name, samples in taken.items():
            demands = [sample.demand for sample in samples]
            rates = [sample.rate for sample in samples]
            title = f"{name}: {{}}, streams: {streams}"
            rows += [
                Row(title.format("CPU"), "µs/KB", demands, bare, BARE, listed=False),
                Row(title.format("throughput"), "MB/s", rates, listed=False),
            ]
        ours, theirs = ([each.demand for each in taken[name]] for name in ("nginx", STATIC))
        rows.append(
            Row(
                f"behind nginx (X-Accel-Redirect): CPU of both, streams: {streams}",
                "µs/KB", ours, theirs, STATIC, ratio_at_most(1.1),
            )
        )  # fmt: skip
    return rows


def _uploads(plan: Plan, source: Path) -> list[Row]:
    """What Headrace spends on uploads that nginx has received, and both together."""
    with hosts.running("nginx") as host:
        measures: dict[str, Callable[[], tuple[float, float]]] = {
            "upload": partial(_upload, host, source),
            "digests": _digests,
        }
        taken = interleaved(plan.rounds, measures)
    python = [ours for ours, _ in taken["upload"]]
    both = [everything for _, everything in taken["upload"]]
    bound = [digests + PASS * len(_ALGORITHMS) for digests, _ in taken["digests"]]
    beside = f"digests over memory + {PASS} a pass"
    return [
        Row(OFFLOADED, "µs/KB", python, bound, beside, ratio_at_most(1.0)),
        Row("upload of what nginx received: CPU of both", "µs/KB", both),
    ]


def _upload(host: hosts.Host, source: Path) -> tuple[float, float]:
    """µs/KB of Headrace's processes, and of nginx's too."""
    ours = family(host.place.processes["headrace"].pid)
    settle()
    before = cpu.used(ours)
    both = tool.put(host, source)
    python = cpu.used(ours) - before
    return python / (source.stat().st_size / KIB), both.demand


def _digests() -> tuple[float, float]:
    return sum(stages.digest_memory(name) for name in _ALGORITHMS), 0.0


@contextlib.contextmanager
def _deployments(directory: Path, source: Path) -> Iterator[dict[str, Deployment]]:
    glance.prepare(directory / "glance", hosts.free_port())
    with contextlib.ExitStack() as stack:
        found: dict[str, Deployment] = {}
        for name in hosts.KINDS:
            missing = hosts.missing(name)
            if missing is not None:
                raise RuntimeError(f"{name} needs {missing}: make components, as root")
            host = stack.enter_context(hosts.running(name))
            found[name] = Deployment(host, _stand_in(host, source))
        bare = stack.enter_context(processes.yardstick("bare", directory))
        found[BARE] = Deployment(bare, source.name)
        nginx = stack.enter_context(static.serving(directory / "static", source))
        found[STATIC] = Deployment(nginx, source.name)
        peer = stack.enter_context(glance.serving(directory / "glance"))
        found[GLANCE] = Deployment(peer, _put(peer, source))
        yield found


def _stand_in(host: hosts.Host, source: Path) -> str:
    """The id of an image whose file is ``source``, by another name."""
    small = host.place.directory / "small"
    small.write_bytes(b"x")
    image = imageapi.put(host, small)
    _replace(host.image_dir / image, source)
    database = sqlite3.connect(host.state_dir / "headrace.db", timeout=30)
    with closing(database), database:
        size = source.stat().st_size
        database.execute("UPDATE images SET size = ? WHERE id = ?", (size, image))
    return image


def _put(peer: glance.Glance, source: Path) -> str:
    image = imageapi.put(peer, source)
    _replace(peer.image_dir / image, source)
    return image


def _replace(file: Path, source: Path) -> None:
    file.unlink()
    os.link(source, file)


def _download(deployment: Deployment, streams: int) -> Sample:
    for _ in range(_ATTEMPTS):
        pids = deployment.server.pids()
        sample = tool.get(deployment.server, deployment.image, GIB, streams)
        if deployment.server.pids() == pids:
            return sample
        time.sleep(_SETTLED)
    raise RuntimeError("processes of the server end and begin whenever it is measured")


def _memory(server: Server) -> tuple[float, float]:
    """RSS and PSS of all processes in MiB: what they share counted for each of them, and once."""
    sums = {"Rss": 0, "Pss": 0}
    for pid in server.pids():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name in sums:
                sums[name] += int(value.split()[0])
    return sums["Rss"] * KIB / MIB, sums["Pss"] * KIB / MIB


# --- the table of the guide


def as_table(rows: Sequence[Row]) -> str:
    """One line a host, the cheapest at 8 streams first: CPU per KB, throughput and memory."""
    found = {row.name: row for row in rows}
    names = [row.name.partition(":")[0] for row in rows if row.name.endswith(": RSS")]
    head = ["host"]
    for number in ("1 stream", "8 streams"):
        head += [f"CPU, {number}", "of a bare loop", f"MB/s, {number}"]
    head += ["RSS", "PSS"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]

    def cost(name: str) -> float:
        return median(found[f"{name}: CPU, streams: 8"].ours)

    for name in sorted(names, key=cost):
        cells = [name]
        for streams in STREAMS:
            row = found[f"{name}: CPU, streams: {streams}"]
            cells += [f"{median(row.ours):.3f} µs/KB", f"{row.ratio:.2f}"]
            cells.append(f"{median(found[f'{name}: throughput, streams: {streams}'].ours):,.0f}")
        cells += [f"{median(found[f'{name}: {what}'].ours):.0f} MiB" for what in ("RSS", "PSS")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
