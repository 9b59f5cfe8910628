"""SIGHUP: settings are read again, and what cannot be used is not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.wire import Wire
from tests.faults.service import Service, wait_until
from tools.serving import Serving, serving


def hang_up(server: Serving, until: Callable[[], object]) -> None:
    os.kill(server.pid, signal.SIGHUP)
    wait_until(until, "the change")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_settings_are_read_again(tmp_path: Path, workers: str) -> None:
    conf = tmp_path / "headrace.conf"
    conf.write_text("[DEFAULT]\nimage_size_cap = 1000\n")
    with serving(tmp_path / "state", "--config-file", str(conf), "--workers", workers) as server:
        service = Service(server)
        assert service.upload(service.create(), bytes(2000)).status == 413
        image = service.active(bytes(1000))
        with Wire(server.port) as kept:
            assert kept.request("GET", f"/v2/images/{image}").status == 200
            conf.write_text("[DEFAULT]\nimage_size_cap = 3000\n")
            hang_up(server, lambda: service.upload(service.create(), bytes(2000)).status == 204)
        assert service.request("GET", f"/v2/images/{image}/file").body == bytes(1000)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_settings_that_cannot_be_used_are_not(tmp_path: Path, workers: str) -> None:
    conf = tmp_path / "headrace.conf"
    conf.write_text("[DEFAULT]\nimage_size_cap = 1000\n")
    with serving(tmp_path / "state", "--config-file", str(conf), "--workers", workers) as server:
        service = Service(server)
        conf.write_text("[DEFAULT]\nimage_size_cap = many\n")
        hang_up(server, lambda: "the settings stay as they were" in server.log.read_text())
        assert service.upload(service.create(), bytes(2000)).status == 413
        assert service.upload(service.create(), bytes(1000)).status == 204
        assert "Traceback" not in server.log.read_text()
