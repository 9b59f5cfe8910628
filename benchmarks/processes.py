"""Other processes: programs of this package, and commands whose cost is wanted."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tools.serving import environment

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Spent:
    """What a command cost, from its start to its end: wall seconds and CPU in µs."""

    seconds: float
    cpu_us: float
    output: str


def run(words: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Spent:
    """Run a command; its CPU includes that of children it waited for.

    Raises RuntimeError when it fails.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(env),
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    if process.returncode:
        command = " ".join(map(str, words))
        raise RuntimeError(f"{command} ended with {process.returncode}:\n{output}")
    return Spent(seconds, _cpu_us(usage), output)


def _cpu_us(usage: resource.struct_rusage) -> float:
    return (usage.ru_utime + usage.ru_stime) * 1e6


def result(module: str, *words: str | Path) -> dict[str, Any]:
    """Run a program of this package that prints its result as JSON."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.{module} failed: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@dataclass
class Yardstick:
    """A server of this package, in its own process."""

    process: subprocess.Popen[str]
    port: int

    def pids(self) -> list[int]:
        return [self.process.pid]

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout


@contextlib.contextmanager
def yardstick(module: str, *words: str | Path) -> Iterator[Yardstick]:
    """Run a server of this package that prints its port first.

    In a session of its own, as the servers it is compared with: the scheduler shares the processors
    out among sessions (sched_autogroup), and the client's must not be the yardstick's too.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield Yardstick(process, int(process.stdout.readline()))
        finally:
            process.kill()
