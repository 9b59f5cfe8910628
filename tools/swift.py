"""A real Swift for tests and benchmarks: its own processes, ports and directory; one replica.

    with running(directory) as swift:
        service.start(env=swift.env("cold", "images"))
        held = swift.names("images")

It is a proxy with its three kinds of servers and a memcached, on the loopback; its disk is a plain
directory on a file system with user xattrs.  Tempauth knows who calls, or with ``keystone`` a
Keystone does.  It has static and dynamic large objects, temporary URLs, quotas of containers and
accounts, and with tempauth speaks S3 at the same port: the access key is USER, the secret KEY.
"""

import contextlib
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tools.hosts import free_port
from tools.keystone import Keystone
from tools.serving import environment, family

VENV = Path(__file__).parents[1] / ".venv-swift"
START_GUARD = 120.0  # seconds; hang guards
STOP_GUARD = 30.0

USER = "glance:headrace"
"""Account and user, of whom tempauth knows; an administrator of the account."""
KEY = "s3cret/of+Swift=="
STRANGER = "other:stranger"
"""Of another account, with the same key."""

_SWIFT_CONF = """\
[swift-hash]
swift_hash_path_suffix = headrace
"""
_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {directory}
devices = {directory}/disks
user = {user}
mount_check = false
workers = {workers}
log_level = WARNING
log_address = {directory}/log.sock
disable_fallocate = true
# On a busy machine a listing that is updated late would never be: there is no updater here.
conn_timeout = 30
node_timeout = 60
container_update_timeout = 60
"""
_SERVER = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """\
[pipeline:main]
pipeline = catch_errors healthcheck {log} cache bulk tempurl {auth} container-quotas account-quotas
    slo dlo versioned_writes proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
access_log_level = INFO
access_log_udp_host = 127.0.0.1
access_log_udp_port = {access_log}
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:s3api]
use = egg:swift#s3api
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:account-quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
"""
_TEMPAUTH = """\
[filter:tempauth]
use = egg:swift#tempauth
storage_url_scheme = http
user_glance_headrace = {key} .admin
user_other_stranger = {key} .admin
"""
_KEYSTONE = """\
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
{options}
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member, service
"""
_RINGS = """\
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(("account", "container", "object"), sys.argv[2:]):
    builder = RingBuilder(4, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "disk",
                     "weight": 1, "replication_ip": "127.0.0.1", "replication_port": int(port)})
    builder.rebalance(seed="0")
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""
_KINDS = ("account", "container", "object")


@dataclass
class Swift:
    """A Swift, and what is asked of it as an operator would; names are unquoted."""

    directory: Path
    port: int
    keystone: Keystone | None = None
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _token: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where its proxy is; also the endpoint of S3."""
        return f"http://127.0.0.1:{self.port}"

    def pids(self) -> list[int]:
        """Of all its servers and their workers."""
        return [pid for process in self.processes.values() for pid in family(process.pid)]

    @property
    def auth_url(self) -> str:
        """Where tempauth gives tokens, as version 1 of its kind."""
        return f"{self.url}/auth/v1.0"

    def token(self) -> tuple[str, str]:
        """The path of the account, and a token for it; with a Keystone, of the project demo."""
        if self._token is None and self.keystone is not None:
            project = self.keystone.ids["demo"]
            self._token = f"/v1/AUTH_{project}", self.keystone.token("member", project="demo")
        if self._token is None:
            who = {"X-Auth-User": USER, "X-Auth-Key": KEY}
            status, headers, _ = self._ask("GET", "/auth/v1.0", who)
            if status != 200:
                raise RuntimeError(f"Swift gives no token: {status}")
            path = headers["X-Storage-Url"].removeprefix(self.url)
            self._token = path, headers["X-Auth-Token"]
        return self._token

    def register(self) -> None:
        """Have its Keystone's catalog say where it is; the admin's endpoint is nobody's."""
        assert self.keystone is not None
        url = f"{self.url}/v1/AUTH_$(project_id)s"
        self.keystone.register(url, "object-store", admin="http://127.0.0.1:1/")

    def request(
        self, method: str, path: str = "", body: bytes = b"", **fields: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of an answer about the account, or about ``/container/object``.

        Fields are headers, with _ for -.
        """
        account, token = self.token()
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        return self._ask(method, account + path, {"X-Auth-Token": token, **headers}, body)

    def names(self, container: str) -> list[str]:
        """The names of all objects of a container; none when there is no such container."""
        status, _, text = self.request("GET", f"/{quote(container)}?format=json")
        return [each["name"] for each in json.loads(text)] if status == 200 else []

    def empty(self, container: str) -> None:
        """Remove a container with all that is in it."""
        for name in self.names(container):
            self.request("DELETE", f"/{quote(container)}/{quote(name)}")
        self.request("DELETE", f"/{quote(container)}")

    def forget_tokens(self) -> None:
        """Have all tokens end that were given so far."""
        self._token = None
        with socket.create_connection(("127.0.0.1", self.ports["memcached"])) as sock:
            sock.sendall(b"flush_all\r\n")
            sock.recv(64)

    def options(self, container: str, **more: object) -> dict[str, str]:
        """The options of a store of type swift that uses this Swift through tempauth."""
        options = {
            "swift_store_auth_address": self.auth_url,
            "swift_store_auth_version": 1,
            "swift_store_user": USER,
            "swift_store_key": KEY,
            "swift_store_container": container,
            "swift_store_create_container_on_put": True,
        }
        return {name: str(value) for name, value in (options | more).items()}

    def env(self, store: str, container: str, **more: object) -> dict[str, str]:
        """The same as the environment of a service whose store has the id ``store``."""
        options = self.options(container, **more)
        return {f"OS_{store.upper()}__{name.upper()}": value for name, value in options.items()}

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_GUARD)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def start(self, kind: str, *words: object) -> None:
        """Run one of its servers: account, container, object or proxy; ``wait`` for it then."""
        words = words or (VENV / "bin" / f"swift-{kind}-server", self.directory / f"{kind}.conf")
        with (self.directory / f"{kind}.log").open("ab") as log:
            self.processes[kind] = subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment({"PYTHONWARNINGS": "ignore"}), start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until all of it answers."""
        deadline = time.monotonic() + START_GUARD
        for kind, port in self.ports.items():
            while not _answers(kind, port):
                if time.monotonic() > deadline or self.processes[kind].poll() is not None:
                    raise RuntimeError(f"Swift did not start; see {kind}.log in {self.directory}")
                time.sleep(0.05)

    def stop(self, kind: str) -> None:
        """End one of its servers at once."""
        process = self.processes.pop(kind)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_GUARD)


@contextlib.contextmanager
def running(
    directory: Path, keystone: Keystone | None = None, workers: int = 0, access_log: int = 0
) -> Iterator[Swift]:
    """A Swift in ``directory``, new and empty; nothing is left running after.

    ``workers`` are the processes of each kind of server; 0 for one that does not fork.
    ``access_log`` is a UDP port of the loopback that is told each request when it is over.
    """
    (directory / "disks" / "disk").mkdir(parents=True)
    ports = {kind: free_port() for kind in (*_KINDS, "memcached", "proxy")}
    swift = Swift(directory, ports["proxy"], keystone, ports)
    _configure(swift, workers, access_log)
    try:
        memcached = shutil.which("memcached") or "memcached"
        user = ("-u", "root") if os.geteuid() == 0 else ()
        swift.start("memcached", memcached, "-l", "127.0.0.1", "-p", ports["memcached"], *user)
        subprocess.run(
            [VENV / "bin" / "python", "-W", "ignore", "-c", _RINGS, directory,
             *(str(ports[kind]) for kind in _KINDS)],
            check=True, env=environment(),
        )  # fmt: skip
        for kind in (*_KINDS, "proxy"):
            swift.start(kind)
        swift.wait()
        yield swift
    finally:
        for kind in list(swift.processes):
            swift.stop(kind)


def _configure(swift: Swift, workers: int, access_log: int) -> None:
    directory, ports = swift.directory, swift.ports
    (directory / "swift.conf").write_text(_SWIFT_CONF)
    user = pwd.getpwuid(os.geteuid()).pw_name
    for kind in (*_KINDS, "proxy"):
        text = _COMMON.format(port=ports[kind], directory=directory, user=user, workers=workers)
        text += _proxy(swift, access_log) if kind == "proxy" else _SERVER.format(kind=kind)
        (directory / f"{kind}.conf").write_text(text)


def _proxy(swift: Swift, access_log: int) -> str:
    if swift.keystone is None:
        auth, filters = "s3api tempauth", _TEMPAUTH.format(key=KEY)
    else:
        options = [f"{name} = {value}" for name, value in swift.keystone.options().items()]
        auth = "authtoken keystoneauth"
        filters = _KEYSTONE.format(options="\n".join(options))
    text = _PROXY.format(
        auth=auth,
        memcached=swift.ports["memcached"],
        log="proxy-logging" if access_log else "",
        access_log=access_log,
    )
    return text + filters


def _answers(kind: str, port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_GUARD)
    with contextlib.suppress(OSError), contextlib.closing(connection):
        connection.connect()
        if kind == "proxy":
            connection.request("GET", "/healthcheck")
            return connection.getresponse().status == 200
        return True
    return False
