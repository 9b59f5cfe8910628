"""`headrace bench` as the client of every service that is measured."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cpu import Server
from benchmarks.row import KIB, MB, MIB
from tools.serving import COMMAND, environment

_SETTLING = 3.0  # seconds until all clients are at work


@dataclass(frozen=True)
class Sample:
    """One measurement: µs/KB of the server and of the whole machine, and MB/s."""

    demand: float
    machine: float
    rate: float


@dataclass(frozen=True)
class Asked:
    """Downloads one after the other: how many a second, and ms for each."""

    rate: float
    latency: float


def get(server: Server, image: str, size: int, streams: int) -> Sample:
    """As many downloads at once of an image of ``size`` bytes."""
    words = ["--image", image, "--via", "splice", "--streams", str(streams)]
    return _sample(server, "IMAGE_GET", size * streams, words)


def put(server: Server, file: Path) -> Sample:
    """The upload of a file, which is deleted again."""
    return _sample(server, "IMAGE_PUT", file.stat().st_size, ["--via", "sendfile", "-F", file])


def ask(server: Server, image: str) -> Asked:
    """Downloads of a small image, one after the other, for a second."""
    found = _run([*_words(server, "IMAGE_GET"), "--image", image, "-l", "1"])
    return Asked(found["TRANSACTION_RATE"], found["RT_LATENCY"] / 1000)


def storm(
    server: Server, image: str, clients: int, store: Sequence[int], seconds: float
) -> dict[str, Any]:
    """The figures of a storm, and of ``seconds`` of fetching again; ``store`` are pids."""
    pids = [word for pid in store for word in ("--store-pid", str(pid))]
    pids += [word for pid in server.pids() for word in ("--far-pid", str(pid))]
    words = ["--image", image, "--clients", str(clients), "-l", str(seconds), "-f", "M", "-C"]
    return _run([*_words(server, "BOOT_STORM"), *words, *pids])


@contextlib.contextmanager
def running(server: Server, words: Sequence[str | Path], streams: int) -> Iterator[None]:
    """Have clients at work meanwhile; RuntimeError if they did not last."""
    url = f"http://127.0.0.1:{server.port}"
    process = subprocess.Popen(
        [COMMAND, "bench", "--url", url, *words, "--streams", str(streams), "-l", "600"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    try:
        time.sleep(_SETTLING)
        yield
        if process.poll() is not None:
            raise RuntimeError(f"{' '.join(map(str, words))} ended by itself")
    finally:
        process.terminate()
        process.wait()


def _words(server: Server, test: str) -> list[str | Path]:
    url = f"http://127.0.0.1:{server.port}"
    return [COMMAND, "bench", "-t", test, "--url", url, "--json"]


def _sample(server: Server, test: str, size: int, words: Sequence[str | Path]) -> Sample:
    pids = [word for pid in server.pids() for word in ("--far-pid", str(pid))]
    found = _run([*_words(server, test), "-l", f"-{size}", "-f", "M", "-c", "-C", *pids, *words])
    got = found["THROUGHPUT"] * MIB * found["ELAPSED_TIME"]
    if abs(got - size) > KIB:
        raise RuntimeError(f"{got:.0f} bytes went over instead of {size}")
    return Sample(
        demand=found["REMOTE_PROC_SD"],
        machine=found["REMOTE_SD"],
        rate=found["THROUGHPUT"] * MIB / MB,
    )


def _run(words: Sequence[str | Path]) -> dict[str, Any]:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment()
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words[1:4]))}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found
