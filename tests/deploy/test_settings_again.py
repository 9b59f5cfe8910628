"""SIGHUP: settings are read again, and what cannot be used is not."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.wire import Wire
from tests.faults.service import Service, wait_until
from tools.serving import Serving, serving


@contextlib.contextmanager
def limited(tmp_path: Path, workers: str) -> Iterator[tuple[Service, Path]]:
    """A service that takes images of 1000 bytes at most, and the file that says so."""
    conf = tmp_path / "headrace.conf"
    conf.write_text("[DEFAULT]\nimage_size_cap = 1000\n")
    with serving(tmp_path / "state", "--config-file", str(conf), "--workers", workers) as server:
        yield Service(server), conf


def hang_up(server: Serving, until: Callable[[], object]) -> None:
    os.kill(server.pid, signal.SIGHUP)
    wait_until(until, "the change")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_settings_are_read_again(tmp_path: Path, workers: str) -> None:
    with limited(tmp_path, workers) as (service, conf):
        server = service.server
        assert service.upload(service.create(), bytes(2000)).status == 413
        image = service.active(bytes(1000))
        with Wire(server.port) as kept:
            assert kept.request("GET", f"/v2/images/{image}").status == 200
            conf.write_text("[DEFAULT]\nimage_size_cap = 3000\n")
            hang_up(server, lambda: service.upload(service.create(), bytes(2000)).status == 204)
        assert service.request("GET", f"/v2/images/{image}/file").body == bytes(1000)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "wrong",
    [
        "[DEFAULT]\nimage_size_cap = many\n",
        "[database]\nconnection = sqlite:////nowhere/headrace.db\n",  # seen when it is loaded
    ],
)
def test_settings_that_cannot_be_used_are_not(tmp_path: Path, workers: str, wrong: str) -> None:
    with limited(tmp_path, workers) as (service, conf):
        conf.write_text(wrong)
        log = service.server.log
        hang_up(service.server, lambda: "the settings stay as they were" in log.read_text())
        assert service.upload(service.create(), bytes(2000)).status == 413
        assert service.upload(service.create(), bytes(1000)).status == 204
        assert "Traceback" not in log.read_text()
