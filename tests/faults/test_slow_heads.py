"""Clients that never say what they want hold no thread: everybody else is served meanwhile."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.deploy.wire import Wire
from tests.faults.conftest import Start
from tests.faults.service import Service

THREADS = 4
CLIENTS = 10 * THREADS
WHOLE = "GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = "GET /v2/images HTTP/1.1\r\nHost: loc"


@pytest.fixture
def service(start: Start) -> Service:
    """Its stall time-out is longer than any guard: who has to wait for it fails."""
    env = {"OS_HEADRACE__THREADS": str(THREADS), "OS_HEADRACE__STALL_TIMEOUT": "120"}
    return start(env=env)


@contextlib.contextmanager
def clients(service: Service) -> Iterator[list[Wire]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(service.connect()) for _ in range(CLIENTS)]


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
