"""The embedded server with more clients than it could have threads, one worker process.

A crowd of slow clients (crowd.py) and what it costs and delays; then fast downloads beside a bare
sendfile loop and nginx, and small images beside gunicorn's own threaded worker.
"""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO, Any

from benchmarks import imageapi, network, processes, static, tool
from benchmarks.plan import Plan, interleaved, random_file, warm
from benchmarks.row import GIB, KIB, MIB, Row, at_most, ratio_at_least, ratio_at_most
from benchmarks.tool import Sample
from headrace.bench import cache
from tools import hosts
from tools.serving import Serving, serving

CROWD = 4096
SLOW = 16 * KIB  # bytes a second of each
FEW, FEWS_RATE = 1000, 64 * KIB
ASKED = 5000  # requests whose latency is measured
_UPLOADS = 16
_COLD, _COLD_SIZE, _COLD_RATE = 64, 32 * MIB, 2 * MIB
_ASKERS, _EACH = 8, 1000  # clients at once, and requests of each
_FAST = (1, 8, 64)
_SMALL = (64 * KIB, 256 * KIB, MIB)


def run(plan: Plan) -> list[Row]:
    """Rows of the crowd, of latencies, of fast and of small downloads."""
    directory = Path(tempfile.mkdtemp(prefix="headrace-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        source = directory / "image"
        random_file(source, GIB)
        source.chmod(0o644)
        warm(source)
        with serving(directory / "scale") as server:
            image = imageapi.put(server, source)
            rows = [*_crowds(server, image), *_latencies(server, image, directory)]
        rows += _workers(plan, directory, source)
        for congestion in network.alternatives():
            with network.under(congestion):
                rows += _fast(plan, directory / congestion, source, congestion)
        with network.under(network.alternatives()[-1]):
            rows += _small(plan, directory)
        return rows
    finally:
        shutil.rmtree(directory)


# --- a crowd


@dataclass
class Crowd:
    """Slow clients under way; ``waited`` is for how many seconds each had to for its first byte."""

    process: subprocess.Popen[str]
    waited: list[float]

    def stop(self) -> dict[str, Any]:
        """What each has taken, in how many seconds, and how many failed."""
        assert self.process.stdin is not None
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        found: dict[str, Any] = _line(self.process.stdout)
        return found


@contextlib.contextmanager
def _crowd(server: Serving, images: list[str], count: int, rate: int, pace: int) -> Iterator[Crowd]:
    paths = ",".join(map(imageapi.data_path, images))
    words = [str(server.port), paths, str(count), str(rate), str(pace)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.crowd", *words], cwd=processes.ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with process:
        try:
            yield Crowd(process, _line(process.stdout)["waited"])
        finally:
            process.kill()


def _line(stream: IO[str] | None) -> Any:
    assert stream is not None
    return json.loads(stream.readline())


def _crowds(server: Serving, image: str) -> Iterator[Row]:
    """4,096 at once, in two ways of coming."""
    (worker,) = server.pids()[1:]
    memory = int(Path("/proc/sys/net/ipv4/tcp_mem").read_text().split()[2])
    alone = [tool.get(server, image, GIB, 1).rate for _ in range(3)]
    for pace, most, how in ((500, 2.0, "500 a second"), (0, 8.0, "all at once")):
        title = f"{CROWD:,} slow downloads, {how}"
        with _crowd(server, [image], CROWD, SLOW, pace) as crowd:
            time.sleep(10)
            resident, tcp = _resident(worker), _tcp_pages()
            fast = [tool.get(server, image, GIB, 1).rate for _ in range(3)]
            opened = len(os.listdir(f"/proc/{worker}/fd"))
            found = crowd.stop()
        if found["failed"]:
            raise RuntimeError(f"{title}: {found['failed']} failed")
        share = found["taken"][0] / found["seconds"] / SLOW
        bound = 120 + 24 * KIB * CROWD / MIB
        yield Row(f"{title}: longest wait for a first byte", "s", crowd.waited[-1:],
                  target=at_most(most))  # fmt: skip
        yield Row(f"{title}: the least of all rates", "of its own", [share], [1.0],
                  "the rate it takes", ratio_at_least(0.9))  # fmt: skip
        yield Row(f"{title}: RSS", "MiB", [resident], [bound], "120 MiB + 24 KiB each",
                  ratio_at_most(1.0))  # fmt: skip
        yield Row(f"{title}: TCP memory", "pages", [tcp], [memory], "tcp_mem",
                  ratio_at_most(0.5))  # fmt: skip
        yield Row(f"{title}: a fast one meanwhile", "MB/s", [median(fast)], [median(alone)],
                  "alone", ratio_at_least(0.3))  # fmt: skip
        yield Row(f"{title}: descriptors", "", [opened], [CROWD], "a download",
                  ratio_at_most(1.2))  # fmt: skip
        time.sleep(2)


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * KIB / MIB
    raise RuntimeError(f"process {pid} is gone")


def _tcp_pages() -> int:
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1])
    raise RuntimeError("no word of TCP in /proc/net/sockstat")


# --- how long a small request takes meanwhile


def _latencies(server: Serving, image: str, directory: Path) -> Iterator[Row]:
    loads: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
        f"{FEW:,} slow downloads": lambda: _crowd(server, [image], FEW, FEWS_RATE, 500),
        f"{_UPLOADS} uploads": lambda: _uploads(server, directory),
        f"{_COLD} downloads of cold files": lambda: _cold(server, directory),
    }
    for what, load in loads.items():
        before = _ask(server, image)
        with load():
            busy = _ask(server, image)
        idle = [(one + other) / 2 for one, other in zip(before, _ask(server, image), strict=True)]
        title = f"GET of one image during {what}"
        bounds = [max(1.5 * idle[0], idle[0] + 1.0), max(2 * idle[1], idle[1] + 5.0)]
        names = ("idle, half as much more or 1 ms", "idle, as much more or 5 ms")
        for number, percentile in enumerate(("p50", "p99")):
            yield Row(f"{title}: {percentile}", "ms", [busy[number]], [bounds[number]],
                      names[number], ratio_at_most(1.0))  # fmt: skip


def _ask(server: Serving, image: str) -> list[float]:
    """p50 and p99 of a GET of one image on one connection, ms."""
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        for _ in range(ASKED):
            started = time.perf_counter()
            connection.request("GET", f"/v2/images/{image}")
            answer = connection.getresponse()
            answer.read()
            took.append((time.perf_counter() - started) * 1000)
            if answer.status != http.client.OK:
                raise RuntimeError(f"GET of one image: {answer.status}")
    took.sort()
    return [took[len(took) // 2], took[len(took) * 99 // 100]]


@contextlib.contextmanager
def _uploads(server: Serving, directory: Path) -> Iterator[None]:
    """Uploads without an end, of 2 MiB a second each."""
    file = directory / "uploaded"
    random_file(file, 256 * MIB)
    with tool.running(server, ["-t", "IMAGE_PUT", "-F", file, "--slow", "2M"], _UPLOADS):
        yield
    file.unlink()


@contextlib.contextmanager
def _cold(server: Serving, directory: Path) -> Iterator[None]:
    """Downloads of as many images, none of which is in memory."""
    file = directory / "cold"
    random_file(file, _COLD_SIZE)
    images = [imageapi.put(server, file) for _ in range(_COLD)]
    for image in images:
        with (server.image_dir / image).open("rb") as stored:
            cache.drop(stored.fileno(), image)
    with _crowd(server, images, _COLD, _COLD_RATE, 0):
        yield
    for image in images:
        imageapi.delete(server, image)


# --- several workers on one listening socket


def _workers(plan: Plan, directory: Path, source: Path) -> Iterator[Row]:
    """How they share connections out, and what two on two cores are worth, clients included."""
    with contextlib.ExitStack() as stack:
        servers = {
            number: stack.enter_context(
                serving(directory / f"workers-{number}", "--workers", str(number))
            )
            for number in (1, 2)
        }
        images = {number: imageapi.put(server, source) for number, server in servers.items()}
        with _crowd(servers[2], [images[2]], FEW, FEWS_RATE, 500):
            (_, *workers) = servers[2].pids()
            shares = [_connections(pid) for pid in workers]
        yield Row("two workers: the lesser share of 1,000 connections", "", [min(shares)],
                  [FEW / 2], "half of them", ratio_at_least(0.5))  # fmt: skip
        measures: dict[str, Callable[[], float]] = {
            name: partial(_asked_at_once, servers[number], images[number])
            for number, name in ((2, "two"), (1, "one"))
        }
        taken = interleaved(plan.rounds, measures)
        yield Row(f"two workers: GETs of one image by {_ASKERS} clients", "a second", taken["two"],
                  taken["one"], "one worker")  # fmt: skip


def _connections(pid: int) -> int:
    """The sockets a process has."""
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(fd).startswith("socket:")
    return found


def _asked_at_once(server: Serving, image: str) -> float:
    """Records a second that several clients get, each on a connection of its own."""
    words = [str(server.port), f"/v2/images/{image}", str(_EACH)]
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.asker", *words], cwd=processes.ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(_ASKERS)
    ]  # fmt: skip
    for client in clients:
        assert client.stdout is not None
        client.stdout.readline()
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
    seconds = [float(client.communicate()[0]) for client in clients]
    return _ASKERS * _EACH / max(seconds)


# --- fast downloads, and small ones


def _fast(plan: Plan, directory: Path, source: Path, congestion: str) -> Iterator[Row]:
    bare_name, nginx_name = "bare sendfile loop", "nginx, the file itself"
    directory.mkdir(mode=0o755)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(serving(directory / "fast"))
        image = imageapi.put(ours, source)
        file = ours.image_dir / image
        file.unlink()
        os.link(source, file)
        bare = stack.enter_context(processes.yardstick("bare", source.parent))
        nginx = stack.enter_context(static.serving(directory / "static", source))
        for streams in _FAST:
            measures: dict[str, Callable[[], Sample]] = {
                "ours": partial(tool.get, ours, image, GIB, streams),
                bare_name: partial(tool.get, bare, source.name, GIB, streams),
                nginx_name: partial(tool.get, nginx, source.name, GIB, streams),
            }
            taken = interleaved(plan.rounds, measures)
            demand = {name: [each.demand for each in taken[name]] for name in taken}
            rate = {name: [each.rate for each in taken[name]] for name in taken}
            title = f"fast downloads, {congestion}, streams: {streams}"
            yield Row(f"{title}: server CPU", "µs/KB", demand["ours"], demand[bare_name],
                      bare_name, ratio_at_most(1.15))  # fmt: skip
            yield Row(f"{title}: server CPU", "µs/KB", demand["ours"], demand[nginx_name],
                      nginx_name, ratio_at_most(0.65))  # fmt: skip
            yield Row(f"{title}: throughput", "MB/s", rate["ours"], rate[nginx_name],
                      nginx_name, ratio_at_least(1.0))  # fmt: skip


def _small(plan: Plan, directory: Path) -> Iterator[Row]:
    with hosts.running("embedded") as ours, hosts.running("gunicorn-gthread") as theirs:
        for size in _SMALL:
            source = directory / f"small-{size}"
            random_file(source, size)
            measures: dict[str, Callable[[], tool.Asked]] = {
                "ours": partial(tool.ask, ours, imageapi.put(ours, source)),
                "theirs": partial(tool.ask, theirs, imageapi.put(theirs, source)),
            }
            taken = interleaved(plan.rounds, measures)
            title = f"images of {size // KIB} KiB, one after the other"
            ours_rates, rates = ([each.rate for each in taken[name]] for name in measures)
            yield Row(f"{title}: downloads a second", "", ours_rates, rates, "gunicorn gthread",
                      ratio_at_least(1.0))  # fmt: skip
            yield Row(f"{title}: each takes", "ms", [each.latency for each in taken["ours"]],
                      target=at_most(20.0))  # fmt: skip
