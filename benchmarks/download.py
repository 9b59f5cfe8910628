"""Download of 1 GiB from a warm page cache: CPU of the server beside a bare sendfile loop and
Glance, the same file behind all three."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import glance, imageapi, network, processes, tool
from benchmarks.cpu import Server
from benchmarks.plan import Plan, interleaved, random_file, warm
from benchmarks.row import GIB, Row, Target, ratio_at_most
from benchmarks.tool import Sample
from tools.hosts import free_port
from tools.serving import serving

# Streams, and how many measurements a round: a single download is over soon, and its cost varies.
STREAMS = {1: 3, 8: 1}
_BARE, _GLANCE = "bare sendfile loop", "Glance 33"


def run(plan: Plan) -> list[Row]:
    """Rows of 1 and 8 streams, under every congestion control there is."""
    rows = []
    for congestion in network.alternatives():
        directory = plan.disk / congestion
        directory.mkdir()
        with network.under(congestion), _servers(directory) as servers:
            for streams, measurements in STREAMS.items():
                measures: dict[str, Callable[[], Sample]] = {
                    name: partial(tool.get, server, image, GIB, streams)
                    for name, (server, image) in servers.items()
                }
                taken = interleaved(measurements * plan.rounds, measures)
                rows += _rows(f"download, {congestion}, streams: {streams}", taken)
        shutil.rmtree(directory)
    return rows


def _rows(name: str, taken: dict[str, list[Sample]]) -> list[Row]:

    def row(what: str, unit: str, field: str, beside: str, target: Target | None = None) -> Row:
        ours, other = (
            [getattr(sample, field) for sample in taken[who]] for who in ("Headrace", beside)
        )
        return Row(f"{name}: {what}", unit, ours, other, beside, target)

    return [
        row("server CPU", "µs/KB", "demand", _BARE, ratio_at_most(1.25)),
        row("server CPU", "µs/KB", "demand", _GLANCE, ratio_at_most(0.45)),
        row("whole machine's CPU", "µs/KB", "machine", _BARE),
        row("whole machine's CPU", "µs/KB", "machine", _GLANCE),
        row("throughput", "MB/s", "rate", _BARE),
        row("throughput", "MB/s", "rate", _GLANCE),
    ]


@contextlib.contextmanager
def _servers(directory: Path) -> Iterator[dict[str, tuple[Server, str]]]:
    """The three servers and the image's id at each."""
    source = directory / "image"
    random_file(source, GIB)
    glance.prepare(directory / "glance", free_port())
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(serving(directory / "headrace"))
        peer = stack.enter_context(glance.serving(directory / "glance"))
        image = imageapi.put(ours, source)
        same = imageapi.put(peer, source)
        source.unlink()
        file = ours.image_dir / image
        # Literally the same file: how its pages lie in memory decides over part of the cost.
        (peer.image_dir / same).unlink()
        os.link(file, peer.image_dir / same)
        warm(file)
        bare = stack.enter_context(processes.yardstick("bare", ours.image_dir))
        yield {
            "Headrace": (ours, image),
            _BARE: (bare, image),
            _GLANCE: (peer, same),
        }
