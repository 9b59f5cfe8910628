"""The whole way of an image's bytes, counted by strace on both ends.

A body that goes the way it should leaves no trace in read, recv, write or send; what is allowed
there, 1 MiB, is heads, records and what came along with a head.
"""

import os
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.deploy.wire import Wire
from tests.needs import require_strace
from tools import strace
from tools.serving import COMMAND, Serving, environment

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZE = 64 * MIB
SMALL = MIB
GUARD = 120.0  # seconds; a hang guard
OFF = {"HEADRACE_SENDFILE": "off"}
ZERO_COPY = {"sendfile", "splice", "copy_file_range"}


@dataclass(frozen=True)
class Traced:
    """A server under strace."""

    server: Serving
    prefix: Path

    def counting(self) -> AbstractContextManager[Counter[str]]:
        """What goes through the server's sockets meanwhile: bytes by system call."""
        return strace.counting(self.prefix)


@dataclass(frozen=True)
class Run:
    """What a command said, and what went through its sockets."""

    stdout: str
    bytes: Counter[str]
    calls: set[str]


Client = Callable[..., Run]


@pytest.fixture
def traced(serve: Serve, tmp_path: Path) -> Callable[..., Traced]:
    def start(**env: str) -> Traced:
        prefix = tmp_path / "server"
        return Traced(serve(under=strace.command(require_strace(), prefix), env=env), prefix)

    return start


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """``client(server, *words, env=…, **stdin)``: runs the command under strace."""
    runs = iter(range(100))

    def run(server: Serving, *words: str, env: dict[str, str] | None = None, **how: Any) -> Run:
        prefix = tmp_path / f"client{next(runs)}"
        command = [*strace.command(require_strace(), prefix), COMMAND, "-U", server.url, *words]
        how = {"stdin": subprocess.DEVNULL, **how}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(env), timeout=GUARD, **how
        )
        assert done.returncode == 0, done.stderr
        return Run(done.stdout, strace.on_sockets(prefix).bytes, calls(prefix))

    return run


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "image.raw"
    with path.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    return path


def calls(prefix: Path) -> set[str]:
    """The names of all traced calls that a program made, on sockets or not."""
    found: set[str] = set()
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        with path.open(errors="replace") as lines:
            found.update(line.partition("(")[0] for line in lines)
    return found


def copied(found: Counter[str]) -> int:
    """Bytes that passed user space on their way to or from a socket."""
    return sum(moved for name, moved in found.items() if name not in ZERO_COPY)


def add(server: Serving, file: Path) -> str:
    """An image with that data, added by an untraced client; returns its id."""
    words = [COMMAND, "-U", server.url, "--json", "add", f"path={file}", "disk_format=raw"]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return image_id(server)


def image_id(server: Serving) -> str:
    """The id of the newest image."""
    with Wire(server.port) as wire:
        (image,) = wire.request("GET", "/v2/images?limit=1").json["images"]
        assert (image["status"], image["size"]) == ("active", SIZE)
        return str(image["id"])


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "--quiet", one, other]).returncode == 0


def stored(server: Serving) -> Path:
    return server.image_dir / image_id(server)


@pytest.mark.parametrize("way", ["path", "redirected", "pipe"])
def test_upload(traced: Callable[..., Traced], client: Client, image_file: Path, way: str) -> None:
    """Out of the client's file (or pipe) and into the server's, past both processes."""
    end = traced()
    words = ["add", "name=x", "disk_format=raw"]
    with end.counting() as received:
        if way == "path":
            sent = client(end.server, *words, f"path={image_file}")
        elif way == "redirected":
            with image_file.open("rb") as file:
                sent = client(end.server, *words, stdin=file)
        else:
            source = subprocess.Popen(["cat", image_file], stdout=subprocess.PIPE)
            assert source.stdout is not None
            with source.stdout as pipe:
                sent = client(end.server, *words, stdin=pipe)
            assert source.wait(GUARD) == 0
    carrier = "splice" if way == "pipe" else "sendfile"
    assert sent.bytes[carrier] == SIZE, sent.bytes
    assert copied(sent.bytes) <= SMALL, sent.bytes
    assert SIZE - SMALL <= received["splice"] <= SIZE, received
    assert copied(received) <= SMALL, received
    assert received["sendfile"] == 0
    assert same(stored(end.server), image_file)


def test_chunked_upload(traced: Callable[..., Traced], image_file: Path) -> None:
    """In chunks of 64 KiB, as the clients of Glance send what has no length."""
    end = traced()
    with Wire(end.server.port) as wire:
        record = b'{"disk_format": "raw", "container_format": "bare"}'
        made = wire.request("POST", "/v2/images", body=record).json["id"]
        octets = "Content-Type: application/octet-stream"
        with end.counting() as received, image_file.open("rb") as file:
            fields = (octets, "Transfer-Encoding: chunked")
            wire.send(wire.head("PUT", f"/v2/images/{made}/file", *fields))
            while block := file.read(64 << 10):
                wire.send(b"%x\r\n" % len(block), block, b"\r\n")
            wire.send(b"0\r\n\r\n")
            assert wire.answer("PUT").status == 204
    assert received["splice"] >= SIZE - SMALL, received
    assert copied(received) <= SMALL, received
    assert same(stored(end.server), image_file)


def test_download(
    traced: Callable[..., Traced], client: Client, image_file: Path, tmp_path: Path
) -> None:
    end = traced()
    image = add(end.server, image_file)
    target = tmp_path / "down"
    with end.counting() as sent:
        received = client(end.server, "download", image, "--file", str(target))
    assert sent["sendfile"] == SIZE, sent
    assert copied(sent) <= SMALL, sent
    assert SIZE - SMALL <= received.bytes["splice"] <= SIZE, received.bytes
    assert copied(received.bytes) <= SMALL, received.bytes
    assert same(target, image_file)


def test_range_and_whole_past_2_gib(traced: Callable[..., Traced]) -> None:
    """Offsets and lengths that do not fit into 31 bits; one call moves at most 2 GiB - 4 KiB."""
    size, at = (2 << 30) + 256 * MIB, (2 << 30) + 4097
    marks = os.urandom(MIB)
    end = traced()
    with Wire(end.server.port) as wire:
        record = b'{"disk_format": "raw", "container_format": "bare"}'
        image = wire.request("POST", "/v2/images", body=record).json["id"]
        path = f"/v2/images/{image}/file"
        octets = "Content-Type: application/octet-stream"
        assert wire.request("PUT", path, octets, body=b"x").status == 204
        with (end.server.image_dir / image).open("r+b") as file:
            file.seek(at)
            file.write(marks)
            file.truncate(size)
        database = sqlite3.connect(end.server.state_dir / "headrace.db")
        with database:
            database.execute("UPDATE images SET size = ? WHERE id = ?", (size, image))
        database.close()

        with end.counting() as sent:
            answer = wire.request("GET", path, f"Range: bytes={at}-{at + 64 * MIB - 1}")
        assert answer.headers["content-range"] == f"bytes {at}-{at + 64 * MIB - 1}/{size}"
        assert answer.body == marks + bytes(63 * MIB)
        assert sent["sendfile"] == 64 * MIB, sent
        assert copied(sent) <= SMALL, sent

        with end.counting() as sent:
            wire.send(wire.head("GET", path, "Connection: close"))
            head = wire.read_head()
            assert int(head.headers["content-length"]) == size
            while wire.sock.recv(4 * MIB, socket.MSG_TRUNC):
                pass
        assert sent["sendfile"] == size, sent
        assert copied(sent) <= SMALL, sent


@pytest.mark.parametrize("switch", [OFF, {"OS_HEADRACE__SENDFILE": "false"}], ids=["env", "conf"])
def test_the_kill_switch(
    traced: Callable[..., Traced],
    client: Client,
    image_file: Path,
    tmp_path: Path,
    switch: dict[str, str],
) -> None:
    """With it on, bytes are copied and nothing else, on whichever end it is on."""
    end = traced(**switch)
    with end.counting() as received:
        sent = client(end.server, "add", "name=x", "disk_format=raw", f"path={image_file}", env=OFF)
    image = image_id(end.server)
    target = tmp_path / "down"
    with end.counting() as given:
        taken = client(end.server, "download", image, "--file", str(target), env=OFF)
    for found in (received, sent.bytes, given, taken.bytes):
        assert copied(found) >= SIZE, found
    for names in (calls(end.prefix), sent.calls, taken.calls):
        assert not names & ZERO_COPY
    assert same(target, image_file)


def test_the_count_sees_a_copy(tmp_path: Path) -> None:
    """A program that copies is not taken for one that does not."""
    program = (
        "import socket, os; a, b = socket.socketpair(); a.send(bytes(65536)); b.recv(65536);"
        "r, w = os.pipe(); a.send(bytes(4096)); os.splice(b.fileno(), w, 4096); os.read(r, 4096);"
        "f = open(os.__file__); "
        "os.sendfile(a.fileno(), f.fileno(), 0, 1000)"
    )
    prefix = tmp_path / "program"
    words = [*strace.command(require_strace(), prefix), sys.executable, "-c", program]
    subprocess.run(words, check=True)
    found = strace.on_sockets(prefix).bytes
    assert found["sendto"] == 65536 + 4096
    assert found["recvfrom"] == 65536
    assert found["splice"] == 4096
    assert found["sendfile"] == 1000
