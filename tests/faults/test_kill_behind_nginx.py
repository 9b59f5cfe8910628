"""kill -9 of whoever takes part in an upload behind nginx: nothing lost, left or wrong.

Long uploads through nginx have three moments at which somebody can die: while nginx receives, while
Headrace hashes, and between the link and the record.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.deploy.conftest import MIB, OCTETS, Deployed, path, require_host
from tests.faults.service import wait_until
from tools import hosts
from tools.serving import children

pytestmark = pytest.mark.slow

SIZE = 24 * MIB


@pytest.fixture
def nginx() -> Iterator[Deployed]:
    require_host("nginx")
    with hosts.running("nginx", conf="[headrace]\nupload_lease = 3\n") as host:
        yield Deployed(host, os.urandom(SIZE))


def workers(deployed: Deployed) -> list[int]:
    """The processes that do the work; their supervisors begin new ones."""
    programs = deployed.host.place.processes
    return [pid for name in ("nginx", "headrace") for pid in children(programs[name].pid)]


def answers(deployed: Deployed) -> bool:
    with contextlib.suppress(OSError, EOFError):
        return deployed.ask("GET", "/v2/images?limit=1").status == 200
    return False


class Upload(threading.Thread):
    """An upload that may come to nothing; ``status`` is the answer's, None without one."""

    def __init__(self, deployed: Deployed, image: str) -> None:
        super().__init__()
        self._deployed = deployed
        self._image = image
        self.status: int | None = None

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError), self._deployed.connect() as wire:
            wire.send(wire.head("PUT", path(self._image), OCTETS, f"Content-Length: {SIZE}"))
            for start in range(0, SIZE, MIB):
                wire.send(self._deployed.data[start : start + MIB])
            self.status = wire.answer("PUT").status


def campaign(deployed: Deployed, rounds: int) -> None:
    chance = random.Random(rounds)
    active = []
    for _ in range(rounds):
        image = deployed.create()
        upload = Upload(deployed, image)
        upload.start()
        time.sleep(chance.uniform(0, 0.3))
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers(deployed)), signal.SIGKILL)
        upload.join()
        wait_until(lambda: answers(deployed), "an answer after the kill")
        wait_until(lambda image=image: deployed.status(image) in ("queued", "active"), "an end")
        if deployed.status(image) == "active":
            assert deployed.ask("GET", path(image)).body == deployed.data
            active.append(image)
        else:
            assert upload.status != 204, "an image that was acknowledged is lost"
            if chance.random() < 0.5:
                assert deployed.ask("PUT", path(image), OCTETS, body=b"again").status == 204
                active.append(image)
            else:
                assert deployed.ask("DELETE", f"/v2/images/{image}").status == 204
    wait_until(lambda: deployed.stored() == sorted(active), "the removal of what was cut")
    wait_until(lambda: not deployed.open_images(), "the end of every descriptor")


def test_kills(nginx: Deployed) -> None:
    campaign(nginx, 15)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_kills(nginx: Deployed) -> None:
    campaign(nginx, 400)
