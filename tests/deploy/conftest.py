"""Deployments on every host, each with a few images in it."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.wire import GUARD, Answer, Wire
from tests.faults.conftest import start as start
from tests.needs import require
from tools import hosts, system_environment

MIB = 1 << 20
GIB = 1 << 30
OCTETS = "Content-Type: application/octet-stream"
RECORD = {"disk_format": "raw", "container_format": "bare"}

SIZE = 3 * MIB + 41
SPARSE = 5 * GIB + 17


@dataclass
class Deployed:
    """A host and the images in it; ``data`` is that of the image ``whole``."""

    host: hosts.Host
    data: bytes = field(default_factory=lambda: os.urandom(SIZE), repr=False)

    @property
    def port(self) -> int:
        return self.host.port

    def connect(self, **how: Any) -> Wire:
        return Wire(self.port, **how)

    def ask(self, method: str, target: str, *fields: str, body: bytes = b"") -> Answer:
        """One request on a connection of its own."""
        with self.connect() as wire:
            return wire.request(method, target, *fields, body=body)

    def create(self, **values: object) -> str:
        """A new queued image; its id."""
        answer = self.ask("POST", "/v2/images", body=json.dumps(RECORD | values).encode())
        assert answer.status == 201, self.host.logs()
        return str(answer.json["id"])

    def add(self, data: bytes) -> str:
        """A new active image with that data; its id."""
        image = self.create()
        fields = (OCTETS,) if data else (OCTETS, "Content-Length: 0")
        answer = self.ask("PUT", path(image), *fields, body=data)
        assert answer.status == 204, (answer.status, self.host.logs())
        return image

    def status(self, image: str) -> str:
        return str(self.ask("GET", f"/v2/images/{image}").json["status"])

    @cached_property
    def whole(self) -> str:
        return self.add(self.data)

    @cached_property
    def sparse(self) -> str:
        """An image of 5 GiB: a hole with a copy of ``data`` behind 2 GiB and one behind 4 GiB."""
        image = self.add(b"x")
        with (self.host.image_dir / image).open("r+b") as file:
            for start in self.marks:
                file.seek(start)
                file.write(self.data)
            file.truncate(SPARSE)
        database = sqlite3.connect(self.host.state_dir / "headrace.db", timeout=GUARD)
        with closing(database), database:
            database.execute("UPDATE images SET size = ? WHERE id = ?", (SPARSE, image))
        return image

    marks = (2 * GIB - MIB, 4 * GIB - MIB)

    def stored(self) -> list[str]:
        """The names of all files in the store and where uploads arrive, hidden ones too."""
        return sorted(
            str(file.relative_to(self.host.image_dir))
            for file in self.host.image_dir.rglob("*")
            if file.is_file()
        )

    def open_images(self) -> list[str]:
        """The files of the store that any process of the deployment has open."""
        found = []
        for pid in self.host.pids():
            for link in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    target = os.readlink(link)
                except OSError:
                    continue
                if target.startswith(f"{self.host.image_dir}/"):
                    found.append(target)
        return found


def path(image: str) -> str:
    return f"/v2/images/{image}/file"


def require_host(name: str) -> None:
    missing = hosts.missing(name)
    require(missing is None, f"{name} needs {missing}")
    if hosts.KINDS[name].apart:
        try:
            system_environment.ensure()
        except RuntimeError as error:
            require(False, f"{name} needs an environment of the system's Python: {error}")


@pytest.fixture(scope="module", params=hosts.KINDS)
def deployed(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """Every host in turn, for the tests of one module."""
    require_host(request.param)
    with hosts.running(request.param) as host:
        yield Deployed(host)
