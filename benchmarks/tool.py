"""`headrace bench` as the client of every service that is measured."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cpu import Server
from benchmarks.row import KIB, MB, MIB
from tools.serving import COMMAND, environment


@dataclass(frozen=True)
class Sample:
    """One measurement: µs/KB of the server and of the whole machine, and MB/s."""

    demand: float
    machine: float
    rate: float


def get(server: Server, image: str, size: int, streams: int) -> Sample:
    """As many downloads at once of an image of ``size`` bytes."""
    words = ["--image", image, "--via", "splice", "--streams", str(streams)]
    return _measure(server, "IMAGE_GET", size * streams, words)


def put(server: Server, file: Path) -> Sample:
    """The upload of a file, which is deleted again."""
    return _measure(server, "IMAGE_PUT", file.stat().st_size, ["--via", "sendfile", "-F", file])


def _measure(server: Server, test: str, size: int, words: Sequence[str | Path]) -> Sample:
    pids = [word for pid in server.pids() for word in ("--far-pid", str(pid))]
    url = f"http://127.0.0.1:{server.port}"
    command = [COMMAND, "bench", "-t", test, "--url", url, "-l", f"-{size}", "-f", "M", *words]
    done = subprocess.run(
        [*command, *pids, "-c", "-C", "--json"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"headrace bench -t {test}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)[0]
    got = found["THROUGHPUT"] * MIB * found["ELAPSED_TIME"]
    if abs(got - size) > KIB:
        raise RuntimeError(f"{got:.0f} bytes went over instead of {size}")
    return Sample(
        demand=found["REMOTE_PROC_SD"],
        machine=found["REMOTE_SD"],
        rate=found["THROUGHPUT"] * MIB / MB,
    )
