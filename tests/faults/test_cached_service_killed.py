"""A service with a cache is killed anywhere, a worker of it or all, while clients read images that
lie elsewhere: no wrong byte, no room beyond the bound, and nothing left that is of no use.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.wire import Wire
from tests.faults.conftest import Start
from tests.faults.leftovers import check_tidy, taken
from tests.faults.service import GUARD, wait_until
from tests.faults.test_kill import kill, runs
from tools.serving import Serving, children, serving

MIB = 1 << 20
RATE = 24 * MIB  # bytes a second of a download: it takes 40 to 200 ms
MAX_SIZE = 15 * MIB  # half of what there is
SIZES = [MIB * number + number for number in range(1, 6)] * 2
READERS = 6


class Readers:
    """Clients that read images of a service, whole or from somewhere on, until the context ends."""

    def __init__(self, port: int, contents: dict[str, bytes], seed: int) -> None:
        self.whole = 0
        self._port = port
        self._contents = contents
        self._ends = threading.Event()
        self._failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._work, args=[random.Random(seed + number)])
            for number in range(READERS)
        ]

    def __enter__(self) -> "Readers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(GUARD)
            assert not thread.is_alive(), "a client hangs on a dead service"
        assert self._failures == []

    def _work(self, chance: random.Random) -> None:
        while not self._ends.is_set():
            try:
                self._read(chance)
            except (OSError, EOFError):
                time.sleep(0.01)  # a kill
            except BaseException as error:
                self._failures.append(repr(error))
                return

    def _read(self, chance: random.Random) -> None:
        image_id = chance.choice(list(self._contents))
        if chance.random() < 0.5:  # what many read just now, so that one goes on where another died
            image_id = list(self._contents)[int(time.monotonic() * 4) % len(self._contents)]
        data = self._contents[image_id]
        start = chance.randrange(len(data)) if chance.random() < 0.3 else 0
        fields = [f"Range: bytes={start}-"] if start else []
        with Wire(self._port) as wire:
            wire.send(wire.head("GET", f"/v2/images/{image_id}/file", "Connection: close", *fields))
            if chance.random() < 0.1:
                wire.wait_for_head()
                return
            answer = wire.answer()
        assert answer.status == (206 if start else 200), (answer.status, answer.body[:500])
        wanted = data[start:]
        assert answer.body == wanted[: len(answer.body)], f"wrong bytes of image {image_id}"
        assert answer.headers["content-length"] == str(len(wanted))
        self.whole += answer.whole


class Campaign:
    """Kills of an edge whose images lie at a centre."""

    def __init__(self, start: Start, directory: Path, seed: int) -> None:
        self._kills = 0
        self._whole = 0
        self._chance = random.Random(seed)
        rate = {"OS_HEADRACE__DOWNLOAD_RATE": str(RATE)}
        centre = start(state_dir=directory / "centre", env=rate)
        blocks = [self._chance.randbytes(size) for size in SIZES]
        self._contents = {centre.active(data): data for data in blocks}
        self._edge = directory / "edge"
        self._cache = self._edge / "cache"
        self._env = rate | {
            "OS_DEFAULT__ENABLED_BACKENDS": "near:file,centre:imageapi",
            "OS_DEFAULT__IMAGE_CACHE_DIR": str(self._cache),
            "OS_DEFAULT__IMAGE_CACHE_MAX_SIZE": str(MAX_SIZE),
            "OS_GLANCE_STORE__DEFAULT_BACKEND": "near",
            "OS_NEAR__FILESYSTEM_STORE_DATADIR": str(self._edge / "near"),
            "OS_CENTRE__IMAGEAPI_ENDPOINT": centre.server.url,
            "OS_CENTRE__IMAGEAPI_STANDS_FOR": f"file://{centre.server.image_dir}",
            "OS_DATABASE__CONNECTION": f"sqlite:///{centre.server.state_dir}/headrace.db",
        }

    def run(self, kills: int) -> None:
        while self._kills < kills:
            with self._service() as server:
                self._round(server)
        with self._service() as server:
            assert server.stop() == 0
        assert self._whole

    @contextlib.contextmanager
    def _service(self) -> Iterator[Serving]:
        with serving(self._edge, "--workers", "2", env=self._env) as server:
            check_tidy(self._cache, self._contents)
            yield server

    def _round(self, server: Serving) -> None:
        """Kill three workers, perhaps the main process, and all that is left."""
        with Readers(server.port, self._contents, self._chance.getrandbits(32)) as readers:
            for _ in range(3):
                self._watch()
                wait_until(lambda: children(server.pid), "another worker")
                self._kill_one(self._chance.choice(children(server.pid)))
            self._watch()
            if self._chance.random() < 0.5:
                self._kill_one(server.pid)
                self._watch()
            kill(server)
            self._kills += 1
            assert taken(self._cache) <= MAX_SIZE
        self._whole += readers.whole

    def _kill_one(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not runs(pid), "dying")
        self._kills += 1

    def _watch(self) -> None:
        """Until it is time for a kill."""
        end = time.monotonic() + self._chance.uniform(0.0, 0.5)
        while time.monotonic() < end:
            assert taken(self._cache) <= MAX_SIZE
            time.sleep(0.005)


@pytest.mark.slow
def test_a_few_kills(start: Start, tmp_path: Path) -> None:
    Campaign(start, tmp_path, seed=1).run(20)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_kills(start: Start, tmp_path: Path) -> None:
    Campaign(start, tmp_path, seed=1000).run(100)
