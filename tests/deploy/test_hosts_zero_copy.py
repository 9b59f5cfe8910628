"""Which system calls carry image data on every host, by strace's word.

What goes the way it should leaves no trace in read, recv, write or send; what is allowed there,
an eighth of an image, is heads, records and what a process tries out when it starts.
"""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.deploy.conftest import MIB, Deployed, path, require_host
from tests.needs import require_strace
from tools import hosts, strace

pytestmark = pytest.mark.slow

SIZE = 32 * MIB + 5
SMALL = 4 * MIB
ZERO_COPY = {"sendfile", "splice"}

# Image data is copied through a socket between two of Apache's processes.
COPYING_DOWN = {"mod_wsgi-daemon"}

# Whose own processes receive by splice: the embedded server, and it behind a front end.
SPLICING_UP = {"embedded", "apache", "haproxy"}


@pytest.fixture(scope="module", params=hosts.KINDS)
def traced(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """Every host in turn, under strace."""
    require_host(request.param)
    with hosts.running(request.param, tracer=require_strace()) as host:
        yield Deployed(host, os.urandom(SIZE))


class Counting:
    """Bytes by system call that go through the sockets of a program, from now on."""

    def __init__(self, deployed: Deployed, program: str) -> None:
        self._host = deployed.host
        self._program = program
        self._before = self._host.carried(program).bytes

    @property
    def found(self) -> Counter[str]:
        strace.settle(self._host.place.prefix(self._program))
        return self._host.carried(self._program).bytes - self._before


def copied(found: Counter[str]) -> int:
    return sum(moved for name, moved in found.items() if name not in ZERO_COPY)


def on_file(deployed: Deployed, program: str, image: str) -> Counter[str]:
    """Bytes that a program's processes moved from or to an image's file, by system call."""
    return strace.on_file(deployed.host.place.prefix(program), image)


@pytest.mark.parametrize("ranged", [False, True], ids=["whole", "range"])
def test_a_download_leaves_by_sendfile(traced: Deployed, ranged: bool) -> None:
    """From the image's file into a socket, in the process that sends it; no other call touches it.

    Where a front end sends it, our own processes never touch it.
    """
    host = traced.host
    image, first = traced.whole, 1001 if ranged else 0
    programs = {host.ours, host.sender}
    before = {program: on_file(traced, program, image) for program in programs}
    sockets = Counting(traced, host.sender)
    fields = [f"Range: bytes={first}-"] if ranged else []
    answer = traced.ask("GET", path(image), *fields)
    assert answer.body == traced.data[first:]
    after = {program: on_file(traced, program, image) - before[program] for program in programs}
    if host.name in COPYING_DOWN:
        assert copied(sockets.found) >= SIZE - first, sockets.found
        assert after[host.ours]["sendfile"] >= SIZE - first - SMALL, "to the process in front"
        return
    if host.name == "haproxy":  # which opens no files
        assert after == {"headrace": {"sendfile": SIZE - first}, "haproxy": {}}
        assert sockets.found["splice"] >= 2 * (SIZE - first) - SMALL, sockets.found
        assert copied(sockets.found) <= SMALL, sockets.found
        return
    assert after.pop(host.sender) == {"sendfile": SIZE - first}
    assert copied(sockets.found) <= SMALL, sockets.found
    assert not any(after.values()), after


def test_an_upload(traced: Deployed) -> None:
    """Spliced by the embedded server; linked, and only read to be hashed, where nginx received it.

    Elsewhere it is copied, which is nobody's claim.
    """
    host = traced.host
    ours = Counting(traced, host.ours)
    image = traced.add(traced.data)
    found = ours.found
    if host.name in SPLICING_UP:
        assert SIZE - SMALL <= found["splice"] <= SIZE, found
        assert copied(found) <= SMALL, found
    elif host.name == "nginx":
        assert sum(found.values()) <= SMALL, found
        touched = on_file(traced, host.ours, image)
        assert not touched, touched  # by this name; it was hashed by its other one
    else:
        assert found["splice"] <= SMALL, found
    assert traced.ask("GET", path(image)).body == traced.data


def test_what_nginx_received_is_linked_not_copied() -> None:
    """Headrace reads the file, once for each digest, and writes to none."""
    require_host("nginx")
    with hosts.running("nginx", tracer=require_strace()) as host:
        deployed = Deployed(host, os.urandom(SIZE))
        image = deployed.add(deployed.data)
        arrived = on_file(deployed, "headrace", r"\.headrace-uploads/\d+")
        assert set(arrived) == {"preadv2", "pread64"}, arrived
        assert arrived["preadv2"] == 2 * SIZE
        assert arrived["pread64"] <= SMALL  # of the format's inspection
        stored = host.image_dir / image
        assert (stored.read_bytes(), stored.stat().st_nlink) == (deployed.data, 1)
        assert deployed.stored() == [image]
