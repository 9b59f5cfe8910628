"""Without authentication only this machine is served."""

import click
import pytest

from headrace import config, errors
from headrace.api import app, auth
from headrace.cli.server import serve
from headrace.headrace_settings import AUTH_STRATEGIES

LOCAL = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:9292", "wsgi.url_scheme": "http"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HTTP_HOST": "localhost"},
        {"HTTP_HOST": "LOCALHOST:1"},
        {"HTTP_HOST": "[::1]:9292", "REMOTE_ADDR": "::1"},
        {"REMOTE_ADDR": "127.5.5.5"},
        {"REMOTE_ADDR": "::ffff:127.0.0.1"},
        {"HTTP_ORIGIN": "http://127.0.0.1:9292"},
    ],
)
def test_this_machine_is_served(environ: dict[str, str]) -> None:
    assert auth.this_machine({**LOCAL, **environ}).is_admin


@pytest.mark.parametrize(
    "environ",
    [
        {"REMOTE_ADDR": "192.0.2.1"},
        {"REMOTE_ADDR": ""},
        {"REMOTE_ADDR": "::ffff:192.0.2.1"},
        {"HTTP_HOST": "images.example.org"},
        {"HTTP_HOST": "127.0.0.1.example.org"},
        {"HTTP_HOST": "localhost.example.org"},
        {"HTTP_HOST": "localhost@example.org"},
        {"HTTP_HOST": ""},
        {"HTTP_HOST": "[::1"},
        {"HTTP_HOST": "example.org@localhost"},
        {"HTTP_HOST": "localhost/example.org"},
        {"HTTP_HOST": "localhost?example.org"},
        {"HTTP_FORWARDED": "for=192.0.2.1"},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"HTTP_X_FORWARDED_HOST": "localhost"},
        {"HTTP_VIA": "1.1 proxy"},
        {"HTTP_X_REAL_IP": "192.0.2.1"},
        {"HTTP_X_CLIENT_IP": "192.0.2.1"},
        {"HTTP_ORIGIN": "http://example.org"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": "https://127.0.0.1:9292"},
    ],
)
def test_nobody_else_is(environ: dict[str, str]) -> None:
    with pytest.raises(errors.RemoteWithoutAuth):
        auth.this_machine({**LOCAL, **environ})


def test_a_missing_host_is_not_this_machine() -> None:
    with pytest.raises(errors.RemoteWithoutAuth):
        auth.this_machine({"REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http"})


DASHBOARD = "https://dashboard.example.org"


def test_pages_of_named_origins_are_of_this_machine() -> None:
    origins = frozenset({DASHBOARD})
    assert auth.this_machine({**LOCAL, "HTTP_ORIGIN": DASHBOARD}, origins).is_admin


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": "https://dashboard.example.org.example.com"},
        {"HTTP_ORIGIN": "https://evil-dashboard.example.org"},
        {"HTTP_ORIGIN": DASHBOARD, "REMOTE_ADDR": "192.0.2.1"},
        {"HTTP_ORIGIN": DASHBOARD, "HTTP_HOST": "rebound.example.org"},
        {"HTTP_ORIGIN": DASHBOARD, "HTTP_X_FORWARDED_FOR": "127.0.0.1"},
    ],
)
def test_no_others_are_and_a_name_excuses_nothing_else(environ: dict[str, str]) -> None:
    with pytest.raises(errors.RemoteWithoutAuth):
        auth.this_machine({**LOCAL, **environ}, frozenset({DASHBOARD}))


def test_a_strategy_is_known_everywhere() -> None:
    option = next(each for each in serve.params if each.name == "auth_strategy")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == AUTH_STRATEGIES == tuple(app._AUTHENTICATION)


def test_authentication_is_on_or_off() -> None:
    settings = {
        ("headrace", "unauthenticated_ok"): True,
        ("headrace", "auth_strategy"): "http_basic",
    }
    with pytest.raises(errors.ConfigurationError):
        config.load([], settings)
