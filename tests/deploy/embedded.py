"""Runs tests/deploy/embedded_app.py on the embedded server."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from tests.deploy.wire import GUARD, Wire
from tools.serving import READY, environment

ROOT = Path(__file__).parents[2]


@dataclass
class Embedded:
    """A running server that serves the files of ``directory``."""

    process: subprocess.Popen[str]
    directory: Path
    url: str = ""
    under: bool = False

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def events(self) -> list[str]:
        """What the application noted, line by line."""
        return (self.directory / "events").read_text().splitlines()

    def connect(self, **how: Any) -> Wire:
        return Wire(self.port, **how)

    def ask(self, method: str, target: str) -> Any:
        """One request on a connection of its own; the JSON answered."""
        with self.connect() as wire:
            return wire.request(method, target).json

    def descriptors(self) -> int:
        return int(self.ask("GET", "/process")["descriptors"])

    def wait_for_log(self, text: str) -> None:
        wait_until(lambda: text in self.log)

    @property
    def pid(self) -> int:
        """The server's main process: the child of what it runs under, if anything."""
        process = psutil.Process(self.process.pid)
        return process.children()[0].pid if self.under else process.pid

    def stop(self, sig: int = signal.SIGTERM) -> int:
        os.kill(self.pid, sig)
        return self.process.wait(GUARD)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@contextlib.contextmanager
def embedded(
    directory: Path,
    *settings: str,
    under: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Embedded]:
    """A server with ``settings`` (OPTION=VALUE); afterwards nothing of it is left running."""
    words = [sys.executable, "-m", "tests.deploy.embedded_app", str(directory), *settings]
    with (directory / "log").open("ab") as stderr:
        process = subprocess.Popen(
            [*under, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=ROOT,
            env=environment({"PYTHONPATH": f"{ROOT}/src", **(env or {})}),
            start_new_session=True,
        )
    assert process.stdout is not None
    server = Embedded(process, directory, under=bool(under))
    try:
        server.url = _url(process.stdout, server)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(GUARD)
        process.stdout.close()


def _url(stdout: IO[str], server: Embedded) -> str:
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        line = stdout.readline() if selector.select(GUARD) else ""
    assert line.startswith(READY), server.log
    return line.removeprefix(READY).strip()
