"""Clients that never say what they want do not hold all threads: others are served meanwhile."""

import contextlib
import select
import time
from collections.abc import Iterator

import pytest

from tests.deploy.wire import GUARD, Wire
from tests.faults.conftest import Start
from tests.faults.service import Service
from tools.serving import serving

THREADS = 4
CLIENTS = 10 * THREADS
WHOLE = "GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = "GET /v2/images HTTP/1.1\r\nHost: loc"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Its stall time-out is longer than any guard: who has to wait for it fails."""
    env = {"OS_HEADRACE__THREADS": str(THREADS), "OS_HEADRACE__STALL_TIMEOUT": "120"}
    with serving(tmp_path_factory.mktemp("server"), env=env) as running:
        yield Service(running)


@contextlib.contextmanager
def clients(service: Service, count: int = CLIENTS) -> Iterator[list[Wire]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(service.connect()) for _ in range(count)]


@pytest.mark.parametrize(
    "before", ["", WHOLE, WHOLE + WHOLE], ids=["first head", "pipelined", "pipelined twice"]
)
def test_half_a_head(service: Service, before: str) -> None:
    """The rest of each is still taken when it comes, byte by byte."""
    with clients(service) as wires:
        for wire in wires:
            wire.send(before, HALF)
            for _ in range(before.count("GET")):
                assert wire.answer().status == 200
        assert service.request("GET", "/v2/images").status == 200
        for byte in "alhost\r\n\r\n":
            for wire in wires:
                wire.send(byte)
        for wire in wires:
            assert wire.answer().status == 200


def test_half_a_head_on_a_kept_connection(service: Service) -> None:
    with clients(service) as wires:
        for wire in wires:
            assert wire.request("GET", "/healthcheck").status == 200
        for wire in wires:
            wire.send(HALF)
        assert service.request("GET", "/v2/images").status == 200
        for wire in wires:
            wire.send("alhost\r\n\r\n", WHOLE)
            assert (wire.answer().status, wire.answer().status) == (200, 200)


def test_refused_and_still_there(service: Service) -> None:
    """Who was refused, and neither reads that nor leaves, is not waited for by all threads."""
    with clients(service) as wires:
        for wire in wires:
            wire.send("NO REQUEST\r\n\r\n")
        assert service.request("GET", "/v2/images").status == 200
        for wire in wires:
            assert wire.answer().status == 400


def test_records_that_do_not_come(service: Service) -> None:
    """More than half of the threads wait for a moment only, the others for the stall time-out."""
    with clients(service, 3 * THREADS) as wires:
        for wire in wires:
            wire.send(wire.head("POST", "/v2/images", "Content-Length: 100"), "{")
        assert service.request("GET", "/v2/images").status == 200
        given_up = [wire.answer("POST").status for wire in wires[THREADS // 2 + 1 :]]
        assert set(given_up) == {408}


def test_a_body_that_nobody_wants_and_that_does_not_come(service: Service) -> None:
    """Its thread is free long before the stall time-out."""
    with service.connect() as wire:
        fields = ("Content-Type: text/plain", "Content-Length: 100")
        wire.send(wire.head("PUT", f"/v2/images/{service.create()}/file", *fields), "x")
        assert wire.answer("PUT").status == 415
        assert wire.at_end()


def test_a_record_that_drips(start: Start) -> None:
    """Byte by byte does not buy more time."""
    service = start(env={"OS_HEADRACE__STALL_TIMEOUT": "1"})
    with service.connect() as wire:
        wire.send(wire.head("POST", "/v2/images", "Content-Length: 100"), "{")
        until = time.monotonic() + GUARD
        while not select.select([wire.sock], [], [], 0.3)[0]:
            assert time.monotonic() < until
            wire.send(" ")
        assert wire.answer("POST").status == 408
