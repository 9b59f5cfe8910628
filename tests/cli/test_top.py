"""headrace top, against a running service."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tests.cli.terminal import on_terminal
from tests.conftest import Serve
from tests.deploy.wire import Wire
from tools.serving import Serving

SIZE = 24 << 20


@pytest.fixture
def busy(serve: Serve, tmp_path: Path) -> Iterator[tuple[Serving, str]]:
    """A service with a download under way of an image whose name has a control character."""
    server = serve()
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SIZE))
    env = {"HEADRACE_URL": server.url}
    image = run("add", "name=a\x1b[2Jname", f"path={source}", env=env).image_id
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(Wire(server.port, receive_buffer=65536))
        wire.send(wire.head("GET", f"/v2/images/{image}/file"))
        wire.wait_for_head()
        yield server, image


def test_without_a_terminal_it_looks_once(busy: tuple[Serving, str]) -> None:
    server, image = busy
    done = run("top", env={"HEADRACE_URL": server.url})
    assert (done.status, done.err) == (0, "")
    first, head, row = done.out.splitlines()
    assert first.startswith("1 down ")
    assert first.endswith(", 0 up 0 bytes/s, 1 by sendfile")
    assert head.split() == [
        "IMAGE",
        "NAME",
        "CLIENT",
        "WAY",
        "SIZE",
        "DONE",
        "RATE",
        "TIME",
        "LEFT",
    ]
    assert row.split()[0] == image
    assert "127.0.0.1" in row
    assert "25.2 MB" in row
    assert "\x1b" not in done.out


def test_json(busy: tuple[Serving, str]) -> None:
    server, image = busy
    done = run("top", "--json", env={"HEADRACE_URL": server.url})
    assert done.status == 0, done.err
    (going,) = json.loads(done.out)
    assert (going["image"], going["size"], going["way"]) == (image, SIZE, "sendfile")
    assert 0 < going["moved"] < SIZE
    assert going["rate"] > 0
    assert going["eta"] > 0


def test_on_a_terminal_it_goes_on_until_q(busy: tuple[Serving, str]) -> None:
    server, image = busy
    env = {"HEADRACE_URL": server.url}
    status, text = on_terminal(["top", "-i", "0.2"], env, answers=b"xq")
    assert status == 0
    assert image in text
    assert text.endswith("\x1b[?1049l") or "\x1b[?1049l" in text[-40:]  # the screen is as before


def test_a_small_terminal_shows_what_fits(busy: tuple[Serving, str]) -> None:
    server, image = busy
    with contextlib.ExitStack() as stack:
        for _ in range(9):
            wire = stack.enter_context(Wire(server.port, receive_buffer=65536))
            wire.send(wire.head("GET", f"/v2/images/{image}/file"))
            wire.wait_for_head()
        _, text = on_terminal(["top"], {"HEADRACE_URL": server.url}, answers=b"q")
        assert text.count(image) == 5
        assert "… and 5 more" in text


def test_a_service_without_metrics_is_told(serve: Serve) -> None:
    server = serve(env={"OS_HEADRACE__METRICS": "off"})
    done = run("top", env={"HEADRACE_URL": server.url})
    assert done.status == 1
    assert "'metrics' is off, or has an address of its own" in done.err


def test_who_may_not_see_them_is_told(serve: Serve) -> None:
    done = run("top", env={"HEADRACE_URL": "http://127.0.0.1:1"})
    assert done.status == 1
    assert done.err.startswith("headrace: ")
