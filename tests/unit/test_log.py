"""What a log line may not say, whoever wrote it."""

import io
import logging

import pytest

from headrace import log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach https://h/images/x", "cannot reach https://h/images/x"),
        ("at mysql+pymysql://glance:hush@db:3306/g", "at mysql+pymysql://***@db:3306/g"),
        ("at http://u:p@hush@h/x", "at http://***@h/x"),
        ("at http://hush@h?sig=hush", "at http://***@h?***"),
        ("GET 'https://h/x?a=1&sig=hush' failed", "GET 'https://h/x?***' failed"),
        ("https://h/x?to=https://u:hush@i/", "https://h/x?***"),
        ("https://h/a@b", "https://h/a@b"),
        ("GET /v2/images/http:/u:hush@h/x 404", "GET /v2/images/http:/***@h/x 404"),
        ("X-Auth-Token: hush", "X-Auth-Token: ***"),
        ("{'x-service-token': 'hush'}", "{'x-service-token': ***"),
        ("('Authorization', 'Basic hush')", "('Authorization', ***"),
        ("Set-Cookie: a=hush; b=hush\nnext", "Set-Cookie: ***\nnext"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert log.masked(text) == shown


def test_a_traceback_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a warning of a library's, which has no handler of its own."""
    root, own = logging.getLogger(), logging.getLogger("headrace")
    said = io.StringIO()
    monkeypatch.setattr(root, "handlers", [])
    for name in ("headrace", "oslo_utils", *log._LIBRARIES):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", logger.propagate)
        monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setattr("sys.stderr", said)
    log.configure(debug=True)
    try:
        raise ValueError("postgresql://u:hush@h/d")
    except ValueError:
        own.exception("it failed")
        logging.getLogger("a.library").warning("X-Auth-Token: %s", "hush")
    assert "ValueError: postgresql://***@h/d" in said.getvalue()
    assert "WARNING a.library [" in said.getvalue()
    assert "] X-Auth-Token: ***" in said.getvalue()
    assert "hush" not in said.getvalue().replace('"postgresql://u:hush@h/d"', "")


def test_masking_takes_one_pass() -> None:
    """A path may be full of what looks like addresses; the guard is against hours."""
    assert log.masked("://" * 100_000 + "?hush").endswith("?***")
