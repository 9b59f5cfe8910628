"""Processes that live until they are killed.

They are forks of one that has loaded what they need: to start Python takes longer than they live.
What one finds that must not be it writes to the file ``wrong`` of its campaign.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.serving import environment

_GUARD = 60.0  # seconds; a hang guard


class Forks:
    """Forks of ``program``, which ``serve`` makes; each is told what to do in one line."""

    def __init__(self, program: Path, *words: object) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, program, *map(str, words)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment({"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}),
        )  # fmt: skip

    def begin(self, line: str) -> int:
        """The process number of one that begins."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        print(line, file=self._parent.stdin, flush=True)
        return int(self._parent.stdout.readline())

    @contextlib.contextmanager
    def one(self, line: str) -> Iterator[None]:
        """A process that is killed at the end."""
        number = self.begin(line)
        try:
            yield
        finally:
            os.kill(number, signal.SIGKILL)  # ProcessLookupError if it died by itself
            self.wait(number)

    def wait(self, number: int) -> None:
        """Wait until a process is gone."""
        deadline = time.monotonic() + _GUARD
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.kill(number, 0)
                time.sleep(0.0005)
            raise AssertionError(f"process {number} does not end")

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.kill()
        self._parent.communicate()


def serve(live: Callable[[str], object], wrong: str) -> None:
    """Fork a process for each line on standard input, which it ``live``s, and say its number."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the dead are gone
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                live(line)
            except BaseException:
                with open(wrong, "a") as file:
                    traceback.print_exc(file=file)
            os._exit(1)
        print(child, flush=True)
