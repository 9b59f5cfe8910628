"""Uploads: what goes over the wire, what is refused, what is tried again."""

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.client import Body, Connection, Images
from headrace.client.upload import BACKOFF_S, Kind
from tests.client.peer import Request, Wire, peer
from tools.serving import Serving

MIB = 1 << 20
DATA = bytes(range(256)) * 4096 * 3  # 3 MiB


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(DATA)
    return path


@contextlib.contextmanager
def fed(*blocks: bytes) -> Iterator[int]:
    """The reading end of a pipe that somebody else fills with ``blocks``, then closes."""
    reader, writer = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), open(writer, "wb", buffering=0) as pipe:
            for block in blocks:
                view = memoryview(block)
                while view:
                    view = view[pipe.write(view) :]
                time.sleep(0.01)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join()


class Receiver:
    """A step that takes one upload as a correct server would, and keeps what came."""

    def __init__(self, *, asks: bool = True) -> None:
        self.asks = asks
        self.request = Request("", {})
        self.chunks: list[bytes] = []

    def __call__(self, wire: Wire) -> None:
        self.request = wire.head()
        if self.asks:
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.request.headers.get("transfer-encoding") == "chunked":
            self.chunks = wire.chunks()
        else:
            self.chunks = [wire.take(int(self.request.headers["content-length"]))]
        wire.answer("204 No Content")

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


def test_a_file_goes_with_its_length_announced(file: Path) -> None:
    receiver = Receiver()
    seen: list[int] = []
    with peer(receiver) as found, Connection(found.url) as connection:
        moved = Images(connection).upload("an-id", file, progress=seen.append)
    assert receiver.body == DATA
    assert receiver.request.line == "PUT /v2/images/an-id/file HTTP/1.1"
    headers = receiver.request.headers
    assert headers["content-length"] == headers["x-openstack-image-size"] == str(len(DATA))
    assert headers["content-type"] == "application/octet-stream"
    assert headers["expect"] == "100-continue"
    assert "transfer-encoding" not in headers
    assert (moved.bytes, moved.how) == (len(DATA), "sendfile")
    assert seen[-1] == len(DATA)
    assert seen == sorted(seen)


def test_a_file_goes_from_its_position_on(file: Path) -> None:
    receiver = Receiver()
    with peer(receiver) as found, Connection(found.url) as connection, file.open("rb") as source:
        source.seek(MIB)
        assert Images(connection).upload("an-id", source.fileno()).bytes == len(DATA) - MIB
        assert os.fstat(source.fileno()).st_size == len(DATA)  # still open: it is the caller's
    assert receiver.body == DATA[MIB:]


def test_an_empty_file_is_an_upload_too(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    receiver = Receiver(asks=False)
    with peer(receiver) as found, Connection(found.url) as connection:
        assert Images(connection).upload("an-id", tmp_path / "empty").bytes == 0
    assert receiver.request.headers["content-length"] == "0"
    assert "expect" not in receiver.request.headers


def test_a_pipe_goes_in_chunks_of_what_lies_in_it() -> None:
    receiver = Receiver()
    seen: list[int] = []
    blocks = (b"a", DATA, b"b" * 70_000)
    with (
        peer(receiver) as found,
        Connection(found.url) as connection,
        fed(*blocks) as pipe,
    ):
        moved = Images(connection).upload("an-id", pipe, progress=seen.append)
    assert receiver.body == b"".join(blocks)
    assert receiver.chunks[-1] == b""
    assert max(map(len, receiver.chunks)) <= MIB
    assert "content-length" not in receiver.request.headers
    assert "x-openstack-image-size" not in receiver.request.headers
    assert (moved.bytes, moved.how) == (len(b"".join(blocks)), "splice")
    assert seen[-1] == moved.bytes
    assert seen == sorted(seen)


def test_what_was_taken_from_a_pipe_goes_first() -> None:
    receiver = Receiver()
    with peer(receiver) as found, Connection(found.url) as connection, fed(DATA) as pipe:
        head = os.read(pipe, 5000)
        moved = Images(connection).upload("an-id", Body.of(pipe, head=head))
    assert receiver.chunks[0] == head
    assert receiver.body == DATA
    assert moved.bytes == len(DATA)


def test_an_empty_pipe_is_an_empty_body() -> None:
    receiver = Receiver()
    with peer(receiver) as found, Connection(found.url) as connection, fed() as pipe:
        assert Images(connection).upload("an-id", pipe).bytes == 0
    assert receiver.chunks == [b""]


def test_the_size_of_a_pipe_can_be_told() -> None:
    receiver = Receiver()
    with peer(receiver) as found, Connection(found.url) as connection, fed(b"abc") as pipe:
        Images(connection).upload("an-id", pipe, size=3)
    assert receiver.request.headers["x-openstack-image-size"] == "3"
    assert receiver.body == b"abc"


def test_anything_else_is_copied() -> None:
    receiver = Receiver()
    ours, theirs = socket.socketpair()
    with peer(receiver) as found, Connection(found.url) as connection, ours, theirs:
        assert Body.of(ours.fileno()).kind is Kind.OTHER
        theirs.sendall(b"from a socket")
        theirs.shutdown(socket.SHUT_WR)
        moved = Images(connection).upload("an-id", ours.fileno())
    assert receiver.body == b"from a socket"
    assert (moved.bytes, moved.how) == (13, "copy")


def test_a_service_that_never_says_continue_gets_the_body_all_the_same(file: Path) -> None:
    receiver = Receiver(asks=False)
    with peer(receiver) as found, Connection(found.url) as connection:
        Images(connection).upload("an-id", file)
    assert receiver.body == DATA


def test_continue_may_come_late_and_in_pieces(file: Path) -> None:
    def serve(wire: Wire) -> None:
        wire.head()
        for piece in (b"HTTP/1.1 100 ", b"Continue\r\n", b"X: y\r\n\r", b"\n"):
            wire.send(piece)
            time.sleep(0.05)
        assert wire.take(len(DATA)) == DATA
        wire.answer("204 No Content")

    def serve_late(wire: Wire) -> None:
        wire.head()
        assert wire.take(len(DATA)) == DATA
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.answer("204 No Content")

    with peer(serve, serve_late) as found:
        for _ in range(2):
            with Connection(found.url) as connection:
                Images(connection).upload("an-id", file)


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("409 Conflict", "image.status_conflict", errors.StatusConflict),
        ("413 Content Too Large", None, errors.TooLarge),
        ("403 Forbidden", None, errors.Forbidden),
        ("401 Unauthorized", None, errors.Unauthenticated),
    ],
)
def test_a_refused_upload_sends_not_a_byte(
    file: Path, status: str, code: str | None, kind: type[errors.Error], interim: bytes
) -> None:
    received: list[bytes] = []

    def refuse(wire: Wire) -> None:
        wire.head()
        headers = {"X-Headrace-Error": code} if code else {}
        body = b"why not"
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: text/plain"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        # In one packet, so that an interim answer and the final one arrive together.
        wire.send(interim + "\r\n".join([*lines, "", ""]).encode() + body)
        received.append(wire.take(1))

    with (
        peer(refuse) as found,
        Connection(found.url) as connection,
        pytest.raises(kind, match="why not") as caught,
    ):
        Images(connection).upload("an-id", file)
    assert type(caught.value) is kind
    assert received == [b""]


def stop_at(size: int, end: Callable[[Wire], None]) -> Callable[[Wire], None]:
    """A step that takes ``size`` bytes of a body, answers 413 and ends the connection."""

    def serve(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert len(wire.take(size)) == size
        headers = {"X-Headrace-Error": "store.full", "Connection": "close"}
        wire.answer("413 Content Too Large", b"no room here", headers)
        end(wire)

    return serve


@pytest.mark.parametrize("size", [1, 100_000])
def test_an_answer_in_the_middle_of_a_file_is_the_error(tmp_path: Path, size: int) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 * MIB)  # more than both ends can buffer
    with (
        peer(stop_at(size, lambda wire: wire.sock.close())) as found,
        Connection(found.url) as connection,
        pytest.raises(errors.StoreFull, match="no room here"),
    ):
        Images(connection).upload("an-id", big)
    assert found.connections == 1


def test_an_answer_in_the_middle_of_a_pipe_is_the_error() -> None:
    with (
        peer(stop_at(1, lambda wire: wire.sock.close())) as found,
        Connection(found.url) as connection,
        fed(b"x" * (64 * MIB)) as pipe,
        pytest.raises(errors.StoreFull, match="no room here"),
    ):
        Images(connection).upload("an-id", pipe)


def test_an_answer_ends_the_wait_for_a_slow_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 100)
    try:
        with (
            peer(stop_at(5, lambda wire: None)) as found,
            Connection(found.url) as connection,
            pytest.raises(errors.StoreFull, match="no room here"),
        ):
            Images(connection).upload("an-id", reader)  # the writing end stays open
    finally:
        os.close(reader)
        os.close(writer)


def test_a_cut_in_the_middle_is_not_tried_again(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 * MIB)

    def cut(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.take(1000)
        wire.reset()

    with (
        peer(cut, Receiver()) as found,
        Connection(found.url) as connection,
        pytest.raises(errors.PeerGone, match=r"after [1-9]\d* bytes"),
    ):
        Images(connection).upload("an-id", big)
    assert found.connections == 1


def test_a_lost_answer_is_not_tried_again(file: Path) -> None:
    def lose(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.take(len(DATA))

    with (
        peer(lose, Receiver()) as found,
        Connection(found.url) as connection,
        pytest.raises(errors.ConnectionFailed, match="closed without an answer"),
    ):
        Images(connection).upload("an-id", file)
    assert found.connections == 1


def test_a_file_is_sent_again_if_nothing_of_it_was_taken(file: Path) -> None:
    def cut(wire: Wire) -> None:
        wire.head()
        wire.reset()

    receiver = Receiver()
    with peer(cut, cut, receiver) as found, Connection(found.url) as connection:
        Images(connection).upload("an-id", file)
    assert found.connections == 3
    assert receiver.body == DATA


def test_a_pipe_is_sent_once(file: Path) -> None:
    def cut(wire: Wire) -> None:
        wire.head()
        wire.reset()

    with (
        peer(cut, Receiver()) as found,
        Connection(found.url) as connection,
        fed(DATA) as pipe,
        pytest.raises(errors.ConnectionFailed, match="reset"),
    ):
        Images(connection).upload("an-id", pipe)
    assert found.connections == 1


def test_a_service_that_is_gone_is_given_up_in_the_end(file: Path) -> None:
    with peer() as gone:
        pass
    started = time.monotonic()
    with (
        Connection(gone.url) as connection,
        pytest.raises(errors.ConnectionFailed, match="refused"),
    ):
        Images(connection).upload("an-id", file)
    assert time.monotonic() - started >= sum(BACKOFF_S)


def test_a_file_that_shrinks_meanwhile_is_never_padded(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 * MIB)
    received: list[int] = []

    def shrink(wire: Wire) -> None:
        wire.head()
        os.truncate(big, MIB)
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        received.append(len(wire.take(64 * MIB)))

    with (
        peer(shrink) as found,
        Connection(found.url) as connection,
        pytest.raises(errors.FileTruncated),
    ):
        Images(connection).upload("an-id", big)
    assert received == [MIB]


@pytest.mark.parametrize("way", ["file", "pipe", "socket"])
def test_the_service_has_what_was_sent(server: Serving, file: Path, way: str) -> None:
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(Connection(server.url))
        images = Images(connection)
        made = images.create(name=f"by {way}", disk_format="raw", container_format="bare")
        image_id = str(made["id"])
        if way == "file":
            images.upload(image_id, file)
        elif way == "pipe":
            images.upload(image_id, stack.enter_context(fed(DATA)))
        else:
            ours, theirs = map(stack.enter_context, socket.socketpair())

            def send() -> None:
                theirs.sendall(DATA)
                theirs.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            images.upload(image_id, ours.fileno())
            sender.join()
        image = images.show(image_id)
        assert image["status"] == "active"
        assert image["size"] == len(DATA)
        assert image["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
        with pytest.raises(errors.StatusConflict):
            images.upload(image_id, file)


def test_a_file_without_a_size_is_refused() -> None:
    with (
        open("/proc/cpuinfo", "rb") as file,
        pytest.raises(errors.ClientError, match="without a size"),
    ):
        Body.of(file.fileno())


def test_the_time_that_was_waited_is_the_time_that_is_told() -> None:
    size = 20_000_000  # which the service is given a second for, beyond the time-out

    def never(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.take(size)
        wire.take(1)

    with (
        open(os.memfd_create("zeros"), "rb") as zeros,
        peer(never) as found,
        Connection(found.url, timeout=0.5) as connection,
    ):
        os.truncate(zeros.fileno(), size)
        with pytest.raises(errors.ConnectionFailed, match=r"no answer within 1\.5 s"):
            Images(connection).upload("1", zeros.fileno())
