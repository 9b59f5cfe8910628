"""What one transfer cost: wall time and CPU of both ends, and the system calls that carried it."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.serving import COMMAND, Serving, environment

KIB = 1024
MB = 1_000_000
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """One transfer of ``bytes``; CPU in seconds, user and system together."""

    bytes: int
    wall: float
    client_cpu: float
    server_cpu: float
    output: str

    @property
    def rate(self) -> float:
        """MB (10⁶ bytes) per second."""
        return self.bytes / MB / self.wall

    @property
    def cpu(self) -> float:
        """CPU seconds of both ends."""
        return self.client_cpu + self.server_cpu

    @property
    def client_demand(self) -> float:
        """Service demand of the client: µs of CPU per KB (1024 bytes)."""
        return self.client_cpu * 1e6 / (self.bytes / KIB)

    @property
    def server_demand(self) -> float:
        return self.server_cpu * 1e6 / (self.bytes / KIB)


def cpu_seconds(server: Serving) -> float:
    """CPU that the server's processes have used, those of its threads that ended included."""
    ticks = 0
    for pid in server.pids():
        # utime and stime are fields 14 and 15; the name, field 2, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK


def transfer(
    server: Serving,
    words: Sequence[str],
    size: int,
    *,
    env: Mapping[str, str],
    under: Sequence[str] = (),
) -> Cost:
    """Run ``headrace WORDS`` against ``server``, after the words of ``under`` (strace, say)."""
    before = cpu_seconds(server)
    started = time.monotonic()
    process = subprocess.Popen(
        [*under, str(COMMAND), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment({**env, "HEADRACE_URL": server.url}),
        text=True,
    )
    with process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"headrace {' '.join(words)} ended with {process.returncode}: {output}")
    server_cpu = cpu_seconds(server) - before
    return Cost(size, wall, usage.ru_utime + usage.ru_stime, server_cpu, output)
