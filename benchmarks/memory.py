"""Whether the server's memory depends on the image's size: its peak after 1 MiB and after 8 GiB."""

import shutil
from pathlib import Path

from benchmarks import imageapi, tool
from benchmarks.plan import Plan, sparse_file
from benchmarks.row import GIB, KIB, MIB, Row, ratio_at_most
from tools.serving import Serving, serving


def run(plan: Plan) -> list[Row]:
    """One row, of one round: a peak does not vary."""
    peaks = [_peak(plan.disk, size) for size in (MIB, 8 * GIB)]
    return [
        Row(
            "peak RSS of the worker, 8 GiB up and down",
            "MiB",
            [peaks[1]],
            [peaks[0]],
            "1 MiB up and down",
            ratio_at_most(1.1),
        )
    ]


def _peak(directory: Path, size: int) -> float:
    source, state_dir = directory / "source", directory / "memory"
    sparse_file(source, size)
    try:
        with serving(state_dir) as server:
            image = imageapi.put(server, source)
            tool.get(server, image, size, streams=1)
            return _worker_peak(server)
    finally:
        shutil.rmtree(state_dir)
        source.unlink()


def _worker_peak(server: Serving) -> float:
    _, worker = server.pids()
    status = Path(f"/proc/{worker}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * KIB / MIB
