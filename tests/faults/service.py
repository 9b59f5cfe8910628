"""A running server as the tests of faults see it: its images, its files, its log."""

import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.wire import Answer, Wire
from tools.serving import Serving

GUARD = 30.0  # seconds; a hang guard
BLOCK = 1 << 20

_LINE = re.compile(r"[\d-]+ [\d:,]+ (?P<level>[A-Z]+) (?P<logger>\S+) \[(?P<request>[^]]*)\] ")
_OCTETS = "Content-Type: application/octet-stream"


def wait_until(condition: Callable[[], object], what: str = "it", guard: float = GUARD) -> None:
    deadline = time.monotonic() + guard
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


@dataclass
class Service:
    """``server`` with the requests that tests need, each on a connection of its own."""

    server: Serving

    def connect(self, **how: Any) -> Wire:
        return Wire(self.server.port, **how)

    def request(self, method: str, target: str, *fields: str, body: bytes = b"") -> Answer:
        with self.connect() as wire:
            return wire.request(method, target, "Connection: close", *fields, body=body)

    def create(self, **values: object) -> str:
        """A new queued image; returns its id."""
        record = {"disk_format": "raw", "container_format": "bare", **values}
        answer = self.request("POST", "/v2/images", body=json.dumps(record).encode())
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def upload(self, image_id: str, data: bytes, *fields: str) -> Answer:
        return self.request("PUT", f"/v2/images/{image_id}/file", _OCTETS, *fields, body=data)

    def active(self, data: bytes, **values: object) -> str:
        """A new active image with ``data``; returns its id."""
        image_id = self.create(**values)
        assert self.upload(image_id, data).status == 204
        return image_id

    def show(self, image_id: str) -> Any:
        return self.request("GET", f"/v2/images/{image_id}").json

    def status(self, image_id: str) -> str:
        return str(self.show(image_id)["status"])

    def delete(self, image_id: str) -> None:
        answer = self.request("DELETE", f"/v2/images/{image_id}")
        assert answer.status == 204, answer.body

    def images(self) -> dict[str, Any]:
        """Every image by its id."""
        found: dict[str, Any] = {}
        target: str | None = "/v2/images?limit=500"
        while target:
            page = self.request("GET", target).json
            found |= {image["id"]: image for image in page["images"]}
            target = page.get("next")
        return found

    def files(self) -> set[str]:
        """The names in the image directory, and in it of what is staged for imports."""
        staging = self.server.image_dir / ".headrace-staging"
        names = set(os.listdir(self.server.image_dir)) - {staging.name}
        if staging.is_dir():
            names |= {f"{staging.name}/{name}" for name in os.listdir(staging)}
        return names

    def descriptors(self) -> int:
        """How many files and sockets the server's processes hold open."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.server.pids())

    def holds(self, name: str) -> bool:
        """Whether one of the server's processes has a file of that name, or of none, open."""
        links = []
        for pid in self.server.pids():
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    links.append(os.readlink(fd))
                except FileNotFoundError:
                    continue
        images = f"{self.server.image_dir}/"
        return any(link.startswith(images) and name in link for link in links)

    def check_store(self, read: Collection[str] | None = None) -> dict[str, Any]:
        """Every active image has its file, and there is no other; no image is in between.

        The bytes of those in ``read`` (None: all) hash to their os_hash_value.  Returns the images.
        """
        images = self.images()
        active = {image_id for image_id, image in images.items() if image["status"] == "active"}
        statuses = {image["status"] for image in images.values()}
        assert statuses <= {"active", "queued"}, statuses
        assert self.files() == active
        for image_id in active if read is None else active.intersection(read):
            image = images[image_id]
            path = self.server.image_dir / image_id
            assert path.stat().st_size == image["size"], image_id
            assert digest(path, image["os_hash_algo"]) == image["os_hash_value"], image_id
        return images

    def check_released(self, image_id: str) -> None:
        """A failed upload left nothing, and the image takes another one."""
        image = self.show(image_id)
        assert (image["status"], image["size"], image["checksum"]) == ("queued", None, None)
        assert image["os_hash_value"] is None
        assert image_id not in self.files()
        wait_until(lambda: not self.holds("(deleted)"), "closing the unnamed file")
        assert leases(self.server) == []
        assert self.upload(image_id, b"whole").status == 204
        assert self.request("GET", f"/v2/images/{image_id}/file").body == b"whole"
        self.check_store({image_id})

    @contextmanager
    def one_complaint(self, *words: str) -> Iterator[None]:
        """What happens inside is worth exactly one line of the log, which has ``words`` in it.

        The access log does not count; what is no line of the log (a traceback) must not appear.
        """
        before = self.server.log.stat().st_size
        yield
        wait_until(lambda: self._complaints(before), "a line in the log")
        time.sleep(0.1)  # a second line would come from the same request, right behind
        lines = self._complaints(before)
        assert len(lines) == 1, "\n".join(lines)
        assert all(word in lines[0] for word in words), lines[0]

    def _complaints(self, start: int) -> list[str]:
        with self.server.log.open("rb") as log:
            log.seek(start)
            lines = log.read().decode().splitlines()
        found = [(_LINE.match(line), line) for line in lines]
        return [line for match, line in found if match is None or match["level"] != "INFO"]


def digest(path: Path, algorithm: str = "sha512") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def leases(server: Serving) -> list[Any]:
    """The uploads in progress, as the database has them: image id and worker."""
    database = sqlite3.connect(f"file:{server.state_dir}/headrace.db?mode=ro", uri=True)
    try:
        return database.execute("SELECT image_id, worker FROM headrace_uploads").fetchall()
    finally:
        database.close()
