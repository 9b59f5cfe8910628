"""Database servers of the tests' own: a directory, a socket in it, no network."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from tests.needs import require, require_command

_DEBIAN = Path("/usr/lib/postgresql")
_GUARD = 60.0  # seconds; a hang guard


class Server:
    """A running server; ``url`` is that of its databases, to be completed by ``format(name)``."""

    def __init__(
        self,
        url: str,
        address: Path,
        start: Callable[[], "subprocess.Popen[bytes]"],
        stop: signal.Signals,
    ) -> None:
        self.url = url
        self._address = address
        self._start = start
        self._stop = stop
        self._process = start()
        self._made = 0
        self._await()

    def new(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{self._made}"
        self._made += 1
        self._execute(f"CREATE DATABASE {name}")
        return self.url.format(name)

    def restart(self) -> None:
        """End the server, whoever is connected, unless it has ended; start it again."""
        self.stop()
        self._process = self._start()
        self._await()

    def stop(self) -> None:
        """End the server, whoever is connected; harmless when it has ended."""
        self._process.send_signal(self._stop)
        self._process.wait(timeout=_GUARD)

    def _await(self) -> None:
        until = time.monotonic() + _GUARD
        while not self._answers():
            assert self._process.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            # First by hand: PyMySQL leaves a socket behind that was refused.
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self._address))
            self._execute("SELECT 1")
        except (OSError, exc.OperationalError):
            return False
        return True

    def _execute(self, statement: str) -> None:
        # Not by what is tested, which would try again.
        url = self.url.replace("postgresql:", "postgresql+psycopg:")
        maintenance = "postgres" if url.startswith("postgresql") else "mysql"
        engine = sa.create_engine(
            url.format(maintenance), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)


@contextmanager
def postgresql() -> Iterator[Server]:
    """A PostgreSQL that forgets at a power cut and sees deadlocks soon."""
    programs = _postgresql_programs()
    require(programs is not None, "needs PostgreSQL's server programs (Debian: postgresql)")
    assert programs is not None
    with _directory("pg") as (directory, account):
        data = directory / "data"
        _run(
            [programs / "initdb", "--pgdata", data, "--username", "headrace", "--auth", "trust",
             "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"], directory, account,
        )  # fmt: skip
        words = [programs / "postgres", "-D", data, "-k", directory, "-c", "listen_addresses=",
                 "-c", "fsync=off", "-c", "deadlock_timeout=100ms"]  # fmt: skip
        yield from _serving(
            f"postgresql://headrace@/{{}}?host={directory}",
            directory / ".s.PGSQL.5432",
            words,
            signal.SIGINT,  # ends at once, whoever is still connected
            directory,
            account,
        )


@contextmanager
def mariadb() -> Iterator[Server]:
    """A MariaDB that forgets at a power cut."""
    install = require_command("mariadb-install-db")
    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    require(program is not None, "needs MariaDB's server programs (Debian: mariadb-server-core)")
    with _directory("my") as (directory, account):
        data = directory / "data"
        _run(
            [install, "--no-defaults", f"--datadir={data}", "--skip-test-db", "--skip-name-resolve",
             "--auth-root-authentication-method=normal"], directory, account,
        )  # fmt: skip
        words = [program, "--no-defaults", f"--datadir={data}", f"--socket={directory}/socket",
                 f"--pid-file={directory}/pid", "--skip-networking",
                 "--innodb-flush-log-at-trx-commit=0", "--debug-no-sync",
                 "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M"]  # fmt: skip
        yield from _serving(
            f"mysql+pymysql://root@/{{}}?unix_socket={directory}/socket",
            directory / "socket",
            words,
            signal.SIGTERM,
            directory,
            account,
        )


@contextmanager
def _directory(name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A directory, and who is to work in it, in subprocess's words.

    These servers refuse to run as root, and an ordinary user may not enter pytest's directories;
    a socket's path must be short, too.
    """
    account: dict[str, Any] = {}
    directory = Path(tempfile.mkdtemp(prefix=f"headrace-{name}-", dir="/tmp"))
    if os.geteuid() == 0:
        account = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(directory, "nobody", "nogroup")
        directory.chmod(0o755)
    try:
        yield directory, account
    finally:
        shutil.rmtree(directory)


def _run(words: list[Any], directory: Path, account: dict[str, Any]) -> None:
    done = subprocess.run(
        words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **account
    )
    assert done.returncode == 0, done.stdout.decode()


def _serving(
    url: str,
    address: Path,
    words: list[Any],
    stop: signal.Signals,
    directory: Path,
    account: dict[str, Any],
) -> Iterator[Server]:
    def start() -> "subprocess.Popen[bytes]":
        with (directory / "log").open("ab") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, cwd=directory, **account)

    server = Server(url, address, start, stop)
    try:
        yield server
    finally:
        server.stop()


def _postgresql_programs() -> Path | None:
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None
