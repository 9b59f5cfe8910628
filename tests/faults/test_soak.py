"""Mixed traffic, for a minute or for many: what it leaves behind is what was there before."""

import contextlib
import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from headrace.bench import cache
from headrace.errors import ClientError
from tests.deploy.wire import Wire
from tests.faults.conftest import Start
from tests.faults.service import Service, leases, wait_until

MIB = 1 << 20
SIZE = 12 * MIB + 5
OCTETS = "Content-Type: application/octet-stream"
THREADS = 6  # of which all have been at work in a moment
WARM = 2 / 3  # of the time, after which memory must not grow any more
GROWTH = 1.05


@dataclass
class Traffic:
    """Clients at work until ``deadline``; what each kind has done, and what went wrong."""

    service: Service
    image: str
    data: bytes
    deadline: float
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def target(self) -> str:
        return f"/v2/images/{self.image}/file"

    def run(self, act: Callable[["Traffic", random.Random], None], number: int) -> None:
        dice = random.Random(number)
        while time.monotonic() < self.deadline and not self.wrong:
            try:
                act(self, dice)
                self.done[act.__name__] += 1
            except (AssertionError, OSError, EOFError) as error:
                self.wrong.append(f"{act.__name__}: {error!r}")


def fast(traffic: Traffic, dice: random.Random) -> None:
    assert traffic.service.request("GET", traffic.target).body == traffic.data


def slow(traffic: Traffic, dice: random.Random) -> None:
    with traffic.service.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", traffic.target, "Connection: close"))
        wire.read_head()
        got = len(wire.buffered())
        while block := wire.sock.recv(256 * 1024):
            got += len(block)
            time.sleep(0.02)
        assert got == SIZE


def aborting(traffic: Traffic, dice: random.Random) -> None:
    with traffic.service.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", traffic.target))
        wire.wait_for_head()
        for _ in range(dice.randrange(10)):
            wire.sock.recv(65536)
    time.sleep(0.02)


def ranged(traffic: Traffic, dice: random.Random) -> None:
    first = dice.randrange(SIZE)
    last = dice.randrange(first, SIZE)
    answer = traffic.service.request("GET", traffic.target, f"Range: bytes={first}-{last}")
    assert answer.body == traffic.data[first : last + 1]


def refused(traffic: Traffic, dice: random.Random) -> None:
    status = traffic.service.request("GET", traffic.target, f"Range: bytes={SIZE}-").status
    assert status == 416
    assert traffic.service.request("GET", "/v2/images/none/file").status == 404
    assert traffic.service.request("PUT", traffic.target, OCTETS, body=b"x" * 1000).status == 409
    assert traffic.service.request("POST", "/v2/images", body=b"{").status == 400
    time.sleep(0.02)


def keep_alive(traffic: Traffic, dice: random.Random) -> None:
    with traffic.service.connect() as wire:
        for _ in range(5):
            assert wire.request("GET", f"/v2/images/{traffic.image}").status == 200
            assert wire.request("GET", traffic.target, "Range: bytes=0-999999").status == 206


def uploading(traffic: Traffic, dice: random.Random) -> None:
    image_id = traffic.service.create()
    assert traffic.service.upload(image_id, traffic.data).status == 204
    traffic.service.delete(image_id)


def killed_half_way(traffic: Traffic, dice: random.Random) -> None:
    image_id = traffic.service.create()
    with Wire(traffic.service.server.port) as wire:
        wire.send(
            wire.head("PUT", f"/v2/images/{image_id}/file", OCTETS, f"Content-Length: {SIZE}"),
            traffic.data[: dice.randrange(SIZE)],
        )
    wait_until(lambda: traffic.service.status(image_id) == "queued", "its release")
    traffic.service.delete(image_id)


def cold(traffic: Traffic, dice: random.Random) -> None:
    """Many at once of what is not in memory, where there is a disk."""
    path = traffic.service.server.image_dir / traffic.image
    with path.open("rb") as file, contextlib.suppress(ClientError):
        cache.drop(file.fileno(), "the image")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(traffic.service.connect()) for _ in range(12)]
        for wire in wires:
            wire.send(wire.head("GET", traffic.target))
        for wire in wires:
            assert wire.answer().body == traffic.data


KINDS = (cold, fast, slow, aborting, ranged, refused, keep_alive, uploading, killed_half_way)


@dataclass(frozen=True)
class State:
    """What a server holds."""

    descriptors: int
    threads: int
    pipes: int

    @classmethod
    def of(cls, service: Service) -> "State":
        processes = [psutil.Process(pid) for pid in service.server.pids()]
        pipes = 0
        for process in processes:
            for fd in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    pipes += os.readlink(fd).startswith("pipe:")
        return cls(
            service.descriptors(), sum(process.num_threads() for process in processes), pipes
        )


def resident(service: Service) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in service.server.pids())


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(60, marks=pytest.mark.slow),
        pytest.param(1200, marks=[pytest.mark.long, pytest.mark.timeout(1500)]),
    ],
)
def test_soak(start: Start, seconds: int) -> None:
    service = start(env={"OS_HEADRACE__THREADS": str(THREADS)})
    data = os.urandom(SIZE)
    image = service.active(data)
    traffic = Traffic(service, image, data, time.monotonic() + 10)
    _drive(traffic)  # every thread has been there, every pool is filled
    before = State.of(service)
    traffic.deadline = time.monotonic() + seconds
    found: list[int] = []
    watch = threading.Timer(seconds * WARM, lambda: found.append(resident(service)))
    watch.start()
    _drive(traffic)
    watch.join()
    assert set(traffic.done) == {act.__name__ for act in KINDS}
    with contextlib.suppress(AssertionError):
        wait_until(lambda: _no_more(State.of(service), before))
    assert _no_more(State.of(service), before), f"{before} has become {State.of(service)}"
    assert resident(service) <= GROWTH * found[0]
    assert leases(service.server) == []
    assert list(service.check_store()) == [image]
    body = service.request("GET", traffic.target).body
    assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()
    assert "Traceback" not in service.server.log.read_text()


def _drive(traffic: Traffic) -> None:
    threads = [
        threading.Thread(target=traffic.run, args=(act, number), daemon=True)
        for number, act in enumerate(KINDS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not traffic.wrong, traffic.wrong


def _no_more(now: State, before: State) -> bool:
    """But for pipes that wait for their next use: as many as have been in use at once."""
    pooled = 2 * THREADS
    return (
        now.descriptors <= before.descriptors + pooled
        and now.threads <= before.threads
        and now.pipes <= before.pipes + pooled
    )
