"""Each setting of [cors], as a browser sees it; what is no origin is refused at the start."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from falcon import testing

from headrace import config, errors
from headrace.api import app

DASHBOARD = "https://dashboard.example.org"
OTHER = "https://example.org"


class Browser:
    """What it is answered by a service with such settings."""

    def __init__(self, directory: Path, **cors: object) -> None:
        settings: dict[tuple[str, str], object] = {("cors", name): cors[name] for name in cors}
        settings["headrace", "state_dir"] = str(directory)
        self.app = app.build(config.load([], settings))

    def ask(self, method: str, origin: str, **headers: str) -> testing.Result:
        return testing.simulate_request(
            self.app, method, "/v2/images", host="localhost", remote_addr="127.0.0.1",
            headers={"Origin": origin, **headers},
        )  # fmt: skip

    def preflight(self, origin: str = DASHBOARD) -> Mapping[str, str]:
        answer = self.ask("OPTIONS", origin, **{"Access-Control-Request-Method": "PUT"})
        assert (answer.status_code, answer.content) == (200, b"")
        return answer.headers

    def get(self, origin: str = DASHBOARD) -> testing.Result:
        return self.ask("GET", origin)


Make = Callable[..., Browser]
"""From settings of [cors]."""


@pytest.fixture
def browsers(tmp_path: Path) -> Iterator[list[Browser]]:
    made: list[Browser] = []
    yield made
    for each in made:
        each.app.close()


@pytest.fixture
def browser(browsers: list[Browser], tmp_path: Path) -> Make:
    def make(**cors: object) -> Browser:
        browsers.append(Browser(tmp_path, **cors))
        return browsers[-1]

    return make


def cors_of(headers: Mapping[str, str]) -> set[str]:
    return {name for name in headers if name.startswith("access-control-")}


def test_by_default_there_is_none(browser: Make) -> None:
    answer = browser().get()
    assert (answer.status_code, cors_of(answer.headers)) == (403, set())
    assert "vary" not in answer.headers


def test_allowed_origin(browser: Make) -> None:
    served = browser(allowed_origin=[DASHBOARD, "http://[::1]:8080"])
    for origin in (DASHBOARD, "http://[::1]:8080"):
        answer = served.get(origin)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
    assert cors_of(served.get(OTHER).headers) == set()


@pytest.mark.parametrize("allowed", [True, False])
def test_allow_credentials(browser: Make, allowed: bool) -> None:
    served = browser(allowed_origin=[DASHBOARD], allow_credentials=allowed)
    wanted = "true" if allowed else None
    for headers in (served.preflight(), served.get().headers):
        assert headers.get("access-control-allow-credentials") == wanted


def test_expose_headers(browser: Make) -> None:
    headers = browser(allowed_origin=[DASHBOARD], expose_headers=["A", "B"]).get().headers
    assert headers["access-control-expose-headers"] == "A, B"
    headers = browser(allowed_origin=[DASHBOARD], expose_headers=[]).get().headers
    assert "access-control-expose-headers" not in headers


def test_max_age(browser: Make) -> None:
    headers = browser(allowed_origin=[DASHBOARD], max_age=0).preflight()
    assert headers["access-control-max-age"] == "0"


def test_allow_methods(browser: Make) -> None:
    headers = browser(allowed_origin=[DASHBOARD], allow_methods=["GET", "HEAD"]).preflight()
    assert headers["access-control-allow-methods"] == "GET, HEAD"


def test_allow_headers(browser: Make) -> None:
    headers = browser(allowed_origin=[DASHBOARD], allow_headers=["X-Mine"]).preflight()
    names = headers["access-control-allow-headers"].split(", ")
    assert "Content-Type" in names
    assert names[-1] == "X-Mine"
    assert "X-Auth-Token" not in names


def test_all_origins_are_no_origin_that_is_trusted(browser: Make) -> None:
    served = browser(allowed_origin=["*"], allow_credentials=True)
    for origin in (OTHER, "null"):
        answer = served.get(origin)
        # May read what it is told, and is told that it may not.
        assert answer.status_code == 403
        for headers in (answer.headers, served.preflight(origin)):
            assert headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in headers


def test_a_name_beside_all_others_keeps_its_rights(browser: Make) -> None:
    served = browser(allowed_origin=["*", DASHBOARD])
    answer = served.get()
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == DASHBOARD
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert served.get(OTHER).status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "https://", "dashboard.example.org", "https://dashboard.example.org/",
        "https://*.example.org", "https://me@example.org", "https://example.org/a",
        "https://Example.org", "https://example.org:port", "https://a https://b", "file://",
    ],
)  # fmt: skip
def test_what_no_browser_sends_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="allowed_origin"):
        config.load([], {("cors", "allowed_origin"): [origin]})


@pytest.mark.parametrize(
    "origin", ["*", DASHBOARD, "http://localhost:8080", "http://[::1]:1", "http://192.0.2.1"]
)
def test_what_browsers_send_is_taken(origin: str) -> None:
    assert config.load([], {("cors", "allowed_origin"): [origin]}).cors.allowed_origin == [origin]
