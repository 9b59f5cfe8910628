"""What a run was made on: figures without it mean nothing."""

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

from benchmarks import cpu, network
from benchmarks.glance import VENV
from benchmarks.plan import Plan
from benchmarks.processes import ROOT
from benchmarks.row import GIB, KIB

_SAMPLE = 2.0  # seconds


def describe(plan: Plan) -> dict[str, str]:
    """The machine, its system and the versions compared."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{_memory_gib():.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "congestion control": network.congestion_control(),
        "disk": _file_system(plan.disk),
        "tmpfs": "none" if plan.memory is None else _file_system(plan.memory),
        "Python": platform.python_version(),
        "Headrace": metadata.version("headrace"),
        "Glance": f"{_version(VENV, 'glance')} on uWSGI {_version(VENV, 'pyuwsgi')}, 4 processes",
        "python-glanceclient": _version(ROOT / ".venv-clients", "python-glanceclient"),
        "network": "loopback",
    }


def other_load() -> float:
    """How busy the machine is while nothing is measured: 1.0 is all of its cores."""
    before, started = cpu.busy(), time.monotonic()
    time.sleep(_SAMPLE)
    return (cpu.busy() - before) / (time.monotonic() - started) / (os.cpu_count() or 1)


def _processor() -> str:
    lines = _read("/proc/cpuinfo").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")


def _memory_gib() -> float:
    return int(_read("/proc/meminfo").split()[1]) * KIB / GIB


def _file_system(path: Path) -> str:
    """The type of the file system that ``path`` lies on, and its options."""
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    for line in _read("/proc/self/mountinfo").splitlines():
        fields, _, details = line.partition(" - ")
        if fields.split()[2] == name:
            return f"{details.split()[0]} ({fields.split()[5]})"
    return "?"


def _version(venv: Path, distribution: str) -> str:
    program = f"from importlib.metadata import version; print(version({distribution!r}))"
    done = subprocess.run(
        [venv / "bin" / "python", "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()
