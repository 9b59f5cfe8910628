"""Storms by `headrace bench -t BOOT_STORM`, and what the store saw of each."""

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import tool
from benchmarks.cpu import Server
from benchmarks.plan import settle
from benchmarks.row import MIB
from tools.swift import Swift

_LATE = 0.3  # seconds for the store to tell of a request that is over
_WARM = 5  # seconds of fetching again


@dataclass(frozen=True)
class Storm:
    """One storm: seconds but for ``reads`` and for µs/KB of what the clients got, and of the store
    by what one client got; ``warm`` is what all would have taken at the rate of a warm cache."""

    reads: float
    wall: float
    warm: float
    first_p50: float
    first_p99: float
    fetch_p50: float
    fetch_p99: float
    demand: float
    store: float


class AccessLog:
    """What a Swift tells of requests, at a port of UDP."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self._sock.setblocking(False)
        self.port: int = self._sock.getsockname()[1]

    def reads(self, name: str) -> int:
        """How often an object of this name was got, since this was asked the last time."""
        time.sleep(_LATE)
        found = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                line = self._sock.recv(1 << 16).decode()
                found += " GET " in line and f"/{name} " in line
        return found

    def close(self) -> None:
        self._sock.close()


@contextlib.contextmanager
def listening() -> Iterator[AccessLog]:
    with contextlib.closing(AccessLog()) as log:
        yield log


def storm(
    server: Server, image: str, size: int, clients: int, swift: Swift, log: AccessLog
) -> Storm:
    """Clients who all fetch an image of ``size`` bytes that no cache has."""
    settle()  # or what another storm wrote, Glance's gigabytes above all, would go out beside this
    log.reads(image)
    found = tool.storm(server, image, clients, swift.pids(), _WARM)
    reads = log.reads(image)
    told = found["BACKEND_READS"]
    if (found["CACHE"], found["CLIENTS_SERVED"]) != ("cold", clients) or told not in (None, reads):
        raise RuntimeError(f"{reads} reads of the store, {found}")
    return Storm(
        reads=reads,
        wall=found["ELAPSED_TIME"],
        warm=clients * size / (found["WARM_THROUGHPUT"] * MIB),
        first_p50=found["FIRST_BYTE_P50"],
        first_p99=found["FIRST_BYTE_P99"],
        fetch_p50=found["FETCH_P50"],
        fetch_p99=found["FETCH_P99"],
        demand=found["REMOTE_PROC_SD"],
        store=found["STORE_PROC_SD"] * clients,
    )
