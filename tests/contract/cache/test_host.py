"""What a compute host keeps of a service, against a service that does what good ones do not."""

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace import errors
from headrace.cache import filling
from headrace.cache.host import DEAD_FOR, Found, HostCache, Kept
from headrace.client import Connection
from tests import certificates
from tests.client.peer import Step, Wire, peer
from tests.client.test_tls import encrypted_peer
from tests.contract.cache.caching import KIB, content, image
from tests.contract.cache.conftest import open_files
from tests.needs import require_root

SIZE = 400 * KIB
HALF = SIZE // 2
ROOM = 1000 * KIB  # for two images


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(filling, "BACKOFF_S", (0.0,) * len(filling.BACKOFF_S))


@pytest.fixture
def cache(tmp_path: Path) -> HostCache:
    return HostCache(tmp_path / "cache", ROOM, stall=0.3)


def record(number: int = 1, data: bytes | None = None, **changes: Any) -> dict[str, object]:
    data = content(image(number), SIZE) if data is None else data
    return {
        "id": image(number),
        "status": "active",
        "size": len(data),
        "os_hash_algo": "sha256",
        "os_hash_value": hashlib.sha256(data).hexdigest(),
        "checksum": hashlib.md5(data).hexdigest(),
    } | changes


def serve(
    number: int = 1,
    *,
    start: int = 0,
    until: int | None = None,
    ranges: bool = True,
    data: bytes | None = None,
) -> Step:
    """Answers one GET, which must ask for what is there from ``start``, up to ``until``."""
    data = content(image(number), SIZE) if data is None else data

    def step(wire: Wire) -> None:
        request = wire.head()
        assert request.line == f"GET /v2/images/{image(number)}/file HTTP/1.1"
        assert request.headers.get("range") == (f"bytes={start}-" if start else None)
        head = "200 OK"
        begin = start if ranges else 0
        if begin:
            head = (
                f"206 Partial Content\r\nContent-Range: bytes {begin}-{len(data) - 1}/{len(data)}"
            )
        wire.send(f"HTTP/1.1 {head}\r\nContent-Length: {len(data) - begin}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):  # the client may have seen enough
            wire.send(data[begin:until])

    return step


def fetch(
    cache: HostCache,
    wanted: dict[str, object],
    *steps: Step,
    look: Callable[[Kept], object] = lambda kept: None,
    **options: Any,
) -> Kept:
    """Fetch an image, which must be right; every step must be used."""
    with peer(*steps) as found:
        with (
            Connection(found.url, timeout=10) as connection,
            cache.fetched(connection, wanted, **options) as kept,
        ):
            assert hashlib.md5(kept.extent.read()).hexdigest() == wanted["checksum"]
            look(kept)
        assert found.connections == len(steps)
    assert not [name for name in open_files() if name.startswith(cache.path)]
    return kept


def entries(cache: HostCache) -> set[str]:
    """The images of which anything lies there."""
    pattern = re.compile(r"[0-9a-f-]{36}")
    return {
        match[0]
        for _, _, names in os.walk(cache.path)
        for name in names
        if (match := pattern.match(name))
    }


def test_it_is_fetched_once_and_then_there(cache: HostCache) -> None:
    told: list[int] = []
    first = fetch(cache, record(), serve(), progress=told.append)
    assert (first.found, first.resumed, first.verified) == (Found.FETCHED, 0, "sha256")
    assert told[-1] == SIZE
    assert fetch(cache, record()).found is Found.HIT
    assert [(each.entry_id, each.record.size) for each in cache.list()] == [(image(1), SIZE)]


def test_nobody_else_may_enter(cache: HostCache) -> None:
    assert os.stat(cache.path).st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_where_others_may_write_nothing_is_kept(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(errors.ConfigurationError, match="others than this user"):
        HostCache(tmp_path / "open", ROOM)


def test_what_another_user_has_made_is_not_used(tmp_path: Path) -> None:
    require_root()
    (tmp_path / "another").mkdir(0o700)
    os.chown(tmp_path / "another", 65534, 65534)
    with pytest.raises(errors.ConfigurationError, match="others than this user"):
        HostCache(tmp_path / "another", ROOM)


def test_what_breaks_off_is_asked_for_from_there(cache: HostCache) -> None:
    kept = fetch(cache, record(), serve(until=HALF), serve(start=HALF))
    assert (kept.found, kept.resumed) == (Found.FETCHED, 0)


def test_through_tls_it_is_the_same(cache: HostCache, tmp_path: Path) -> None:
    certificate = certificates.make(tmp_path / "both.pem")

    def cut(wire: Wire) -> None:
        serve(until=HALF)(wire)
        wire.sock.shutdown(socket.SHUT_RDWR)

    with (
        encrypted_peer(certificate, cut, serve(start=HALF)) as found,
        Connection(found.url, cafile=str(certificate)) as connection,
        cache.fetched(connection, record()) as kept,
    ):
        assert kept.extent.read() == content(image(1), SIZE)


def test_what_is_given_up_is_gone_on_with(cache: HostCache) -> None:
    with pytest.raises(errors.ConnectionFailed):
        fetch(cache, record(), serve(until=HALF))
    fetch(cache, record(2), serve(2))
    cache.prune(DEAD_FOR)
    kept = fetch(cache, record(), serve(start=HALF))
    assert (kept.found, kept.resumed) == (Found.FETCHED, HALF)


def test_what_nobody_went_on_with_is_removed(cache: HostCache) -> None:
    with pytest.raises(errors.ConnectionFailed):
        fetch(cache, record(), serve(until=HALF))
    os.utime(os.path.join(cache.path, "incomplete", image(1)), (0, 0))
    fetch(cache, record(2), serve(2))
    assert entries(cache) == {image(2)}


def test_without_ranges_it_starts_over(cache: HostCache) -> None:
    fetch(cache, record(), serve(until=HALF), serve(start=HALF, ranges=False), serve())


def test_a_service_without_ranges_is_asked_so_often(cache: HostCache) -> None:
    step, again = serve(until=HALF, ranges=False), serve(start=HALF, ranges=False)
    with pytest.raises(errors.NoRanges):
        fetch(cache, record(), *(step, again) * 3)
    assert entries(cache) <= {image(1)}


def test_wrong_bytes_are_nobody_s(cache: HostCache) -> None:
    data = content(image(1), SIZE)
    wrong = data[:HALF] + bytes([data[HALF] ^ 1]) + data[HALF + 1 :]
    with pytest.raises(errors.DataCorrupt):
        fetch(cache, record(), serve(data=wrong))
    assert not os.path.exists(os.path.join(cache.path, image(1)))
    assert not os.listdir(os.path.join(cache.path, "incomplete"))
    fetch(cache, record(), serve())


def test_a_wrong_part_that_was_there_is_fetched_anew(cache: HostCache) -> None:
    with pytest.raises(errors.ConnectionFailed):
        fetch(cache, record(), serve(until=HALF))
    with open(os.path.join(cache.path, "incomplete", image(1)), "r+b") as file:
        file.write(bytes(4 * KIB))
    fetch(cache, record(), serve(start=HALF), serve())


def test_more_than_is_on_record_is_refused(cache: HostCache) -> None:
    longer = content(image(1), SIZE) + b"x"
    with pytest.raises(errors.ClientError, match="sends"):
        fetch(cache, record(), serve(data=longer))


def test_an_image_that_became_another_is_replaced(cache: HostCache) -> None:
    fetch(cache, record(), serve())
    other = content(image(2), SIZE)
    kept = fetch(cache, record(data=other), serve(data=other))
    assert kept.found is Found.FETCHED


def test_what_was_written_to_by_a_link_is_fetched_anew(cache: HostCache, tmp_path: Path) -> None:
    path = Path(fetch(cache, record(), serve()).path)
    link = tmp_path / "link"
    link.hardlink_to(path)
    link.chmod(0o644)
    with link.open("r+b") as file:
        file.write(b"written by a guest")
    link.chmod(0o444)
    assert fetch(cache, record(), serve()).found is Found.FETCHED
    with cache.held(image(1)) as kept:
        assert kept is not None


def test_what_was_only_touched_stays(cache: HostCache) -> None:
    os.utime(fetch(cache, record(), serve()).path)
    assert fetch(cache, record()).found is Found.HIT


def test_an_image_without_a_hash_must_be_meant(cache: HostCache) -> None:
    unhashed = record(os_hash_algo=None, os_hash_value=None) | {"checksum": None}
    with pytest.raises(errors.ClientError, match="no hash"):
        fetch(cache, unhashed)
    with (
        peer(serve()) as found,
        Connection(found.url) as connection,
        cache.fetched(connection, unhashed, unverified=True) as kept,
    ):
        assert kept.extent.read() == content(image(1), SIZE)
        assert kept.verified is None
    with cache.held(image(1)) as kept_offline:
        assert kept_offline is not None


def test_a_checksum_will_do(cache: HostCache) -> None:
    kept = fetch(cache, record(os_hash_algo=None, os_hash_value=None), serve())
    assert kept.verified == "md5"


def test_only_ids_become_names(cache: HostCache) -> None:
    with pytest.raises(errors.ClientError, match="no image id"):
        fetch(cache, record(id="../records/x"))


@pytest.mark.parametrize("changes", [{"status": "deactivated"}, {"status": "queued", "size": None}])
def test_what_is_not_to_be_used_is_not_fetched(cache: HostCache, changes: dict[str, Any]) -> None:
    fetch(cache, record(), serve())
    with pytest.raises(errors.ClientError, match="not to be used"):
        fetch(cache, record(**changes))


def test_what_was_used_least_recently_makes_room(cache: HostCache) -> None:
    for number in (1, 2):
        fetch(cache, record(number), serve(number))
    os.utime(os.path.join(cache.path, image(2)), ns=(0, os.stat(cache.path).st_mtime_ns))
    fetch(cache, record(3), serve(3))
    assert {each.entry_id for each in cache.list()} == {image(1), image(3)}
    assert cache.used() <= ROOM
    assert entries(cache) == {image(1), image(3)}


def test_what_is_in_use_stays(cache: HostCache) -> None:
    with (
        peer(serve(1), serve(2)) as found,
        Connection(found.url) as one,
        cache.fetched(one, record(1)),
        Connection(found.url) as two,
        cache.fetched(two, record(2)),
        Connection(found.url) as three,
        pytest.raises(errors.ClientError, match="no room"),
        cache.fetched(three, record(3)),
    ):
        pass
    assert {each.entry_id for each in cache.list()} == {image(1), image(2)}


def test_what_can_never_fit_is_refused_at_once(tmp_path: Path) -> None:
    small = HostCache(tmp_path / "small", SIZE - 1)
    with pytest.raises(errors.ClientError, match="more than all of the cache"):
        fetch(small, record())


def test_without_the_service_there_is_what_was_fetched(cache: HostCache) -> None:
    with cache.held(image(1)) as kept:
        assert kept is None
    with cache.held("../cache.db") as kept:
        assert kept is None
    fetch(cache, record(), serve())
    with cache.held(image(1)) as kept:
        assert kept is not None
        assert kept.extent.read() == content(image(1), SIZE)
    assert cache.delete(image(1))
    assert not cache.delete(image(1))
    assert entries(cache) == set()
    with cache.held(image(1)) as kept:
        assert kept is None


def test_one_waits_for_another_and_may_take_its_part(cache: HostCache) -> None:
    """The other is cut short and gives up; who waited goes on from there."""
    half, go = threading.Event(), threading.Event()

    def pause(wire: Wire) -> None:
        serve(until=HALF)(wire)
        half.set()
        go.wait(30)

    outcome: list[Kept] = []
    second = HostCache(cache.path, ROOM, stall=30)

    def wait() -> None:
        outcome.append(fetch(second, record(), serve(start=HALF)))

    with peer(pause) as found, Connection(found.url) as connection:
        first = threading.Thread(target=lambda: broken_off(cache, connection))
        first.start()
        assert half.wait(30)
        waiting = threading.Thread(target=wait)
        waiting.start()
        go.set()
        first.join(30)
        waiting.join(30)
    assert [kept.found for kept in outcome] == [Found.FETCHED]
    assert outcome[0].resumed == HALF


def broken_off(cache: HostCache, connection: Connection) -> None:
    with pytest.raises(errors.ConnectionFailed), cache.fetched(connection, record()):
        pass


BRINGING = """
import os, signal, sys
from headrace.cache.directory import Directory
path, room, image_id, size = sys.argv[1:]
entry = Directory(path, int(room)).begin(image_id, int(size))
os.write(entry.fd, sys.stdin.buffer.read())
print(flush=True)
signal.pause()
"""


@contextlib.contextmanager
def another_process(cache: HostCache, landed: bytes) -> Iterator["subprocess.Popen[bytes]"]:
    """One that has brought so much of the first image, and brings no more."""
    with subprocess.Popen(
        [sys.executable, "-c", BRINGING, cache.path, str(ROOM), image(1), str(SIZE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(landed)
        process.stdin.close()
        assert process.stdout.readline() == b"\n"
        try:
            yield process
        finally:
            process.kill()


def test_one_that_brings_nothing_is_not_waited_for_for_ever(cache: HostCache) -> None:
    with (
        another_process(cache, b""),
        pytest.raises(errors.ClientError, match="another process fetches"),
    ):
        fetch(cache, record())


def test_one_that_is_killed_is_followed_by_who_waits(cache: HostCache) -> None:
    patient = HostCache(cache.path, ROOM, stall=30)
    with another_process(cache, content(image(1), SIZE)[:HALF]) as process:
        told: list[int] = []

        def kill(landed: int) -> None:
            if not told:
                process.kill()
                process.wait()
            told.append(landed)

        kept = fetch(patient, record(), serve(start=HALF), progress=kill)
    assert told[0] == HALF  # seen while it was the other's
    assert (kept.found, kept.resumed) == (Found.FETCHED, HALF)


def test_a_record_that_is_new_stays(cache: HostCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process begins with an image, while what is gone is forgotten."""
    records = os.path.join(cache.path, "records")
    begun: list[str] = []
    look = os.scandir

    def scandir(path: str) -> Any:
        if path == records:
            for part in ("incomplete", "records"):
                Path(cache.path, part, image(2)).touch()
            begun.append(image(2))
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    cache.prune()
    assert begun == os.listdir(records)
