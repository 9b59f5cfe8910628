"""A real `headrace serve` for tests, demo and benchmarks: its own process, port and directory."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

COMMAND = Path(sys.executable).with_name("headrace")
READY = "Headrace listening on "
START_GUARD = 60.0  # seconds; a hang guard, not a bound on start-up
STOP_GUARD = 60.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would point Headrace or a client elsewhere."""
    foreign = ("HEADRACE_", "OS_", "XDG_STATE_HOME")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }
    return kept | dict(extra or {})


@dataclass
class Serving:
    """A running server; ``process`` is what was started: the server, or what it runs under."""

    process: subprocess.Popen[str]
    url: str
    state_dir: Path
    log: Path
    under: bool = False

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def image_dir(self) -> Path:
        return self.state_dir / "images"

    @property
    def pid(self) -> int:
        """The server's main process: the child of what it runs under, if anything."""
        return children(self.process.pid)[0] if self.under else self.process.pid

    def pids(self) -> list[int]:
        """The server's main process, then its workers and theirs."""
        return family(self.pid)

    def stop(self) -> int:
        """End it as an operator would, by SIGTERM; returns its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(STOP_GUARD)

    def kill(self) -> None:
        """End every process of it at once, by SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_GUARD)


@contextlib.contextmanager
def serving(
    state_dir: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
) -> Iterator[Serving]:
    """Run ``headrace serve`` with ``options``, after the words of ``under`` (strace, say).

    Yields once it answers; afterwards nothing of it is left running.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    log = state_dir / "serve.log"
    words = [*under, str(COMMAND), "serve", "--state-dir", str(state_dir), "--port", "0", *options]
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(env),
            start_new_session=True,
        )
    assert process.stdout is not None
    server = Serving(process, "", state_dir, log, under=bool(under))
    try:
        server.url = _wait_until_ready(process.stdout, log)
        yield server
    finally:
        server.kill()
        process.stdout.close()


def family(pid: int) -> list[int]:
    """A process, its children and theirs."""
    found = [pid]
    for each in found:
        found.extend(children(each))
    return found


def children(pid: int) -> list[int]:
    """The child processes of a process; none when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found.extend(map(int, children.read_text().split()))
    return found


def _wait_until_ready(stdout: IO[str], log: Path) -> str:
    deadline = time.monotonic() + START_GUARD
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            line = stdout.readline()
            if line.startswith(READY):
                return line.removeprefix(READY).strip()
            if not line:
                break
    raise RuntimeError(f"the server did not start; it said:\n{log.read_text()}")
