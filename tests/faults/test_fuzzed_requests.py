"""Nearly right requests by the thousand: whatever is sent, the server stays as it was.

Every answer is HTTP with a status that is no 500, every connection ends, and nothing is left.
"""

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import Start
from tests.faults.corpus import Step, cases, filled, text_of
from tests.faults.exchange import Exchange, Malformed
from tests.faults.mutations import mutate, torn
from tests.faults.service import Service, leases, wait_until

SEEDS = [case.seed for case in cases()]
DATA = b"precious" * 10_000
THREADS = 8  # of the server, and in each of them any mutation may have been
CLIENTS = 4
FRESH = 10  # mutations that a client sends to the same images
MUTATIONS = 4000
WARM = 300  # mutations after which every pool is filled


@dataclass
class Campaign:
    """Mutations with ``numbers`` of one ``seed``; a mutation depends on these two alone."""

    service: Service
    directory: Path
    seed: str
    numbers: Iterator[int]
    wrong: list[str] = field(default_factory=list)
    sent: int = 0
    answered: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[int, int] = {}
        self._log = self.service.server.log.open("rb")
        self._log.seek(0, 2)
        self._tail = b""

    def run(self) -> None:
        clients = [threading.Thread(target=self._client, args=[i]) for i in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        self._log.close()
        assert not self.wrong, "\n".join(self.wrong)

    def steps(self, number: int) -> list[Step]:
        dice = random.Random(f"{self.seed}:{number}")
        return list(torn(dice, mutate(dice, SEEDS)))

    def _client(self, client: int) -> None:
        names: dict[str, str] = {}
        for turn in itertools.count():
            with self._lock:
                number = next(self.numbers, None)
                if number is None or self.wrong:
                    return
                self._under_way[client] = number
            try:
                if turn % FRESH == 0:
                    names = self._renewed(names)
                fault = self._fault(filled(self.steps(number), names))
            except (OSError, EOFError, AssertionError) as error:
                fault = f"the server no longer answers: {error!r}"
            with self._lock:
                self.sent += 1
                if fault:
                    self.wrong.append(f"{self._kept(number)}: {fault}")
                elif self._has_crashed():
                    among = map(self._kept, self._under_way.values())
                    self.wrong.append(f"a traceback, by one of {', '.join(among)}")

    def _renewed(self, names: dict[str, str]) -> dict[str, str]:
        """Images as the corpus has them: mutations may change or remove them."""
        for image_id in names.values():
            self.service.request("DELETE", f"/v2/images/{image_id}")
        return {"queued": self.service.create(), "active": self.service.active(DATA)}

    def _fault(self, steps: list[Step]) -> str:
        """What is wrong with the server's reaction, if anything."""
        with Exchange(self.service.server.port) as exchange:
            try:
                exchange.play(steps)
                exchange.has_answered(1)
                exchange.finish()
                if not exchange.has_ended():
                    return "the connection does not end"
                answers, left = exchange.answers(), exchange.left()
            except Malformed as error:
                return f"no HTTP: {error}"
        self.answered += len(answers)
        if left:
            return f"an answer is cut short: {left[:200]!r}"
        if any(answer.status == 500 for answer in answers):
            return f"it failed: {exchange.received!r}"
        return ""

    def _has_crashed(self) -> bool:
        self._tail = self._tail[-100:] + self._log.read()
        return b"Traceback" in self._tail

    def _kept(self, number: int) -> Path:
        """The mutation as a file of the corpus."""
        path = self.directory / f"mutation-{number}.http"
        path.write_text(
            f"# Mutation {number} of {self.seed}.\n# expect: nothing, closed\n"
            + text_of(self.steps(number))
        )
        return path


def occupy(service: Service) -> None:
    """Have every thread of the server at work at once: they are started as they are needed."""
    images = [service.create() for _ in range(2 * THREADS)]
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(service.connect()) for _ in images]
        for wire, image_id in zip(wires, images, strict=True):
            octets, length = "Content-Type: application/octet-stream", "Content-Length: 10"
            wire.send(wire.head("PUT", f"/v2/images/{image_id}/file", octets, length), "half")
        for wire in wires:
            assert wire.answer().status == 408


def held(service: Service) -> tuple[int, int]:
    """Descriptors and threads of the server."""
    threads = sum(psutil.Process(pid).num_threads() for pid in service.server.pids())
    return service.descriptors(), threads


def check_as_before(service: Service, before: tuple[int, int]) -> None:
    """Nothing of all that is left, but for pipes that wait for their next use."""
    wait_until(lambda: leases(service.server) == [], "the end of the uploads")
    wait_until(lambda: not service.holds("(deleted)"), "closing the unnamed files")
    service.check_store()
    pooled = 2 * THREADS

    def as_before() -> bool:
        descriptors, threads = held(service)
        return descriptors <= before[0] + pooled and threads <= before[1]

    wait_until(as_before, f"giving back (before: {before}, now: {held(service)})")


@pytest.mark.slow
def test_mutations(start: Start, tmp_path: Path) -> None:
    campaign(start, tmp_path, "headrace", iter(range(MUTATIONS)))


@pytest.mark.long
@pytest.mark.timeout(4000)
def test_mutations_for_an_hour(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, end = str(int(time.time())), time.monotonic() + 3600
    with capsys.disabled():
        print(f"seed {seed}")
    numbers = itertools.takewhile(lambda number: time.monotonic() < end, itertools.count())
    campaign(start, tmp_path, seed, numbers)


def campaign(start: Start, directory: Path, seed: str, numbers: Iterator[int]) -> None:
    env = {"OS_HEADRACE__STALL_TIMEOUT": "1", "OS_HEADRACE__THREADS": str(THREADS)}
    service = start(env=env)
    occupy(service)
    Campaign(service, directory, f"{seed} (warm)", iter(range(WARM))).run()
    before, pids = held(service), service.server.pids()
    running = Campaign(service, directory, seed, numbers)
    running.run()
    assert running.answered > running.sent / 2, "hardly anything was understood"
    assert service.server.pids() == pids, "a process has been replaced"
    check_as_before(service, before)
    assert "Traceback" not in service.server.log.read_text()
