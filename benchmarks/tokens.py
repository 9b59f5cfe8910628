"""What asking Keystone who is calling costs a request: beside the same without authentication."""

import contextlib
import http.client
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import catalogue, cpu
from benchmarks.plan import Plan, interleaved
from benchmarks.row import MIB, Row, ratio_at_most
from tools import keystone
from tools.hosts import free_port, wait_for_port
from tools.serving import Serving, serving

IMAGES = 1_000
GETS = 400
SIZE = 256 * MIB
NONE, KEPT, MEMCACHED = "none", "in the process", "in memcached"


@dataclass(frozen=True)
class Asked:
    """A service and what its callers show it."""

    server: Serving
    token: str

    def gets(self) -> float:
        """CPU ms of a GET of one image."""
        paths = [f"/v2/images/{catalogue.image_id(number)}" for number in range(GETS)]
        return self._demand(paths) / 1000

    def download(self, image: str) -> float:
        """CPU ms of a download."""
        return self._demand([f"/v2/images/{image}/file"]) / 1000

    def _demand(self, paths: list[str]) -> float:
        _, spent = cpu.during(self.server, partial(self._ask, paths))
        return spent / len(paths)

    def _ask(self, paths: list[str]) -> None:
        """One after another on one connection, made anew whenever the server closes it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        buffer = bytearray(MIB)
        with contextlib.closing(connection):
            for path in paths:
                connection.request("GET", path, headers={"X-Auth-Token": self.token})
                answer = connection.getresponse()
                while answer.readinto(buffer):
                    pass
                if answer.status != 200:
                    raise RuntimeError(f"GET {path}: {answer.status}")


def run(plan: Plan) -> list[Row]:
    """Rows of metadata and of data."""
    with _services(plan.disk) as asked:
        gets = interleaved(plan.rounds, {name: each.gets for name, each in asked.items()})
        images = {name: _add(each) for name, each in asked.items()}
        downloads = interleaved(
            plan.rounds,
            {name: partial(each.download, images[name]) for name, each in asked.items()},
        )
    beside = "without authentication"
    get = "GET of one image, what Keystone said kept"
    return [
        Row(f"{get} {KEPT}: CPU/request", "ms", gets[KEPT], gets[NONE], beside,
            ratio_at_most(1.5)),
        Row(f"{get} {MEMCACHED}: CPU/request", "ms", gets[MEMCACHED], gets[NONE], beside,
            ratio_at_most(1.5)),
        Row("download of 256 MiB, with a token: CPU", "ms", downloads[KEPT], downloads[NONE],
            beside),
    ]  # fmt: skip


def _add(asked: Asked) -> str:
    """An image of zeros; its id."""
    connection = http.client.HTTPConnection("127.0.0.1", asked.server.port, timeout=60)
    headers = {"X-Auth-Token": asked.token}
    with contextlib.closing(connection):
        body = '{"disk_format": "raw", "container_format": "bare"}'
        connection.request("POST", "/v2/images", body, headers)
        answer = connection.getresponse()
        place = answer.headers["Location"]
        answer.read()
    headers["Content-Type"] = "application/octet-stream"
    connection = http.client.HTTPConnection("127.0.0.1", asked.server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("PUT", f"{place}/file", bytes(SIZE), headers)
        if connection.getresponse().status != 204:
            raise RuntimeError("the upload was refused")
    return str(place.rpartition("/")[2])


@contextlib.contextmanager
def _services(directory: Path) -> Iterator[dict[str, Asked]]:
    with contextlib.ExitStack() as stack:
        known = stack.enter_context(keystone.running(directory / "keystone"))
        memcached = stack.enter_context(_memcached())
        token = known.token("admin", project="demo")
        envs = {
            NONE: {},
            KEPT: known.env(),
            MEMCACHED: known.env(memcached_servers=memcached),
        }
        found = {}
        for name, env in envs.items():
            place = directory / name.replace(" ", "-")
            with serving(place) as server:  # creates the tables
                server.stop()
            catalogue.fill(place / "headrace.db", IMAGES)
            found[name] = Asked(stack.enter_context(serving(place, env=env)), token)
        yield found


@contextlib.contextmanager
def _memcached() -> Iterator[str]:
    port = free_port()
    words = ["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "nobody"]
    process = subprocess.Popen(words)
    try:
        wait_for_port(port, [process])
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
