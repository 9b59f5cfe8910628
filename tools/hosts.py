"""Every host and front that Headrace can be deployed with, run for tests and benchmarks.

Each is the real program, with the configuration that ``headrace config`` writes for it; a variant
adds an option to it, or leaves a line of it out.  As root, what stands behind or within nginx,
Apache or HAProxy runs as www-data, as it would in production.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools import strace, system_environment
from tools.serving import READY, environment, family

ROOT = Path(__file__).parents[1]
GUARD = 60.0  # seconds; a hang guard
SBIN = "/usr/sbin:/sbin"


@dataclass
class Place:
    """What a deployment is given: directories, the user it runs as, the Python it runs with.

    ``tracer`` is the path of strace if the programs are to run under it, ``change`` what is done to
    a recipe before it is used; ``options`` are those of ``headrace config``, ``auth`` the
    auth_strategy.
    """

    directory: Path
    tracer: str | None
    conf: str
    change: Callable[[str], str]
    options: Sequence[str]
    front_as_root: bool
    auth: str = "none"
    user: str | None = None
    python: Path = Path(sys.executable)
    packages: Path = ROOT / "src"
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def settings(self) -> list[str]:
        file = self.directory / "headrace.conf"
        file.write_text(self.conf)
        return ["--state-dir", str(self.state_dir), "--config-file", str(file)]

    def become(self) -> list[object]:
        """The words that run a program as the place's user."""
        if self.user is None:
            return []
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups", "--"]

    def prefix(self, program: str) -> Path:
        return self.directory / "traces" / program

    def log(self, program: str) -> Path:
        return self.directory / f"{program}.log"

    def start(self, program: str, words: Sequence[object], **env: str) -> None:
        """Run a program in the background; its output goes to its log."""
        under: list[str] = []
        if self.tracer is not None:
            self.prefix(program).parent.mkdir(exist_ok=True)
            under = strace.command(self.tracer, self.prefix(program))
        env = {"PATH": f"{os.environ['PATH']}:{SBIN}", "PYTHONPATH": str(self.packages), **env}
        with self.log(program).open("ab") as log:
            self.processes[program] = subprocess.Popen(
                [*under, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment(env),
                start_new_session=True,
            )

    def recipe(self, server: str, port: int) -> Path:
        """What ``headrace config`` writes for ``server``, as a file."""
        file = self.directory / f"{server}.conf"
        words = [*self.become(), self.python, "-m", "headrace", "config", server]
        words += ["--no-auth"] if self.auth == "none" else ["--auth", self.auth]
        words += [*self.settings, "--listen", f"127.0.0.1:{port}", *self.options]
        done = subprocess.run(
            list(map(str, words)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self.directory,
            env=environment(
                {"PATH": f"{os.environ['PATH']}:{SBIN}", "PYTHONPATH": str(self.packages)}
            ),
        )
        if done.returncode:
            raise RuntimeError(f"headrace config {server} failed: {done.stderr.decode()}")
        file.write_text(self.change(done.stdout.decode()))
        return file

    def stop(self) -> None:
        for process in self.processes.values():
            for pid in family(process.pid):  # parents first, who would begin new ones
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(GUARD)

    def logs(self) -> str:
        """What all its programs said, for a failure's message."""
        files = [*self.directory.glob("*.log"), *self.state_dir.glob("*error.log")]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')}" for file in files)


@dataclass(frozen=True)
class Host:
    """A running deployment.

    ``sender`` is the program that puts image data on the wire, ``ours`` the one with Python in it.
    """

    name: str
    port: int
    place: Place
    sender: str
    ours: str

    @property
    def state_dir(self) -> Path:
        return self.place.state_dir

    @property
    def image_dir(self) -> Path:
        return self.state_dir / "images"

    def pids(self) -> list[int]:
        """All processes that take part, the front's too."""
        return [pid for process in self.place.processes.values() for pid in family(process.pid)]

    def carried(self, program: str) -> strace.Carried:
        """What went through sockets in a program that runs under strace."""
        return strace.on_sockets(self.place.prefix(program))

    def logs(self) -> str:
        return self.place.logs()


# --- the hosts


def _embedded(place: Place, port: int) -> None:
    words = [place.python, "-m", "headrace", "serve", *place.settings, "--port", str(port)]
    place.start("headrace", [*words, "--auth", place.auth])


def _gunicorn(worker: str) -> Callable[[Place, int], None]:
    def run(place: Place, port: int) -> None:
        recipe = place.recipe("gunicorn", port)
        words: list[object] = [
            place.python,
            "-m",
            "gunicorn",
            "-c",
            recipe,
            "--worker-class",
            worker,
        ]
        if worker == "sync":
            words += ["--workers", "3", "--threads", "1"]
        place.start("gunicorn", words)

    return run


def _uwsgi(*options: str) -> Callable[[Place, int], None]:
    def run(place: Place, port: int) -> None:
        recipe = place.recipe("uwsgi", port)
        kept = [
            line
            for line in recipe.read_text().splitlines()
            if not any(line.startswith(f"{option.split('=')[0]} =") for option in options)
        ]
        recipe.write_text("\n".join([*kept, *(each for each in options if "=" in each)]) + "\n")
        words = [place.python.with_name("pyuwsgi"), "--ini", recipe]
        place.start("uwsgi", words)

    return run


def _behind(front: str, place: Place) -> None:
    words = [place.python, "-m", "headrace", "serve", *place.settings, "--behind", front]
    access = ["--unauthenticated-ok"] if place.auth == "none" else ["--auth", place.auth]
    place.start("headrace", [*place.become(), *words, *access])
    deadline = time.monotonic() + GUARD
    while READY not in place.log("headrace").read_text():
        if place.processes["headrace"].poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Headrace did not start:\n{place.logs()}")
        time.sleep(0.02)


def _nginx(place: Place, port: int) -> None:
    _behind("nginx", place)
    recipe = place.recipe("nginx", port)
    words = ["nginx", "-e", "stderr", "-c", recipe, "-g", "daemon off;"]
    place.start("nginx", words if place.front_as_root else [*place.become(), *words])


def _apache(place: Place, port: int) -> None:
    _behind("apache", place)
    words = ["apache2", "-f", place.recipe("apache", port), "-DFOREGROUND"]
    place.start("apache", [*place.become(), *words])


def _haproxy(place: Place, port: int) -> None:
    _behind("haproxy", place)
    words = ["haproxy", "-db", "-f", place.recipe("haproxy", port)]
    place.start("haproxy", [*place.become(), *words])


def _mod_wsgi(*options: str) -> Callable[[Place, int], None]:
    def run(place: Place, port: int) -> None:
        recipe = place.recipe("mod_wsgi", port)
        if "copying" in options:
            recipe.write_text(
                recipe.read_text()
                .replace("SetEnv OS_HEADRACE__DELIVERY x-sendfile", "")
                .replace("XSendFile On", "XSendFile Off")
            )
        daemon = [] if not options else ["-D", "HEADRACE_DAEMON"]
        words = ["apache2", "-f", recipe, *daemon, "-DFOREGROUND"]
        place.start("apache", [*place.become(), *words])

    return run


_MODULES = "/usr/lib/apache2/modules"
_MOD_WSGI = ("apache2", f"{_MODULES}/mod_wsgi.so", f"{_MODULES}/mod_xsendfile.so")


@dataclass(frozen=True)
class Kind:
    """How a host is run, what must be installed for it, and whom its parts are."""

    run: Callable[[Place, int], None]
    needs: tuple[str, ...] = ()
    sender: str = "headrace"
    ours: str = "headrace"
    apart: bool = False  # in a directory and an environment that other users can read
    name_of_place: str = "a b'c%41+d&é"


KINDS: dict[str, Kind] = {
    "embedded": Kind(_embedded),
    "gunicorn-gthread": Kind(_gunicorn("gthread"), sender="gunicorn", ours="gunicorn"),
    "gunicorn-sync": Kind(_gunicorn("sync"), sender="gunicorn", ours="gunicorn"),
    # uWSGI's files cannot say "%".
    "uwsgi-offload": Kind(_uwsgi(), ("pyuwsgi",), "uwsgi", "uwsgi", name_of_place="a é"),
    "uwsgi-threads": Kind(
        _uwsgi("offload-threads"), ("pyuwsgi",), "uwsgi", "uwsgi", name_of_place="a é"
    ),
    "uwsgi-processes": Kind(
        _uwsgi("offload-threads", "threads", "processes=4"),
        ("pyuwsgi",), "uwsgi", "uwsgi", name_of_place="a é",
    ),
    "mod_wsgi-embedded": Kind(_mod_wsgi(), _MOD_WSGI, "apache", "apache", apart=True),
    "mod_wsgi-daemon": Kind(_mod_wsgi("copying"), _MOD_WSGI, "apache", "apache", apart=True),
    "mod_wsgi-daemon-x-sendfile": Kind(
        _mod_wsgi("daemon"), _MOD_WSGI, "apache", "apache", apart=True
    ),
    "nginx": Kind(_nginx, ("nginx",), "nginx", apart=True),
    "apache": Kind(_apache, ("apache2", f"{_MODULES}/mod_xsendfile.so"), "apache", apart=True),
    "haproxy": Kind(  # HAProxy's files cannot say "'"
        _haproxy, ("haproxy",), "haproxy", apart=True, name_of_place="a b%41+d&é"
    ),
}  # fmt: skip


@contextlib.contextmanager
def running(
    name: str,
    *,
    tracer: str | None = None,
    conf: str = "",
    change: Callable[[str], str] = str,
    options: Sequence[str] = (),
    front_as_root: bool = False,
    auth: str = "none",
    prepare: Callable[[Place], None] = lambda place: None,
) -> Iterator[Host]:
    """Run the host; nothing of it is left afterwards.

    ``conf`` is the text of a configuration file of Headrace's; ``options`` are of
    ``headrace config``, and ``change`` may alter what that wrote.  ``front_as_root`` has nginx
    started by root, as only root can have its workers be another user.  ``prepare`` is called with
    the place before anything starts there.
    """
    kind = KINDS[name]
    # Not below the directory of the tests, which other users may not enter.
    parent = Path(tempfile.mkdtemp(prefix="headrace-", dir="/var/tmp"))
    parent.chmod(0o755)
    place = Place(parent / kind.name_of_place, tracer, conf, change, options, front_as_root, auth)
    try:
        place.directory.mkdir()
        if kind.apart:
            _set_apart(place)
        prepare(place)
        port = free_port()
        kind.run(place, port)
        try:
            wait_for_port(port, place.processes.values())
        except RuntimeError as error:
            raise RuntimeError(f"{name} did not start:\n{place.logs()}") from error
        yield Host(name, port, place, kind.sender, kind.ours)
    finally:
        place.stop()
        shutil.rmtree(parent)


def missing(name: str) -> str | None:
    """What the host needs and is not installed here."""
    path = f"{os.environ['PATH']}:{SBIN}:{Path(sys.executable).parent}"
    for need in KINDS[name].needs:
        there = os.path.exists(need) if need.startswith("/") else shutil.which(need, path=path)
        if not there:
            return need
    return None


def _set_apart(place: Place) -> None:
    """Give the place what other users can read, and one of them to run as, if this one is root."""
    place.python = system_environment.ensure() / "bin" / "python"
    place.packages = system_environment.copy_of_headrace()
    place.state_dir.mkdir(mode=0o750)
    if os.geteuid() == 0:
        place.user = "www-data"
        user = pwd.getpwnam(place.user)
        os.chown(place.state_dir, user.pw_uid, user.pw_gid)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for_port(port: int, processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Wait until somebody listens; RuntimeError if one of the processes ends before."""
    deadline = time.monotonic() + GUARD
    while time.monotonic() < deadline and all(each.poll() is None for each in processes):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nobody listens on port {port}")
