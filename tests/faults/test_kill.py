"""kill -9, whatever the server is doing: nothing acknowledged is lost, nothing is left over."""

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.deploy.wire import Wire
from tests.faults.conftest import Start
from tests.faults.service import BLOCK, GUARD, Service, leases, wait_until
from tools.serving import Serving, serving

IN_FLIGHT = 8
OCTETS = "Content-Type: application/octet-stream"
KEPT = 4  # active images that stay through all rounds


@dataclass(frozen=True)
class Body:
    """What is uploaded, and what it hashes to."""

    data: memoryview
    sha512: str

    @classmethod
    def of(cls, data: memoryview) -> "Body":
        return cls(data, hashlib.sha512(data).hexdigest())


@pytest.fixture(scope="module")
def bodies() -> list[Body]:
    """Bodies of 8 to 64 MiB, most of them small, so that there are many ends to be hit."""
    data = memoryview(os.urandom(64 * BLOCK + 12345))
    sizes = (8, 9, 12, 16, 24, 32, 48, 64)
    return [Body.of(data[: size * BLOCK + size * 1001]) for size in sizes]


@dataclass
class Load:
    """Clients that upload without a pause until their server is gone."""

    service: Service
    bodies: list[Body]
    queued: list[str]
    """Images waiting for data: what a kill has interrupted before."""

    at_end: threading.Event = field(default_factory=threading.Event)
    """Set whenever a client has sent its last byte."""

    begun: dict[str, Body] = field(default_factory=dict)
    """Uploads of which a byte was sent and no answer was seen, by image."""

    acknowledged: dict[str, Body] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=[random.Random()]) for _ in range(IN_FLIGHT)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(GUARD)
            assert not thread.is_alive(), "a client hangs on a dead server"
        assert self.failures == []

    def _work(self, chance: random.Random) -> None:
        try:
            while True:
                with self._lock:
                    image_id = self.queued.pop() if self.queued else None
                self._upload(image_id or self.service.create(), chance)
        except (OSError, EOFError):
            pass  # the kill
        except BaseException as error:
            self.failures.append(repr(error))

    def _upload(self, image_id: str, chance: random.Random) -> None:
        body = chance.choice(self.bodies)
        chunked = chance.random() < 0.5
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body.data)}"
        with Wire(self.service.server.port) as wire:
            wire.send(wire.head("PUT", f"/v2/images/{image_id}/file", OCTETS, framing))
            for offset in range(0, len(body.data), BLOCK):
                block = body.data[offset : offset + BLOCK]
                if chunked:
                    wire.send(b"%x\r\n" % len(block), block, b"\r\n")
                else:
                    wire.sock.sendall(block)
                self.begun[image_id] = body
            if chunked:
                wire.send(b"0\r\n\r\n")
            self.at_end.set()
            answer = wire.answer("PUT")
            assert answer.status == 204, (answer.status, answer.body)
            with self._lock:
                self.acknowledged[image_id] = self.begun.pop(image_id)


def statuses(server: Serving, directory: Path) -> dict[str, str]:
    """What the dead server's database says; read from a copy, since opening it would mend it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for file in server.state_dir.glob("headrace.db*"):
        shutil.copy(file, directory)
    database = sqlite3.connect(directory / "headrace.db")
    try:
        return dict(database.execute("SELECT id, status FROM images WHERE NOT deleted").fetchall())
    finally:
        database.close()


def kill(server: Serving) -> None:
    """SIGKILL to every process at once; returns when the last of them is gone."""
    pids = server.pids()
    server.kill()
    wait_until(lambda: not any(map(runs, pids)), "dying")


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def anywhere(load: Load, chance: random.Random) -> None:
    """A moment in the middle of it all."""
    time.sleep(chance.uniform(0, 0.8))


def at_an_end(load: Load, chance: random.Random) -> None:
    """A moment when a body has just been sent: digests, fsync, link, activation, answer."""
    load.at_end.clear()
    load.at_end.wait(GUARD)
    time.sleep(chance.uniform(0, 0.25))


@dataclass
class Campaign:
    """Load, kill and restart on one state directory, again and again."""

    directory: Path
    bodies: list[Body]
    kills: int = 0
    interrupted: Counter[str] = field(default_factory=Counter)
    """Uploads that a kill has cut, by the status their image had in the database at that moment."""

    published: int = 0
    """Those of them whose data had its name already and no record yet."""

    mended: int = 0
    """Images that a kill left without data and that have taken another upload since."""

    @property
    def cut(self) -> int:
        """Uploads that the server had taken on and not yet answered when it was killed."""
        return self.interrupted["saving"] + self.interrupted["active"]

    def run(self, kills: int, uploads: int) -> None:
        load: Load | None = None
        while self.kills < kills or self.cut < uploads:
            assert self.kills <= 2 * kills, f"too few uploads were cut: {self.interrupted}"
            load = self._round(load)
        with self._service() as service:
            self._check(service, load)
            assert service.server.stop() == 0

    def _round(self, last: Load | None) -> Load:
        with self._service() as service:
            queued = self._check(service, last)
            load = Load(service, self.bodies, [*queued])
            try:
                wait_until(lambda: len(leases(service.server)) == IN_FLIGHT, "8 in flight")
                moment = at_an_end if self.kills % 2 else anywhere
                moment(load, random.Random())
            finally:
                kill(service.server)
                load.join()
        self.kills += 1
        found = statuses(service.server, self.directory / "copy")
        self.mended += len(load.acknowledged.keys() & queued)
        self.interrupted.update(found[image_id] for image_id in load.begun)
        self.published += sum(
            found[image_id] == "saving" and (self.directory / "state/images" / image_id).exists()
            for image_id in load.begun
        )
        return load

    @contextmanager
    def _service(self) -> Iterator[Service]:
        with serving(self.directory / "state", "--workers", "2") as server:
            yield Service(server)

    def _check(self, service: Service, last: Load | None) -> list[str]:
        """Right after a restart nothing is left over, and nothing acknowledged is lost.

        Returns the queued images, which are as good as new.
        """
        images = service.check_store()
        assert leases(service.server) == []
        if last is not None:
            for image_id, body in last.acknowledged.items():
                assert images[image_id]["status"] == "active", "an acknowledged upload is lost"
                assert images[image_id]["os_hash_value"] == body.sha512
            for image_id, body in last.begun.items():
                assert images[image_id]["os_hash_value"] in (None, body.sha512)
        active = [key for key, image in images.items() if image["status"] == "active"]
        for image_id in active[KEPT:]:
            service.delete(image_id)
        return [key for key, image in images.items() if image["status"] == "queued"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_everything(bodies: list[Body], tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, bodies)
    campaign.run(kills=15, uploads=120)
    assert campaign.kills >= 15
    assert campaign.cut >= 120
    assert campaign.mended > 0
    print(
        f"{campaign.kills} kills cut {campaign.interrupted}, {campaign.published} published, "
        f"{campaign.mended} mended"
    )


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_kill_everything_for_long(bodies: list[Body], tmp_path: Path) -> None:
    Campaign(tmp_path, bodies).run(kills=250, uploads=2000)


def test_kill_one_worker(start: Start) -> None:
    """Its uploads go back to queued at once; those of the other worker do not notice."""
    service = start("--workers", "2")
    body = memoryview(os.urandom(2 * BLOCK))
    wires: dict[str, Wire] = {}

    def by_worker() -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for image_id, worker in leases(service.server):
            found.setdefault(int(worker.split("/")[-2]), []).append(image_id)
        return found

    def begin() -> None:
        image_id = service.create()
        wire = wires[image_id] = service.connect()
        length = f"Content-Length: {len(body)}"
        wire.send(wire.head("PUT", f"/v2/images/{image_id}/file", OCTETS, length), body[:BLOCK])
        wait_until(lambda: service.status(image_id) == "saving", "the claim")

    while len(by_worker()) < 2 or len(wires) < 4:
        begin()
        assert len(wires) < 200, "one worker gets all connections"
    (victim, cut_short), (_, kept) = by_worker().items()

    os.kill(victim, signal.SIGKILL)
    for image_id in cut_short:
        assert wires[image_id].at_end()
        wait_until(lambda image_id=image_id: service.status(image_id) == "queued", "the release")
        assert service.upload(image_id, b"again").status == 204
    for image_id in kept:
        wires[image_id].send(body[BLOCK:])
        assert wires[image_id].answer("PUT").status == 204
    for wire in wires.values():
        wire.sock.close()
    service.check_store()
    assert leases(service.server) == []
    assert service.server.stop() == 0
