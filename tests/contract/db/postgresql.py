"""A PostgreSQL server of the tests' own: a directory, a socket in it, no network."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.needs import require

_DEBIAN = Path("/usr/lib/postgresql")


@contextmanager
def server() -> Iterator[str]:
    """The URL of the server's databases, to be completed by ``format(name)``."""
    programs = _programs()
    require(programs is not None, "needs PostgreSQL's server programs (Debian: postgresql)")
    require(find_spec("psycopg") is not None, "needs psycopg (the extra postgresql)")
    assert programs is not None
    # PostgreSQL refuses to run as root, and an ordinary user may not enter pytest's directories.
    account: dict[str, Any] = {}
    directory = Path(tempfile.mkdtemp(prefix="headrace-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        account = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(directory, "nobody", "nogroup")
    try:
        data = directory / "data"
        subprocess.run(
            [programs / "initdb", "--pgdata", data, "--username", "headrace", "--auth", "trust",
             "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"],
            check=True, capture_output=True, cwd=directory, **account,
        )  # fmt: skip
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", directory, "-c", "listen_addresses=",
                 "-c", "fsync=off", "-c", "deadlock_timeout=100ms"],
                stdout=log, stderr=log, cwd=directory, **account,
            )  # fmt: skip
        try:
            _await(directory / ".s.PGSQL.5432", process)
            yield f"postgresql://headrace@/{{}}?host={directory}"
        finally:
            process.send_signal(signal.SIGINT)  # ends at once, whoever is still connected
            process.wait(timeout=60)
    finally:
        shutil.rmtree(directory)


def _programs() -> Path | None:
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).parent
    versions = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


def _await(socket: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not socket.exists():
        assert process.poll() is None, "the PostgreSQL server ended"
        assert time.monotonic() < until, "the PostgreSQL server does not start"
        time.sleep(0.05)
    # The socket exists a moment before the server answers on it; libpq is told to wait by retries.
    import psycopg

    while True:
        try:
            psycopg.connect(host=str(socket.parent), user="headrace", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < until, "the PostgreSQL server does not answer"
            time.sleep(0.05)
