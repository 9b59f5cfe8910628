"""Two hosts on one machine: network namespaces joined by a veth pair.  Needs root and iproute2."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

IP = "/usr/sbin:/sbin"


@dataclass(frozen=True)
class Hosts:
    """The names of both namespaces, and the address of the far one."""

    near: str
    far: str
    address: str = "10.77.0.2"

    def words(self, host: str) -> list[str]:
        """What to put before a command to run it on ``near`` or ``far``."""
        return ["ip", "netns", "exec", getattr(self, host)]


@contextlib.contextmanager
def joined() -> Iterator[Hosts]:
    """Make both, and take them away again."""
    hosts = Hosts(f"headrace-near-{os.getpid()}", f"headrace-far-{os.getpid()}")
    try:
        for name in (hosts.near, hosts.far):
            _ip("netns", "add", name)
        _ip("link", "add", "veth0", "netns", hosts.near, "type", "veth",
            "peer", "name", "veth0", "netns", hosts.far)  # fmt: skip
        for name, address in ((hosts.near, "10.77.0.1"), (hosts.far, hosts.address)):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "veth0")
            for link in ("veth0", "lo"):
                _ip("-n", name, "link", "set", link, "up")
        yield hosts
    finally:
        for name in (hosts.near, hosts.far):
            subprocess.run(["ip", "netns", "del", name], env=environment(), capture_output=True)


def environment() -> dict[str, str]:
    """An environment in which ``ip`` is found."""
    return os.environ | {"PATH": f"{os.environ['PATH']}:{IP}"}


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
