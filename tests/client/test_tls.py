"""Encrypted connections: verified, and the same in all but how the bytes go."""

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.client import Connection, Images
from tests import certificates
from tests.client.peer import Peer, Step, Wire, peer
from tests.client.test_download import DATA, record, serve_from
from tests.client.test_upload import Receiver, fed


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates.make(tmp_path_factory.mktemp("tls") / "both.pem")


@contextlib.contextmanager
def encrypted_peer(certificate: Path, *steps: Step) -> Iterator[Peer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def wrapped(step: Step) -> Step:
        def serve(wire: Wire) -> None:
            try:
                sock = context.wrap_socket(wire.sock, server_side=True)
            except ssl.SSLError:
                return  # the client did not trust us
            with sock:
                step(Wire(sock))

        return serve

    with peer(*map(wrapped, steps)) as found:
        found.url = found.url.replace("http://", "https://")
        yield found


def test_who_is_not_trusted_is_told_nothing(certificate: Path) -> None:
    with (
        encrypted_peer(certificate, lambda wire: pytest.fail("a request came")) as found,
        Connection(found.url, token="secret") as connection,
        pytest.raises(errors.ConnectionFailed, match="certificate is not trusted"),
    ):
        connection.request("GET", "/v2/images")


def test_verification_can_be_given_up(certificate: Path) -> None:
    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer_json({})

    with (
        encrypted_peer(certificate, serve) as found,
        Connection(found.url, verify=False) as connection,
    ):
        assert connection.request("GET", "/v2/images").json() == {}


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_an_upload_is_copied(certificate: Path, tmp_path: Path, way: str, asks: bool) -> None:
    receiver = Receiver(asks=asks)
    (tmp_path / "image").write_bytes(DATA)
    with (
        encrypted_peer(certificate, receiver) as found,
        Connection(found.url, cafile=str(certificate)) as connection,
        fed(DATA) as pipe,
    ):
        source = tmp_path / "image" if way == "file" else pipe
        moved = Images(connection).upload("an-id", source)
        if way == "file":
            while os.read(pipe, 1 << 20):
                pass
    assert receiver.body == DATA
    assert (moved.bytes, moved.how) == (len(DATA), "copy")


def test_a_refused_upload_sends_not_a_byte(certificate: Path, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(DATA)
    received: list[bytes] = []

    def refuse(wire: Wire) -> None:
        wire.head()
        wire.answer("409 Conflict", b"no", {"X-Headrace-Error": "image.status_conflict"})
        with contextlib.suppress(ssl.SSLError, OSError):
            received.append(wire.take(1))

    with (
        encrypted_peer(certificate, refuse) as found,
        Connection(found.url, cafile=str(certificate)) as connection,
        pytest.raises(errors.StatusConflict),
    ):
        Images(connection).upload("an-id", tmp_path / "image")
    assert b"".join(received) == b""


def test_a_download_is_copied_and_goes_on_after_a_cut(certificate: Path, tmp_path: Path) -> None:
    def cut(wire: Wire) -> None:
        serve_from(until=1_000_000)(wire)
        wire.sock.shutdown(socket.SHUT_RDWR)

    with (
        encrypted_peer(certificate, cut, serve_from()) as found,
        Connection(found.url, cafile=str(certificate)) as connection,
    ):
        done = Images(connection).download(record(), tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == DATA
    assert (done.moved.bytes, done.moved.how, done.verified) == (len(DATA), "copy", "sha256")
