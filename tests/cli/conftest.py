"""Running `headrace` as a user does: a process, its words, its standard streams."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tools.serving import Serving, environment

COMMAND = Path(sys.executable).with_name("headrace")
GUARD = 60.0  # seconds; a hang guard


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def image_id(self) -> str:
        """The id that `add` wrote."""
        assert self.status == 0, self.err
        return self.out.split("Added new image with ID: ")[1].split()[0]


Headrace = Callable[..., Outcome]


def run(
    *words: str | Path,
    stdin: bytes | IO[bytes] | None = None,
    env: dict[str, str] | None = None,
    under: list[str] | None = None,
) -> Outcome:
    """Run the command; standard input is /dev/null, a pipe of these bytes, or that file."""
    given: dict[str, object] = {"stdin": subprocess.DEVNULL}
    if stdin is not None:
        given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    done = subprocess.run(  # type: ignore[call-overload]
        [*(under or ()), COMMAND, *words],
        env=environment(env),
        capture_output=True,
        timeout=GUARD,
        **given,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def headrace(server: Serving) -> Headrace:
    """``headrace(*words, stdin=…)`` against the shared server."""

    def call(*words: str | Path, **how: object) -> Outcome:
        env = {"HEADRACE_URL": server.url} | dict(how.pop("env", None) or {})  # type: ignore[call-overload]
        return run(*words, env=env, **how)  # type: ignore[arg-type]

    return call
