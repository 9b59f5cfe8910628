"""A second environment of Headrace's dependencies, for what runs as another user.

Apache's mod_wsgi is built for the distribution's Python, and the users that nginx and Apache run
as can read neither a checkout in somebody's home nor a Python installed there.  So this one is made
with /usr/bin/python3 in a directory that all can read.

``python -m tools.system_environment`` makes it, unless it is there, and prints where.
"""

import atexit
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "headrace-keystone.lock"
PYTHON = Path("/usr/bin/python3")


def directory() -> Path:
    """Where it is, or will be: a place per user and lock."""
    version = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    return Path(f"/var/tmp/headrace-tests-{os.geteuid()}") / f"env-{version}"


def ensure() -> Path:
    """The environment's directory, made if need be.

    Raises RuntimeError when it cannot be made, or when somebody else has put something there.
    """
    place = directory()
    place.parent.mkdir(mode=0o755, exist_ok=True)
    if place.parent.is_symlink() or place.parent.stat().st_uid != os.geteuid():
        raise RuntimeError(f"{place.parent} belongs to somebody else")
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes may want it at once
        if not (place / ".ready").exists():
            _make(place)
    return place


@functools.cache
def copy_of_headrace() -> Path:
    """Copy the package as it is now, and compile it, since other users cannot keep what they
    compile; the directory to be put on the Python path, there until this process ends."""
    place = tempfile.TemporaryDirectory(prefix="packages-", dir=directory().parent)
    atexit.register(place.cleanup)
    Path(place.name).chmod(0o755)
    packages = Path(place.name) / "a b'c%41+d&é"  # which configuration files have to quote
    shutil.copytree(
        ROOT / "src" / "headrace",
        packages / "headrace",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    python = directory() / "bin" / "python"
    subprocess.run([python, "-m", "compileall", "-q", packages], check=True)
    return packages


def _make(place: Path) -> None:
    before = os.umask(0o022)
    try:
        # Half made, at most; those of other locks may be another checkout's.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(place)
        done = subprocess.run(
            [ROOT / "tools" / "environment", place, LOCK, PYTHON],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{place} could not be made: {done.stdout.strip()}")
        (place / ".ready").touch()
    finally:
        os.umask(before)


if __name__ == "__main__":
    try:
        print(ensure())
    except RuntimeError as error:
        sys.exit(str(error))
