"""Hosts that stop while an import goes on: it ends well, or is undone before they are gone."""

import json
import os
import signal
import sqlite3
from contextlib import closing

import pytest

from tests.deploy.conftest import Deployed, require_host
from tests.faults.service import wait_until
from tests.faults.test_imports import GUARD, Origin, origin
from tools import hosts

__all__ = ["origin"]

pytestmark = pytest.mark.slow

CONF = "[import_filtering_opts]\nallowed_hosts = 127.0.0.1\nallowed_ports =\n"


def begin(host: hosts.Host, uri: str) -> None:
    """An import that goes on until its origin is done."""
    deployed = Deployed(host)
    target = f"/v2/images/{deployed.create()}/import"
    body = json.dumps({"method": {"name": "web-download", "uri": uri}}).encode()
    answer = deployed.ask("POST", target, body=body)
    assert answer.status == 202, (answer.body, host.logs())
    assert Origin.going.wait(GUARD)


def stop(host: hosts.Host) -> None:
    """Tell it to, as systemd does."""
    os.kill(host.place.processes[host.ours].pid, signal.SIGTERM)


def left(host: hosts.Host) -> tuple[list[str], list[str], int]:
    """The statuses of images and of tasks, and how many leases there are, once it is gone."""
    host.place.processes[host.ours].wait(GUARD)
    with closing(sqlite3.connect(host.state_dir / "headrace.db")) as database:
        images, tasks, leases = (
            [str(value) for (value,) in database.execute(f"SELECT {what}")]
            for what in (
                "status FROM images", "status FROM tasks", "image_id FROM headrace_uploads",
            )
        )  # fmt: skip
    return images, tasks, len(leases)


@pytest.mark.parametrize("name", ["gunicorn-gthread", "gunicorn-sync", "uwsgi-offload"])
def test_an_import_ends_before_its_host(name: str, origin: str) -> None:
    require_host(name)
    with hosts.running(name, conf=CONF) as host:
        begin(host, origin)
        stop(host)
        wait_until(lambda: "1 imports and fills go on" in host.logs(), "the stop")
        Origin.done.set()
        assert left(host) == (["active"], ["success"], 0), host.logs()


@pytest.mark.parametrize("name", ["mod_wsgi-embedded", "mod_wsgi-daemon"])
def test_apache_gives_no_time_but_that_to_undo_it(name: str, origin: str) -> None:
    require_host(name)
    with hosts.running(name, conf=CONF) as host:
        begin(host, origin)
        stop(host)
        assert left(host) == (["queued"], ["failure"], 0), host.logs()
