"""What a test needs of the machine: skipped where it is missing, a failure where CI promised it."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest


def require(condition: bool, reason: str) -> None:
    """Go on only when ``condition`` holds; otherwise skip with ``reason``, or fail in CI."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must not skip this: {reason}")
    pytest.skip(reason)


def require_root() -> None:
    require(os.geteuid() == 0, "needs root")


def require_command(name: str) -> str:
    """The path of the program ``name``."""
    path = shutil.which(name)
    require(path is not None, f"needs the program {name}")
    return str(path)


def require_strace() -> str:
    """The path of an strace that may trace its own children here."""
    path = require_command("strace")
    require(_can_trace(path), "strace is not allowed to trace processes here")
    return path


@cache
def _can_trace(strace: str) -> bool:
    return subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True).returncode == 0


def require_environment(name: str) -> Path:
    """The bin directory of a peer's environment (.venv-clients, .venv-glance)."""
    directory = Path(__file__).parents[1] / name
    require((directory / ".ready").exists(), f"needs {name}: make {name}/.ready")
    return directory / "bin"
