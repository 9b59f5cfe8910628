"""A fetch that is killed, and one without room."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import uuid
from pathlib import Path

from tests.cli.conftest import COMMAND, run
from tests.client.peer import Wire, peer
from tests.contract.cache.caching import content, image
from tests.faults.service import wait_until
from tests.faults.test_store_full import tmpfs
from tools.serving import environment

MIB = 1 << 20
SIZE = 8 * MIB
HALF = SIZE // 2
DATA = content(image(1), SIZE)
RECORD = {
    "id": image(1),
    "status": "active",
    "size": SIZE,
    "os_hash_algo": "sha512",
    "os_hash_value": hashlib.sha512(DATA).hexdigest(),
}


def begin(wire: Wire, *, wanted: str | None, start: int, until: int) -> None:
    """Tell of the image and send its data, which must be asked for in such a range."""
    assert wire.head().line == f"GET /v2/images/{image(1)} HTTP/1.1"
    wire.answer_json(RECORD)
    assert wire.head().headers.get("range") == wanted
    head = f"206 Partial Content\r\nContent-Range: bytes {start}-{SIZE - 1}/{SIZE}"
    head = head if start else "200 OK"
    wire.send(f"HTTP/1.1 {head}\r\nContent-Length: {SIZE - start}\r\n\r\n".encode())
    wire.send(DATA[start:until])


def test_a_killed_fetch_is_gone_on_with(tmp_path: Path) -> None:
    landing = tmp_path / "cache" / "incomplete" / image(1)
    processes: list[subprocess.Popen[bytes]] = []
    landed: list[int] = []

    def cut(wire: Wire) -> None:
        begin(wire, wanted=None, start=0, until=HALF)
        # What is less than a batch waits in the socket for more.
        wait_until(lambda: landing.stat().st_size > HALF - MIB)
        processes[0].kill()
        processes[0].wait()
        landed.append(landing.stat().st_size)

    def rest(wire: Wire) -> None:
        begin(wire, wanted=f"bytes={landed[0]}-", start=landed[0], until=SIZE)

    target = tmp_path / "disk"
    with peer(cut, rest) as found:
        env = {"HEADRACE_URL": found.url, "HEADRACE_CACHE_DIR": str(tmp_path / "cache")}
        words = ["--json", "fetch", image(1), "--to", str(target)]
        processes.append(subprocess.Popen([COMMAND, *words], env=environment(env)))
        assert processes[0].wait(60) == -signal.SIGKILL
        assert not target.exists()
        done = run(*words, env=env)
    assert done.status == 0, done.err
    assert json.loads(done.out)["resumed"] == landed[0]
    assert target.read_bytes() == DATA
    assert set(os.listdir(tmp_path)) == {"cache", "disk"}


def test_a_full_disk_is_said_before_anything_comes(tmp_path: Path) -> None:
    def tell(wire: Wire) -> None:
        assert wire.head().line == f"GET /v2/images/{image(1)} HTTP/1.1"
        wire.answer_json(RECORD)

    with tmpfs(tmp_path / "small", HALF) as disk, peer(tell) as found:
        env = {"HEADRACE_URL": found.url, "HEADRACE_CACHE_DIR": str(disk / "cache")}
        done = run("fetch", image(1), env=env)
        assert (done.status, done.out) == (1, "")
        assert "no room" in done.err
        assert os.listdir(disk / "cache" / "incomplete") == []


def test_a_full_target_is_not_there(tmp_path: Path) -> None:
    def whole(wire: Wire) -> None:
        begin(wire, wanted=None, start=0, until=SIZE)

    with tmpfs(tmp_path / "small", HALF) as disk, peer(whole) as found:
        env = {"HEADRACE_URL": found.url, "HEADRACE_CACHE_DIR": str(tmp_path / "cache")}
        done = run("fetch", image(1), "--to", disk / "disk", env=env)
        assert (done.status, done.out) == (1, "")
        assert "cannot write" in done.err
        assert os.listdir(disk) == []
    assert run("fetch", image(1), "--offline", env=env).status == 0


def test_what_killed_deliveries_left_is_removed_by_the_next(tmp_path: Path) -> None:
    def whole(wire: Wire) -> None:
        begin(wire, wanted=None, start=0, until=SIZE)

    def hidden() -> Path:
        return tmp_path / f".headrace-{uuid.uuid4()}.fetch"

    left, written, linked = (hidden() for _ in range(3))
    other = hidden().with_suffix(".part")
    with peer(whole) as found:
        env = {"HEADRACE_URL": found.url, "HEADRACE_CACHE_DIR": str(tmp_path / "cache")}
        assert run("fetch", image(1), env=env).status == 0
    linked.hardlink_to(tmp_path / "cache" / image(1))
    for each in (left, written, other):
        each.write_bytes(b"half")
    with written.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        words = ["fetch", image(1), "--offline", "--to", tmp_path / "disk"]
        for more in ([], ["--force"], ["--force", "--link"]):
            assert run(*words, *more, env=env).status == 0
            assert (tmp_path / "disk").read_bytes() == DATA
    assert {each for each in tmp_path.iterdir() if each.name.startswith(".")} == {written, other}


def test_what_a_killed_conversion_left_is_removed_by_the_next_fetch(tmp_path: Path) -> None:
    def whole(wire: Wire) -> None:
        begin(wire, wanted=None, start=0, until=SIZE)

    left = tmp_path / "cache" / "converting"
    with peer(whole) as found:
        env = {"HEADRACE_URL": found.url, "HEADRACE_CACHE_DIR": str(tmp_path / "cache")}
        assert run("fetched", "list", env=env).status == 0
        left.write_bytes(b"half")
        assert run("fetch", image(1), env=env).status == 0
    assert not left.exists()
