"""The peer: Glance 33 on uWSGI, set up as it ships, without Keystone, on SQLite and files."""

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.serving import environment

VENV = Path(__file__).parents[1] / ".venv-glance"
START_GUARD = 120.0
STOP_GUARD = 30.0

# No keystone: the pipeline gives every request an administrator's context, without roles.
_CONF = """\
[DEFAULT]
enabled_backends = file:file
worker_self_reference_url = http://127.0.0.1:{port}
hashing_algorithm = sha512
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {directory}/images
"""

# What is the same wherever the images are.
_REST = """[DEFAULT]
log_file = {directory}/glance.log
[database]
connection = {database}
[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks
[oslo_policy]
enforce_new_defaults = false
enforce_scope = false
policy_file = {directory}/policy.yaml
[paste_deploy]
config_file = {venv}/etc/glance/glance-api-paste.ini
"""

# Glance's httpd/glance-api-uwsgi.ini, but for http-socket in the place of http, whose router
# copies every body once more, and the time-out and chunk limit that its client's uploads need.
_INI = """\
[uwsgi]
socket-timeout = 30
http-auto-chunked = true
http-chunked-input = true
http-raw-body = true
chunked-input-limit = 8388608
lazy-apps = true
add-header = Connection: close
buffer-size = 65535
thunder-lock = true
enable-threads = true
exit-on-reload = true
die-on-term = true
master = true
processes = {processes}
http-socket = 127.0.0.1:{port}
module = glance.wsgi.api:application
logto = {directory}/uwsgi.log
"""


@dataclass
class Glance:
    """A running Glance."""

    process: subprocess.Popen[bytes]
    port: int
    processes: int
    directory: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return self.directory / "glance.sqlite"

    @property
    def image_dir(self) -> Path:
        return self.directory / "images"

    def pids(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [pid, *map(int, children.split())]


def prepare(directory: Path, port: int, conf: str = _CONF) -> None:
    """Write the settings of a Glance that keeps its records in ``directory``; create its tables.

    It keeps images there as well, unless ``conf`` has others.
    """
    write_settings(directory, port, conf, database=f"sqlite:///{directory}/glance.sqlite")
    _run("glance-manage", "--config-file", str(directory / "glance-api.conf"), "db", "sync")


def write_settings(
    directory: Path, port: int, conf: str, *, database: str, processes: int = 4
) -> None:
    """Write what ``serving`` needs: ``conf``, which says where images are, and the rest.

    In ``conf`` the words directory, port, venv and database are filled in.
    """
    for name in ("images", "staging", "tasks"):
        (directory / name).mkdir(parents=True)
    words = {"directory": directory, "port": port, "venv": VENV, "database": database}
    (directory / "glance-api.conf").write_text((conf + _REST).format(**words))
    (directory / "uwsgi.ini").write_text(_INI.format(**words, processes=processes))
    # Its other rules begin with this one: everybody may do everything, at the least cost.
    (directory / "policy.yaml").write_text('"context_is_admin": "@"\n')


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Glance]:
    """Run the Glance whose settings are in ``directory``; nothing is left running after."""
    conf = (directory / "uwsgi.ini").read_text()
    port, processes = (
        int(conf.partition(name)[2].split()[0])
        for name in ("http-socket = 127.0.0.1:", "processes = ")
    )
    (directory / "uwsgi.log").unlink(missing_ok=True)  # which tells when it is ready
    with (directory / "start.log").open("ab") as log:
        process = subprocess.Popen(
            [VENV / "bin" / "pyuwsgi", "--ini", directory / "uwsgi.ini"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment({"OS_GLANCE_CONFIG_DIR": str(directory), "PYTHONWARNINGS": "ignore"}),
            start_new_session=True,
        )
    glance = Glance(process, port, processes, directory)
    try:
        _wait_until_ready(glance)
        yield glance
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_GUARD)


def _run(program: str, *words: str) -> str:
    done = subprocess.run(
        [VENV / "bin" / program, *words],
        env=environment({"PYTHONWARNINGS": "ignore"}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(words)} failed:\n{done.stderr}")
    return done.stdout


def _wait_until_ready(glance: Glance) -> None:
    """Wait until all of its processes have loaded the application, not only the first."""
    deadline = time.monotonic() + START_GUARD
    log = glance.directory / "uwsgi.log"
    while time.monotonic() < deadline:
        if glance.process.poll() is not None:
            break
        if log.exists() and log.read_text(errors="replace").count("WSGI app 0") >= glance.processes:
            connection = http.client.HTTPConnection("127.0.0.1", glance.port, timeout=START_GUARD)
            connection.request("GET", "/v2/images?limit=1")
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                return
            raise RuntimeError(f"Glance answers {status}; see {log}")
        time.sleep(0.2)
    raise RuntimeError(f"Glance did not start; see {log}")
