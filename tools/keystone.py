"""A real Keystone for tests and benchmarks: its own process, port and directory; SQLite.

    with running(directory) as keystone:
        service.start(env=keystone.env())
        token = keystone.token("member", project="demo")

There are the projects ``demo``, ``other`` and ``service``, and the users that ``ROLES`` names, all
with the same password.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.hosts import free_port
from tools.serving import environment

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv-keystone"
LOCK = ROOT / "requirements" / "keystone.lock"
CACHE = ROOT / ".cache"
START_GUARD = 120.0  # seconds; hang guards
STOP_GUARD = 30.0
_QUIET = {"PYTHONWARNINGS": "ignore"}

PASSWORD = "s3cret of-Keystone"
REGION = "RegionOne"
ROLES = {
    "admin": {"admin": "admin", "demo": "admin"},
    "member": {"demo": "member", "other": "member"},
    "reader": {"demo": "reader"},
    "stranger": {"other": "member"},
    "headrace": {"service": "service"},
    "nova": {"service": "service"},
}
"""User → project → role; ``admin`` has the role on the system, too."""

# Projects by their names; users, too, with ":user" behind them.
_NAMES = """\
SELECT name, id FROM project WHERE NOT is_domain
UNION ALL SELECT name || ':user', user_id FROM local_user
"""
_CONF = """\
[DEFAULT]
log_file = {directory}/keystone.log
max_token_size = 1024
[database]
connection = sqlite:///{directory}/keystone.db
[fernet_tokens]
key_repository = {directory}/keys
[credential]
key_repository = {directory}/credential-keys
[identity]
password_hash_rounds = 4
[token]
provider = fernet
expiration = {expiration}
[cache]
enabled = false
"""

_INI = """\
[uwsgi]
master = true
processes = 1
threads = 4
die-on-term = true
buffer-size = 65535
add-header = Connection: close
http-socket = 127.0.0.1:{port}
module = keystone.wsgi.api:application
logto = {directory}/uwsgi-{port}.log
"""


@dataclass
class Keystone:
    """A Keystone, and what is asked of it as an operator would.

    ``ids`` has those of projects by name, and of users by name with ":user" behind it.
    """

    directory: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    ids: dict[str, str] = field(default_factory=dict)
    _administrator: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where its API v3 is."""
        return f"http://127.0.0.1:{self.port}/v3"

    def request(
        self, method: str, path: str, body: object = None, token: str | None = None, **fields: str
    ) -> tuple[int, http.client.HTTPMessage, Any]:
        """Status, headers and document of an answer; an administrator asks by default."""
        if token is None:
            token = self._administrator = self._administrator or self.token()
        headers = {"Content-Type": "application/json", **fields}
        if token:
            headers["X-Auth-Token"] = token
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_GUARD)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/v3{path}", data, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, answer.headers, json.loads(text) if text else None

    def create(self, kind: str, **values: object) -> str:
        """Create a project, user, service or endpoint; its id."""
        status, _, made = self.request("POST", f"/{kind}s", {kind: values})
        if status != 201:
            raise RuntimeError(f"Keystone refuses the {kind}: {status} {made}")
        return str(made[kind]["id"])

    def token(self, user: str = "admin", project: str | None = None, scope: object = None) -> str:
        """A new token, of the user's project of that name, or of ``scope``; "unscoped": of none."""
        if scope is None:
            project = project or next(iter(ROLES[user]))
            scope = {"project": {"name": project, "domain": {"id": "default"}}}
        who = {"name": user, "domain": {"id": "default"}, "password": PASSWORD}
        identity = {"methods": ["password"], "password": {"user": who}}
        asked = {"auth": {"identity": identity, "scope": scope}}
        status, headers, said = self.request("POST", "/auth/tokens", asked, token="")
        if status != 201:
            raise RuntimeError(f"Keystone issues no token: {status} {said}")
        return headers["X-Subject-Token"]

    def revoke(self, token: str) -> None:
        """Revoke a token."""
        self.request("DELETE", "/auth/tokens", **{"X-Subject-Token": token})

    def options(self, **more: object) -> dict[str, str]:
        """``[keystone_authtoken]`` of a service that uses this Keystone; ``more`` are others."""
        options = {
            "auth_type": "password",
            "auth_url": self.url,
            "www_authenticate_uri": self.url,
            "username": "headrace",
            "password": PASSWORD,
            "user_domain_id": "default",
            "project_name": "service",
            "project_domain_id": "default",
            "service_type": "image",
        }
        return options | {name: str(value) for name, value in more.items()}

    def env(self, **more: object) -> dict[str, str]:
        """The same as the environment of a service."""
        found = {
            f"OS_KEYSTONE_AUTHTOKEN__{name.upper()}": value
            for name, value in self.options(**more).items()
        }
        return {"OS_HEADRACE__AUTH_STRATEGY": "keystone", **found}

    def conf(self, **more: object) -> str:
        """The same as the text of a file of settings."""
        lines = [f"{name} = {value}" for name, value in self.options(**more).items()]
        return "\n".join(
            ["[headrace]", "auth_strategy = keystone", "[keystone_authtoken]", *lines, ""]
        )

    def register(self, service: str, kind: str = "image", **others: str) -> None:
        """Have the catalog say that the service of that type is at the URL ``service``, and for the
        interfaces in ``others`` elsewhere."""
        kept = self.ids.get(kind)
        if kept is None:
            kept = self.ids[kind] = self.create("service", type=kind, name=f"the {kind} service")
        _, _, listed = self.request("GET", f"/endpoints?service_id={kept}")
        for each in listed["endpoints"]:
            self.request("DELETE", f"/endpoints/{each['id']}")
        for interface in ("public", "internal", "admin"):
            url = others.get(interface, service)
            self.create("endpoint", service_id=kept, interface=interface, url=url, region_id=REGION)

    def start(self) -> None:
        """Run it, at the port it has, until it answers."""
        conf = self.directory / f"keystone-{self.port}.conf"
        with (self.directory / "start.log").open("ab") as log:
            self.process = subprocess.Popen(
                [VENV / "bin" / "pyuwsgi", "--ini", self.directory / f"uwsgi-{self.port}.ini"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment({"OS_KEYSTONE_CONFIG_FILES": str(conf), **_QUIET}),
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_GUARD
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "", token="")[0] == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"Keystone did not start; see {self.directory}")

    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it at once; harmless when it has ended."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_GUARD)

    @contextlib.contextmanager
    def with_expiration(self, seconds: int) -> Iterator["Keystone"]:
        """Another process of it, whose tokens are good everywhere, but only for so long."""
        port = free_port()
        _configure(self.directory, port, seconds)
        other = Keystone(self.directory, port, ids=self.ids)
        try:
            other.start()
            yield other
        finally:
            other.stop()


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Keystone]:
    """A Keystone in ``directory``, new as in the first hour; nothing is left running after."""
    shutil.copytree(_template(), directory, dirs_exist_ok=True)
    keystone = Keystone(directory, free_port())
    _configure(directory, keystone.port, 3600)
    with contextlib.closing(sqlite3.connect(directory / "keystone.db")) as database, database:
        database.execute("UPDATE endpoint SET url = ?", (keystone.url,))
        keystone.ids |= database.execute(_NAMES).fetchall()
    try:
        keystone.start()
        yield keystone
    finally:
        keystone.stop()


def _template() -> Path:
    """A populated Keystone that was never used, made once for its lock and this file."""
    made_of = hashlib.sha256(LOCK.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
    template = CACHE / f"keystone-{made_of}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "keystone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            for old in CACHE.glob("keystone-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix="new-keystone-", dir=CACHE) as place:
                _make(Path(place) / "it")
                (Path(place) / "it").rename(template)
    return template


def _make(directory: Path) -> None:
    directory.mkdir()
    keystone = Keystone(directory, free_port())
    conf = _configure(directory, keystone.port, 3600)
    for name in ("keys", "credential-keys"):
        (directory / name).mkdir(mode=0o700)
    user = ("--keystone-user", str(os.geteuid()), "--keystone-group", str(os.getegid()))
    _manage(conf, "db_sync")
    _manage(conf, "fernet_setup", *user)
    _manage(conf, "bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", REGION,
            *(word for interface in ("admin", "internal", "public")
              for word in (f"--bootstrap-{interface}-url", keystone.url)))  # fmt: skip
    try:
        keystone.start()
        _populate(keystone)
    finally:
        keystone.stop()


def _configure(directory: Path, port: int, expiration: int) -> Path:
    conf = directory / f"keystone-{port}.conf"
    conf.write_text(_CONF.format(directory=directory, expiration=expiration))
    (directory / f"uwsgi-{port}.ini").write_text(_INI.format(directory=directory, port=port))
    return conf


def _manage(conf: Path, *words: str) -> None:
    done = subprocess.run(
        [VENV / "bin" / "keystone-manage", "--config-file", conf, *words],
        env=environment(_QUIET), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"keystone-manage {words[0]} failed:\n{done.stderr}")


def _populate(keystone: Keystone) -> None:
    """Create what ``ROLES`` names, but for what bootstrapping has made."""
    roles, projects, users = (
        {each["name"]: each["id"] for each in keystone.request("GET", f"/{kind}")[2][kind]}
        for kind in ("roles", "projects", "users")
    )
    for name, granted in ROLES.items():
        if name not in users:
            users[name] = keystone.create("user", name=name, password=PASSWORD)
        for project, role in granted.items():
            if project not in projects:
                projects[project] = keystone.create("project", name=project)
            path = f"/projects/{projects[project]}/users/{users[name]}/roles/{roles[role]}"
            keystone.request("PUT", path)
