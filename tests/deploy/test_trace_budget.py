"""What a transfer costs in Headrace's own functions and statements, counted by a profiler.

The parts of the code have budgets of their own: what decides about a request (api, service, db,
stores), what moves the bytes (server, transfer), where nothing may be called per block, and what
counts, once when a transfer begins and once when it ends.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.wire import Wire
from tools.serving import READY, environment

ROOT = Path(__file__).parents[2]
GUARD = 30.0  # seconds; a hang guard
MIB = 1 << 20
OCTETS = "Content-Type: application/octet-stream"
LOOP = "server/transfers.py:_Loop._turn"
TURN = "transfer/outgoing.py:Outgoing.turn"
LOOK = "server/transfers.py:_Loop._is_cold"
READ_IN = "transfer/linux.py:read_in"
CLOCK = [f"server/transfers.py:_Loop.{name}" for name in ("_do_what_is_due", "_sweep", "_resume")]
MOVING = ("server/", "transfer/", "log.py")
COUNTING = ("api/traffic.py", "metrics.py")


@dataclass(frozen=True)
class Record:
    """The calls (``file:function``) and statements of one request."""

    calls: list[str]
    statements: list[str]

    @property
    def deciding(self) -> list[str]:
        return [call for call in self.calls if not call.startswith(MOVING + COUNTING)]

    @property
    def moving(self) -> list[str]:
        return [call for call in self.calls if call.startswith(MOVING)]

    @property
    def counting(self) -> list[str]:
        return [call for call in self.calls if call.startswith(COUNTING)]

    @property
    def selects(self) -> list[str]:
        return [each for each in self.statements if each.startswith("SELECT")]

    @property
    def work(self) -> list[str]:
        """The statements without what only brackets them."""
        brackets = ("BEGIN", "COMMIT")
        return [each for each in self.statements if not each.startswith(brackets)]


def files(calls: list[str]) -> set[str]:
    return {call.partition(":")[0] for call in calls}


def told(calls: list[str]) -> str:
    """The calls for a failure's message, the most frequent first."""
    return "\n".join(f"{count:6} {call}" for call, count in Counter(calls).most_common())


@dataclass(frozen=True)
class Traced:
    port: int

    def request(self, method: str, target: str, *fields: str, body: bytes = b"") -> Any:
        with Wire(self.port) as wire:
            return wire.request(method, target, "Connection: close", *fields, body=body)

    def image(self, size: int) -> str:
        """An active image of so many zeros, its upload recorded; returns the path of its data."""
        record = b'{"disk_format": "raw", "container_format": "bare"}'
        path = self.request("POST", "/v2/images", body=record).json["file"]
        with Wire(self.port) as wire:
            wire.send(wire.head("PUT", path, OCTETS, f"Content-Length: {size}"))
            block = bytes(MIB)
            for _ in range(size // MIB):
                wire.send(block)
            assert wire.answer("PUT").status == 204
        return str(path)

    def record(self, request: str) -> Record:
        """What the newest such request led to, once it is over."""
        deadline = time.monotonic() + GUARD
        while time.monotonic() < deadline:
            found = [
                each for each in self.request("GET", "/trace").json if each["request"] == request
            ]
            if found and found[-1]["done"]:
                return Record(found[-1]["calls"], found[-1]["statements"])
        raise AssertionError(f"{request} is not over")


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    directory = tmp_path_factory.mktemp("traced")
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.deploy.traced_app", str(directory / "state")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            cwd=ROOT, env=environment({"PYTHONPATH": f"{ROOT}/src"}),
        )  # fmt: skip
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith(READY), (directory / "log").read_text()
            yield Traced(int(line.rpartition(":")[2]))
        finally:
            process.terminate()
            process.wait(GUARD)
            process.stdout.close()


def download(traced: Traced, path: str, *fields: str, pause: float = 0.0) -> Record:
    """The record of a download by a client that takes the bytes as fast as it can, after a pause.

    Who pauses is served by the transfer loop.
    """
    with Wire(traced.port) as wire:
        wire.send(wire.head("GET", path, "Connection: close", *fields))
        assert wire.read_head().status in (200, 206)
        time.sleep(pause)
        buffer = bytearray(MIB)
        while wire.sock.recv_into(buffer):
            pass
    return traced.record(f"GET {path}")


@pytest.mark.parametrize("fields", [(), ("Range: bytes=1-",)], ids=["whole", "range"])
def test_a_download_is_decided_in_few_steps(traced: Traced, fields: tuple[str, ...]) -> None:
    path = traced.image(MIB)
    download(traced, path)  # what is done once only is done now
    record = download(traced, path, *fields)
    # Ten, and the policy, which has a file of its own; as ranges has.
    limit = 11 if not fields else 12
    assert len(files(record.deciding)) <= limit, sorted(files(record.deciding))
    assert len(record.deciding) <= 40, told(record.deciding)
    assert len(record.counting) <= 12, told(record.counting)
    assert len(record.selects) <= 2, record.selects
    assert record.work == record.selects


def check_growth(first: Record, second: Record, bytes_between: int) -> None:
    """What a download costs for being so much larger: three calls a turn, and three more for every
    8 MiB, to see whether they are in memory; eight more where they are not.  Turns are of half a
    MiB at least, on average."""
    turns = second.calls.count(TURN) - first.calls.count(TURN)
    assert 0 < turns <= 2 * bytes_between // MIB, told(second.calls)
    more = len(second.calls) - len(first.calls)
    windows = 4 * bytes_between // (8 * MIB) + 8 * second.calls.count(READ_IN)
    assert more <= 3 * turns + windows, told(second.calls)


def fixed(record: Record) -> int:
    """What moving costs besides: a turn is five calls where its thread looks before each, three in
    the loop, which looks once for many by three more; eight read in what is not in memory.  What
    the loop does by the clock is nobody's."""
    calls = Counter(record.moving)
    by_thread = calls[TURN] - calls[LOOP]
    looks = 3 * calls[LOOK] + 8 * calls[READ_IN]
    by_clock = sum(map(calls.__getitem__, CLOCK))
    return calls.total() - 5 * by_thread - 3 * calls[LOOP] - looks - by_clock


def test_a_download_costs_the_same_whatever_its_size(traced: Traced) -> None:
    """No call per block, whether its thread or, on a busy machine, the loop sends it."""
    small, large = 64 * MIB, 512 * MIB
    paths = [traced.image(size) for size in (small, large)]
    first, second = (download(traced, path) for path in paths)
    check_growth(first, second, large - small)
    assert first.deciding == second.deciding
    assert fixed(first) <= 55, told(first.moving)


def test_the_transfer_loop_costs_three_calls_a_turn(traced: Traced) -> None:
    small, large = 64 * MIB, 512 * MIB
    paths = [traced.image(size) for size in (small, large)]
    first, second = (download(traced, path, pause=0.2) for path in paths)
    assert second.calls.count(LOOP) > 0.9 * second.calls.count(TURN), told(second.calls)
    check_growth(first, second, large - small)


def test_an_upload_costs_a_few_calls_a_mib(traced: Traced) -> None:
    """One turn fills and drains a pipe of 1 MiB and tells store and digests how far it is."""
    small, large = 16 * MIB, 144 * MIB
    traced.image(small)
    first, second = (traced.record(f"PUT {traced.image(size)}") for size in (small, large))
    more = len(second.calls) - len(first.calls)
    assert more <= 10 * (large - small) // MIB, told(second.calls)


def test_the_statements_of_an_upload(traced: Traced) -> None:
    """One to look, two to claim, three to activate; the lease is the first and the last of them."""
    record = traced.record(f"PUT {traced.image(MIB)}")
    assert len(record.work) <= 6, record.work
    assert len(record.selects) == 1
    assert record.statements.count("COMMIT") == 2
