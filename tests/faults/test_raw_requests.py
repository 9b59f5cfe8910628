"""Requests as nobody should send them: each file of requests/ is answered or ended as it says."""

from collections.abc import Iterator

import pytest

from tests.faults.corpus import Case, Send, cases, filled
from tests.faults.exchange import Exchange
from tests.faults.service import Service, leases, wait_until
from tools.serving import serving

CASES = cases()
DATA = b"precious" * 10_000
LOGGED = 16 * 1024
"""Most bytes that a case, and looking after it, may add to the log."""

LAST = Send(b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    env = {"OS_HEADRACE__STALL_TIMEOUT": "1"}
    with serving(tmp_path_factory.mktemp("server"), env=env) as running:
        yield Service(running)


@pytest.fixture(scope="module")
def pids(service: Service) -> list[int]:
    return service.server.pids()


@pytest.fixture
def active(service: Service) -> Iterator[str]:
    """Of each case its own: one that fails may have deleted it."""
    image_id = service.active(DATA)
    yield image_id
    service.request("DELETE", f"/v2/images/{image_id}")


@pytest.fixture
def queued(service: Service) -> Iterator[str]:
    image_id = service.create()
    yield image_id
    service.request("DELETE", f"/v2/images/{image_id}")


def test_there_are_cases() -> None:
    assert len(CASES) > 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(service: Service, active: str, pids: list[int], queued: str, case: Case) -> None:
    logged = service.server.log.stat().st_size
    with Exchange(service.server.port) as exchange:
        exchange.play(filled(case.steps, {"queued": queued, "active": active}))
        expected = list(case.answers)
        if case.open and exchange.has_answered(len(expected)):
            exchange.play([LAST])
            expected.append(frozenset({200}))
        assert exchange.has_ended(), f"still open after {exchange.received!r}"
        answers = exchange.answers()
        differs = f"{[answer.status for answer in answers]} are not {case.answers}"
        assert len(answers) == len(expected), f"{differs}: {exchange.received!r}"
        for answer, statuses in zip(answers, expected, strict=True):
            assert answer.status in statuses, f"{differs}: {answer}"
        assert exchange.left() == b""
    if answers:
        assert answers[-1].closes, "it hung up without saying so"
    check_left_nothing(service, active, queued, case.stored)
    assert service.server.pids() == pids, "a process has been replaced"
    with service.server.log.open("rb") as log:
        log.seek(logged)
        said = log.read()
    assert b"Traceback" not in said
    assert len(said) < LOGGED


def check_left_nothing(service: Service, active: str, queued: str, stored: bytes | None) -> None:
    """Nothing has happened but what is stored, and the server is well."""
    assert service.request("GET", "/v2/images").status == 200
    wait_until(lambda: leases(service.server) == [], "the end of the upload")
    assert service.status(queued) == ("queued" if stored is None else "active")
    if stored is not None:
        assert service.request("GET", f"/v2/images/{queued}/file").body == stored
    assert service.request("GET", f"/v2/images/{active}/file").body == DATA
    service.check_store()
    wait_until(lambda: not service.holds("(deleted)"), "closing the unnamed file")
