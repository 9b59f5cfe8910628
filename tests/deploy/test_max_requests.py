"""A worker that has answered its share gives way to a new one, and loses nothing."""

import os
import time

import psutil
import pytest

from tests.faults.conftest import Start
from tests.faults.service import wait_until

SIZE = 24 << 20
DATA = os.urandom(SIZE)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_gives_way(start: Start, workers: str) -> None:
    """No request is refused meanwhile, and a download goes on in the old one."""
    service = start("--workers", workers, env={"OS_HEADRACE__MAX_REQUESTS": "20"})
    main = psutil.Process(service.server.pid)
    target = f"/v2/images/{service.active(DATA)}/file"
    with service.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", target))
        wire.wait_for_head()
        before = set(main.children())
        for _ in range(100):
            assert service.request("GET", "/v2/images").status == 200
            time.sleep(0.01)
        wait_until(lambda: len(set(main.children()) - before) >= int(workers), "new workers")
        for _ in range(20):
            assert service.request("GET", "/v2/images").status == 200
        assert wire.answer().body == DATA
    wait_until(lambda: not before & set(main.children()), "the end of the old ones")
    assert "cut short" not in service.server.log.read_text()
    assert "Traceback" not in service.server.log.read_text()


def test_the_service_stops_with_workers_that_only_finish(start: Start) -> None:
    """The drain time-out counts for them, too."""
    service = start("--drain-timeout", "1", env={"OS_HEADRACE__MAX_REQUESTS": "20"})
    main = psutil.Process(service.server.pid)
    target = f"/v2/images/{service.active(DATA)}/file"
    with service.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", target))
        wire.wait_for_head()
        for _ in range(30):
            service.request("GET", "/v2/images")
        wait_until(lambda: len(main.children()) == 2, "the new worker")
        assert service.server.stop() == 0
        assert "cut 1 requests short" in service.server.log.read_text()
