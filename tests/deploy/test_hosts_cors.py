"""A web page of an allowed origin uploads and downloads, through every host."""

from collections.abc import Iterator

import pytest

from tests.deploy.conftest import OCTETS, Deployed, path, require_host
from tests.deploy.wire import Answer
from tools import hosts

pytestmark = pytest.mark.slow

DASHBOARD = "https://dashboard.example.org"
ORIGIN = f"Origin: {DASHBOARD}"


@pytest.fixture(scope="module", params=hosts.KINDS)
def host(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    require_host(request.param)
    with hosts.running(request.param, conf=f"[cors]\nallowed_origin = {DASHBOARD}\n") as running:
        yield Deployed(running)


def may_be_read(answer: Answer) -> bool:
    headers = answer.headers
    return (
        headers.get("access-control-allow-origin") == DASHBOARD
        and headers.get("access-control-allow-credentials") == "true"
        and "X-OpenStack-Request-ID" in headers.get("access-control-expose-headers", "")
        and "Origin" in headers.get("vary", "")
    )


def test_a_page_uploads_and_downloads(host: Deployed) -> None:
    image = host.create()
    asked = host.ask(
        "OPTIONS", path(image), ORIGIN, "Access-Control-Request-Method: PUT",
        "Access-Control-Request-Headers: content-type",
    )  # fmt: skip
    assert asked.status == 200, host.host.logs()
    assert asked.headers["access-control-allow-origin"] == DASHBOARD
    assert "PUT" in asked.headers["access-control-allow-methods"]
    assert "Content-Type" in asked.headers["access-control-allow-headers"]

    up = host.ask("PUT", path(image), ORIGIN, OCTETS, body=host.data)
    assert (up.status, may_be_read(up)) == (204, True)
    down = host.ask("GET", path(image), ORIGIN)
    assert (down.status, down.body == host.data, may_be_read(down)) == (200, True, True)
    part = host.ask("GET", path(image), ORIGIN, "Range: bytes=1-2")
    assert (part.status, part.body, may_be_read(part)) == (206, host.data[1:3], True)


def test_a_page_of_another_origin_does_not(host: Deployed) -> None:
    image = host.add(b"data")
    answer = host.ask("GET", path(image), "Origin: https://example.org")
    assert "access-control-allow-origin" not in answer.headers
