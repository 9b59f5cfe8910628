"""Uploads to the embedded server, seen on the wire."""

import itertools
import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.embedded import Embedded, embedded, wait_until
from tests.deploy.wire import Answer, Wire
from tests.needs import require_strace
from tools.strace import command, on_sockets

MIB = 1 << 20
CHUNKED = "Transfer-Encoding: chunked"
EXPECT = "Expect: 100-continue"


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(3 * MIB + 17)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with embedded(tmp_path_factory.mktemp("upload"), "stall_timeout=2", "threads=8") as running:
        yield running


_names = (f"image{number}" for number in itertools.count())


class Upload:
    """A file to be, and the connection it is sent on."""

    def __init__(self, server: Embedded, wire: Wire) -> None:
        self.name = next(_names)
        self.target = f"/upload/{self.name}"
        self._path = server.directory / self.name
        self.wire = wire

    def begin(self, *fields: str) -> None:
        self.wire.send(self.wire.head("PUT", self.target, *fields))

    @property
    def landed(self) -> bytes:
        return self._path.read_bytes()


@pytest.fixture
def upload(server: Embedded) -> Iterator[Upload]:
    with server.connect() as wire:
        yield Upload(server, wire)


def in_chunks(data: bytes, *sizes: int, extension: str = "") -> bytes:
    """``data`` in chunks of ``sizes``, the last of which is repeated."""
    parts, rest = [], iter(sizes)
    size = 0
    while data:
        size = next(rest, size)
        chunk, data = data[:size], data[size:]
        parts.append(b"%x%s\r\n%s\r\n" % (len(chunk), extension.encode(), chunk))
    return b"".join(parts) + b"0\r\n\r\n"


def still_serves(wire: Wire) -> bool:
    return wire.request("GET", "/process").status == 200


@pytest.mark.parametrize("size", [0, 1, 100, 8192, 70_000, 3 * MIB])
def test_plain(upload: Upload, data: bytes, size: int) -> None:
    upload.begin(f"Content-Length: {size}")
    upload.wire.send(data[:size])
    assert upload.wire.answer().json == {"bytes": size, "length": size}
    assert upload.landed == data[:size]
    assert still_serves(upload.wire)


def test_without_a_body(upload: Upload) -> None:
    upload.begin()
    assert upload.wire.answer().json == {"bytes": 0, "length": 0}


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (0, (1,)),
        (2000, (1,)),
        (2000, (1, 2, 3, 900)),
        (100_000, (4095, 4096, 4097, 8191)),
        (3 * MIB, (65536,)),
        (3 * MIB, (3 * MIB,)),
        (3 * MIB, (1, MIB, 5, 65536)),
    ],
)
def test_chunked(upload: Upload, data: bytes, size: int, sizes: tuple[int, ...]) -> None:
    upload.begin(CHUNKED)
    upload.wire.send(in_chunks(data[:size], *sizes))
    assert upload.wire.answer().json == {"bytes": size, "length": None}
    assert upload.landed == data[:size]
    assert still_serves(upload.wire)


def test_chunked_with_extensions_and_trailers(upload: Upload, data: bytes) -> None:
    body = in_chunks(data[:50_000], 7000, extension=' ; name="a;b" ;c')
    upload.begin(CHUNKED)
    upload.wire.send(body[:-2], "X-Checksum: abc\r\nX-Other: d\r\n\r\n")
    assert upload.wire.answer().status == 200
    assert upload.landed == data[:50_000]
    assert still_serves(upload.wire)


@pytest.mark.parametrize("seed", range(8))
def test_chunked_whatever_the_segments(upload: Upload, data: bytes, seed: int) -> None:
    """The framing may be torn at any byte."""
    dice = random.Random(seed)
    size = dice.choice((10, 5000, 60_000))
    body = in_chunks(data[:size], *(dice.randint(1, 9000) for _ in range(50)))
    upload.begin(CHUNKED)
    while body:
        cut = dice.choice((1, 2, 3, 5, 17, 1000, 9000))
        upload.wire.send(body[:cut])
        body = body[cut:]
    assert upload.wire.answer().status == 200
    assert upload.landed == data[:size]


def test_next_request_in_the_same_segment(upload: Upload) -> None:
    wire = upload.wire
    wire.send(
        wire.head("PUT", upload.target, "Content-Length: 5"), b"hello", wire.head("GET", "/process")
    )
    assert wire.answer().status == 200
    assert "pid" in wire.answer().json
    assert upload.landed == b"hello"


@pytest.mark.parametrize("size", [5, 60_000])
def test_next_request_behind_a_chunked_body(upload: Upload, data: bytes, size: int) -> None:
    wire = upload.wire
    wire.send(
        wire.head("PUT", upload.target, CHUNKED),
        in_chunks(data[:size], 20_000),
        wire.head("GET", "/process"),
        wire.head("GET", "/process"),
    )
    assert wire.answer().status == 200
    assert "pid" in wire.answer().json
    assert "pid" in wire.answer().json
    assert upload.landed == data[:size]


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"xyz\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5;\r\nhello\r\n0\r\n\r\n",
        b'5;a="\r\nhello\r\n0\r\n\r\n',
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"a" * 9000 + b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent-Length: 7\r\n\r\n",
        b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        b"5\r\nhello\r\n0\r\n" + b"X-A: b\r\n" * 6000 + b"\r\n",
    ],
)
def test_wrong_framing(upload: Upload, body: bytes) -> None:
    """It is refused, and nothing behind it is taken for a request."""
    wire = upload.wire
    wire.send(wire.head("PUT", upload.target, CHUNKED), body, wire.head("GET", "/process"))
    answer = wire.answer()
    assert (answer.status, answer.closes) == (400, True)
    assert wire.at_end()


@pytest.mark.parametrize("fields", [("Content-Length: 100000",), (CHUNKED,)])
def test_client_that_leaves(server: Embedded, upload: Upload, fields: tuple[str, ...]) -> None:
    upload.begin(*fields)
    upload.wire.send(b"10000\r\n" if CHUNKED in fields else b"", bytes(50_000))
    before = server.events.count("failed PeerGone")
    upload.wire.sock.close()
    with server.connect() as other:
        assert still_serves(other)
    wait_until(lambda: server.events.count("failed PeerGone") > before)


@pytest.mark.parametrize("fields", [("Content-Length: 10",), (CHUNKED,)])
def test_client_that_falls_silent(
    server: Embedded, upload: Upload, fields: tuple[str, ...]
) -> None:
    upload.begin(*fields)
    answer = upload.wire.answer()
    assert (answer.status, answer.closes) == (408, True)


def test_client_that_falls_silent_in_the_head(server: Embedded) -> None:
    with server.connect() as wire:
        wire.send("GET /process HT")
        assert wire.answer().status == 408


def test_json(server: Embedded) -> None:
    asked = {"name": "x" * 20_000}
    body = json.dumps(asked).encode()
    with server.connect() as wire:
        assert wire.request("POST", "/json", body=body).json == asked
        wire.send(wire.head("POST", "/json", CHUNKED), in_chunks(body, 700))
        assert wire.answer().json == asked
        wire.send(wire.head("POST", "/json", EXPECT, f"Content-Length: {len(body)}"))
        assert wire.read_head().status == 100
        wire.send(body)
        assert wire.answer().json == asked
        assert still_serves(wire)


@pytest.mark.parametrize("fields", [("Content-Length: 100",), (CHUNKED,)])
def test_json_cut_short(server: Embedded, fields: tuple[str, ...]) -> None:
    with server.connect() as wire:
        wire.send(wire.head("POST", "/json", *fields), b'14\r\n{"a":')
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.at_end()


@pytest.mark.parametrize("chunked", [False, True])
def test_expect_accepted(upload: Upload, data: bytes, chunked: bool) -> None:
    upload.begin(EXPECT, CHUNKED if chunked else f"Content-Length: {len(data)}")
    assert upload.wire.read_head().status == 100
    upload.wire.send(in_chunks(data, 65536) if chunked else data)
    assert upload.wire.answer().status == 200
    assert upload.landed == data
    assert still_serves(upload.wire)


def test_expect_refused_before_the_body(server: Embedded) -> None:
    with server.connect() as wire:
        wire.send(wire.head("PUT", "/refuse", EXPECT, "Content-Length: 1000000"))
        answer = wire.answer()
        assert (answer.status, answer.closes) == (409, True)
        assert wire.at_end()


def test_expect_refused_by_a_client_that_did_not_wait(server: Embedded) -> None:
    smuggled = b"GET /process HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with server.connect() as wire:
        wire.send(wire.head("PUT", "/refuse", EXPECT, f"Content-Length: {len(smuggled)}"), smuggled)
        assert wire.answer().status == 409
        assert wire.at_end()


def test_expect_without_a_body(server: Embedded) -> None:
    with server.connect() as wire:
        assert wire.request("PUT", "/refuse", EXPECT, "Content-Length: 0").status == 409
        assert still_serves(wire)


def test_refused_upload_keeps_the_connection_when_it_is_small(server: Embedded) -> None:
    with server.connect() as wire:
        for _ in range(3):
            assert wire.request("PUT", "/refuse", body=bytes(60_000)).status == 409
        assert still_serves(wire)


def test_refused_chunked_upload_ends_the_connection(server: Embedded) -> None:
    with server.connect() as wire:
        wire.send(wire.head("PUT", "/refuse", CHUNKED), in_chunks(bytes(60_000), 999))
        answer = wire.answer()
        assert (answer.status, answer.closes) == (409, True)
        assert wire.at_end()


def test_what_follows_a_refused_upload_is_no_request(server: Embedded) -> None:
    with server.connect() as wire:
        wire.send(wire.head("PUT", "/refuse", "Content-Length: 200000"), bytes(100_000))
        wire.send(wire.head("GET", "/smuggled"))
        answer = wire.answer()
        assert (answer.status, answer.closes) == (409, True)
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.at_end()
    assert "/smuggled" not in server.log


@pytest.mark.parametrize(("target", "status"), [("/refuse", 409), ("/half", 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_refusal_reaches_a_client_that_sends_on(
    server: Embedded, target: str, status: int, chunked: bool
) -> None:
    """64 MiB without a look at the answer; it must be there afterwards."""
    with server.connect() as wire:
        fields = CHUNKED if chunked else f"Content-Length: {64 * MIB}"
        wire.send(wire.head("PUT", target, fields))
        for _ in range(64):
            wire.send(b"100000\r\n" if chunked else b"", bytes(MIB), b"\r\n" if chunked else b"")
        answer = wire.answer()
        assert (answer.status, answer.closes) == (status, True)


def test_uploads_side_by_side(server: Embedded, data: bytes) -> None:
    answers: list[Answer] = []

    def one() -> None:
        with server.connect() as wire:
            mine = Upload(server, wire)
            mine.begin(CHUNKED)
            wire.send(in_chunks(data, 65536))
            answers.append(wire.answer())
            assert mine.landed == data

    threads = [threading.Thread(target=one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.json["bytes"] for answer in answers] == [len(data)] * 12


def test_descriptors_are_given_back(server: Embedded, data: bytes) -> None:
    def upload_both_ways() -> None:
        with server.connect() as wire:
            for fields in (f"Content-Length: {len(data)}", CHUNKED):
                mine = Upload(server, wire)
                mine.begin(fields)
                wire.send(in_chunks(data, 70_000) if fields is CHUNKED else data)
                assert wire.answer().status == 200

    upload_both_ways()  # the engine keeps the pipe for the next
    before = server.descriptors()
    for _ in range(5):
        upload_both_ways()
    wait_until(lambda: server.descriptors() <= before)


@pytest.mark.parametrize(("switch", "by_splice"), [("on", True), ("off", False)])
@pytest.mark.parametrize("chunked", [False, True])
def test_what_carries_the_bytes(
    tmp_path: Path, chunked: bool, switch: str, by_splice: bool
) -> None:
    size = 16 * MIB
    trace = tmp_path / "trace"
    strace = command(require_strace(), trace)
    with embedded(tmp_path, under=strace, env={"HEADRACE_SENDFILE": switch}) as server:
        with server.connect() as wire:
            mine = Upload(server, wire)
            mine.begin(CHUNKED if chunked else f"Content-Length: {size}")
            wire.send(in_chunks(bytes(size), 65536) if chunked else bytes(size))
            assert wire.answer().json["bytes"] == size
        assert server.stop() == 0
    carried = on_sockets(trace).bytes
    read = sum(carried[name] for name in ("read", "readv", "recvfrom", "recvmsg"))
    if by_splice:
        assert carried["splice"] > size - MIB
        assert read < MIB
    else:
        assert carried["splice"] == 0
        assert read > size
