"""A real Ceph for tests and benchmarks: one monitor, one manager, one OSD, on loopback.

    with running() as ceph:
        pool = ceph.new_pool()
        gateway = ceph.gateway()  # S3 and Swift; started when first asked for

Everything lies in a directory of its own, keys included.  The daemons are those of the system
(Debian: ``tools/components ceph``) and run as root; they answer nobody but this machine.  The
OSD's data are in a file (BlueStore), so that it survives being killed.
"""

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.hosts import free_port

PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph", "rbd", "ceph-authtool")
PACKAGES = Path("/usr/lib/python3/dist-packages")
"""Where Debian puts the Python modules rados and rbd."""

USER = "glance"
"""The client that a service is: it may use RBD images of all pools, and nothing else."""

START_GUARD = 120.0  # seconds; hang guards
STOP_GUARD = 30.0
_DISK = 16 << 30  # bytes the OSD may grow to; its file is sparse

# One of everything, and nothing that waits for a second one.  Sockets' paths must be short.
_CONF = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{port}/0
mon initial members = a
public network = 127.0.0.0/8
ms bind ipv6 = false
run dir = {directory}
admin socket = {directory}/$name.asok
log file = {directory}/$name.log
pid file = {directory}/$name.pid
keyring = {directory}/$name.keyring
crash dir = {directory}/crash
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon max pg per osd = 2000
mon data = {directory}/mon
mon cluster log file =
paxos propose interval = 0.05
paxos min wait = 0.01
mon data avail warn = 1
mon data avail crit = 0
mgr data = {directory}/mgr
mgr initial modules =
mgr stats period = 1
mgr tick period = 1
osd data = {directory}/osd
osd objectstore = bluestore
bluestore block size = {disk}
bluestore block wal create = false
bluestore block db create = false
osd memory target = 1073741824
osd client watch timeout = 3
osd heartbeat grace = 6
osd heartbeat interval = 2
mon osd min down reporters = 1
mon osd report timeout = 30
osd max markdown count = 1000
osd mon heartbeat interval = 2

[mon]
keyring = {directory}/mon/keyring

[client]
log file =
admin socket =

[client.rgw]
log file = {directory}/rgw.log
"""

_CAPS = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "mgr", "allow *", "osd", "allow *"),
    "mgr.a": ("mon", "allow profile mgr", "osd", "allow *"),
    "osd.0": ("mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *"),
    "client.rgw": ("mon", "allow rw", "mgr", "allow rw", "osd", "allow rwx"),
    f"client.{USER}": ("mon", "profile rbd", "mgr", "profile rbd", "osd", "profile rbd"),
}


@dataclass(frozen=True)
class Gateway:
    """An RGW, and one user of it: ``swift_user`` and ``swift_key`` are for Swift's auth v1."""

    port: int
    access_key: str
    secret_key: str
    swift_user: str
    swift_key: str

    @property
    def url(self) -> str:
        """Where it speaks S3; its Swift API is below ``/swift/v1``, authentication at ``/auth``."""
        return f"http://127.0.0.1:{self.port}"


class Ceph:
    """A running cluster; ``conf`` is the path of its ceph.conf."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fsid = str(uuid.uuid4())
        self.conf = directory / "ceph.conf"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._gateway: Gateway | None = None
        self._pools = itertools.count(1)

    def ceph(self, *words: str) -> str:
        """What the command ``ceph`` says as administrator; raises RuntimeError when it fails."""
        return self.run("ceph", "--connect-timeout", "30", *words)

    def rbd(self, *words: str) -> str:
        """What the command ``rbd`` says, likewise."""
        return self.run("rbd", *words)

    def run(self, program: str, *words: str) -> str:
        """What a program of Ceph says, likewise."""
        done = subprocess.run(
            [program, "-c", self.conf, *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_GUARD,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(words)} failed:\n{done.stderr}")
        return done.stdout

    def new_pool(self) -> str:
        """The name of a new, empty pool for RBD."""
        name = f"images-{next(self._pools)}"
        self.ceph("osd", "pool", "create", name, "8")
        self.rbd("pool", "init", name)
        return name

    def set_quota(self, pool: str, size: int) -> None:
        """Let a pool have ``size`` bytes (0: any number)."""
        self.ceph("osd", "pool", "set-quota", pool, "max_bytes", str(size))

    def is_full(self, pool: str) -> bool:
        """Whether a pool is marked as one that has reached its quota."""
        pools = json.loads(self.ceph("osd", "pool", "ls", "detail", "-f", "json"))
        return any(
            "full_quota" in each["flags_names"] for each in pools if each["pool_name"] == pool
        )

    def signal(self, daemon: str, number: signal.Signals) -> None:
        """Send a daemon (mon, mgr, osd, rgw) a signal; after SIGKILL it has ended."""
        self._processes[daemon].send_signal(number)
        if number == signal.SIGKILL:
            self._processes.pop(daemon).wait(STOP_GUARD)

    def start(self, daemon: str) -> None:
        """Run a daemon that was killed, or never started; nothing is waited for."""
        words = {
            "mon": ["ceph-mon", "-f", "-i", "a"],
            "mgr": ["ceph-mgr", "-f", "-i", "a"],
            "osd": ["ceph-osd", "-f", "-i", "0"],
            "rgw": ["radosgw", "-f", "-n", "client.rgw"],
        }[daemon]
        if daemon == "rgw" and self._gateway is not None:
            words += ["--rgw-frontends", f"beast endpoint=127.0.0.1:{self._gateway.port}"]
        with (self.directory / f"{daemon}.out").open("ab") as out:
            self._processes[daemon] = subprocess.Popen(
                [words[0], "-c", self.conf, *words[1:]],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def resume_osd(self) -> None:
        """Let an OSD that was stopped (SIGSTOP) go on, and wait until it serves all data.

        Meanwhile its leases to serve reads have run out, and an OSD without others to renew them
        with may hold reads back for good ("laggy"); marked down, it begins anew.
        """
        self.signal("osd", signal.SIGCONT)
        self.ceph("osd", "down", "0")
        self.wait_for_osd()

    def wait_for_osd(self) -> None:
        """Wait until the OSD serves all data, and anew after it was away."""
        self._wait("osd", self._is_clean)

    def gateway(self) -> Gateway:
        """The gateway, started when first asked for."""
        if self._gateway is None:
            user = json.loads(
                self.run(
                    "radosgw-admin", "user", "create", "--uid", "glance",
                    "--display-name", "Glance", "--access-key", "headrace-access",
                    "--secret-key", "s3cret-of-RGW",
                )
            )["keys"][0]  # fmt: skip
            swift = json.loads(
                self.run(
                    "radosgw-admin", "subuser", "create", "--uid", "glance",
                    "--subuser", "glance:swift", "--access", "full",
                    "--key-type", "swift", "--secret-key", "s3cret-of-Swift",
                )
            )["swift_keys"][0]  # fmt: skip
            self._gateway = Gateway(
                free_port(), user["access_key"], user["secret_key"],
                swift["user"], swift["secret_key"],
            )  # fmt: skip
        if "rgw" not in self._processes:
            self.start("rgw")
        port = self._gateway.port
        self._wait("rgw", lambda: _answers(port))
        return self._gateway

    def stop(self) -> None:
        """End all of it at once, stopped daemons too."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait(STOP_GUARD)
        self._processes.clear()

    def make(self) -> None:
        """Make the cluster's files and run it, until it serves."""
        directory, port = self.directory, free_port()
        self.conf.write_text(
            _CONF.format(directory=directory, fsid=self.fsid, port=port, disk=_DISK)
        )
        for name in ("mon", "mgr", "osd", "crash"):
            (directory / name).mkdir()
        keys = self._make_keys()
        monmap = directory / "monmap"
        _run(
            "monmaptool", "--create", "--clobber", "--fsid", self.fsid,
            "--addv", "a", f"[v2:127.0.0.1:{port}/0]", monmap,
        )  # fmt: skip
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(monmap), "--keyring", str(keys))
        self.start("mon")
        self.start("mgr")
        self._wait("mon", self._has_monitor)
        self._make_osd()
        self.start("osd")
        self.ceph("osd", "pool", "create", "first", "8")  # so that there is something to wait for
        self.wait_for_osd()

    def _make_keys(self) -> Path:
        """A keyring for each of ``_CAPS``, and one of all that the monitor begins with."""
        together = self.directory / "keyring"
        together.touch(0o600)
        for name, caps in _CAPS.items():
            own = self.directory / f"{name.removesuffix('.')}.keyring"
            words = [
                word
                for service, cap in zip(caps[::2], caps[1::2], strict=True)
                for word in ("--cap", service, cap)
            ]
            _run("ceph-authtool", "--create-keyring", own, "--gen-key", "-n", name, *words)
            _run("ceph-authtool", together, "--import-keyring", own)
        return together

    def _make_osd(self) -> None:
        osd = str(uuid.uuid4())
        self.ceph("osd", "new", osd, "0")
        (self.directory / "osd" / "block").touch()
        os.truncate(self.directory / "osd" / "block", _DISK)
        self.run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)

    def _has_monitor(self) -> bool:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            return bool(self.run("ceph", "--connect-timeout", "2", "quorum_status"))
        return False

    def _is_clean(self) -> bool:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            said = json.loads(self.ceph("status", "-f", "json"))
            states = said["pgmap"]["pgs_by_state"]
            return bool(
                said["osdmap"]["num_up_osds"] == 1
                and states
                and all(_serves(each["state_name"]) for each in states)
            )
        return False

    def _wait(self, daemon: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_GUARD
        while not done():
            process = self._processes[daemon]
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self.directory / f"{daemon}.out").read_text(errors="replace")
                raise RuntimeError(f"{daemon} is of no use: {process.returncode}\n{said[-4000:]}")
            time.sleep(0.2)


def _serves(state: str) -> bool:
    """Whether placement groups of that state serve all data: laggy ones hold reads back."""
    words = state.split("+")
    return words[:2] == ["active", "clean"] and not {"laggy", "wait"} & set(words)


def missing() -> str | None:
    """Why there can be no Ceph here; None when there can."""
    if os.geteuid() != 0:
        return "Ceph's daemons need root"
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"needs the program {program} (as root: tools/components ceph)"
    return None


@contextlib.contextmanager
def running() -> Iterator[Ceph]:
    """A new cluster; nothing of it is left after."""
    directory = Path(tempfile.mkdtemp(prefix="headrace-ceph-", dir="/tmp"))
    ceph = Ceph(directory)
    try:
        ceph.make()
        yield ceph
    finally:
        ceph.stop()
        shutil.rmtree(directory)


def _run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed:\n{done.stderr}")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    return False
