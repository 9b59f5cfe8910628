"""Bodies under hosts that are not ours: what they take from us, and what we take from them."""

import contextlib
import io
import os
import socket
import ssl
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace

import falcon
import msgspec
import pytest
from falcon.testing import TestClient, create_environ
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.unreader import IterUnreader

from headrace import config, errors
from headrace.api import app, intake
from headrace.api.delivery import Delivery, Mode
from headrace.api.requests import read_json
from headrace.api.traffic import Traffic
from headrace.metrics import Metrics
from headrace.model import MIB, Image
from headrace.stores.destinations import Destinations, Rules
from headrace.stores.http import HttpStore
from headrace.stores.origin import Origins
from headrace.transfer import engine
from headrace.transfer.engine import FileSink, pump_all
from headrace.transfer.extent import Extent
from headrace.transfer.growing import Growing
from tests.contract.stores.origin_server import running

IMAGE = Image(id="any", created_at=datetime.min, updated_at=datetime.min)


UNKNOWN = {"SERVER_SOFTWARE": "another host"}
GUNICORN = {"gunicorn.socket": socket.socket}
MOD_WSGI = {"mod_wsgi.version": (4, 9, 4)}
UWSGI = {"uwsgi.version": b"2.0.30"}
EMBEDDED = {intake.BODY: object()}


def deliver(
    path: Path, size: int, environ: dict[str, object], mode: Mode = Mode.AUTO, **headers: str
) -> tuple[Extent, falcon.Response]:
    """What becomes of a download under a host with that environment."""
    environ = {**create_environ(headers=headers), **environ}
    response = falcon.Response()
    extent = Extent(os.open(path, os.O_RDONLY), 0, size, str(path))
    delivery = Delivery(mode, {str(path.parent): "/internal/"}, 60.0, Traffic(Metrics()))
    delivery.deliver(falcon.Request(environ), response, IMAGE, extent)
    return extent, response


def delivered(path: Path, size: int) -> bytearray:
    """What a host gets that takes the body block by block."""
    extent, response = deliver(path, size, UNKNOWN)
    body = bytearray()
    assert response.stream is not None
    try:
        for block in response.stream:
            body += block
    finally:
        extent.close()
    return body


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "an image 100%"
    path.write_bytes(bytes(1000))
    return path


@pytest.mark.parametrize(
    ("environ", "mode", "handed_over"),
    [
        (EMBEDDED, Mode.AUTO, True),
        (EMBEDDED, Mode.COPY, False),
        (GUNICORN, Mode.AUTO, True),
        (GUNICORN, Mode.COPY, False),
        (MOD_WSGI, Mode.AUTO, True),
        (UWSGI, Mode.AUTO, True),
        (UNKNOWN, Mode.AUTO, False),
        (UNKNOWN, Mode.FILE_WRAPPER, True),
    ],
)
def test_the_extent_itself_reaches_a_host_that_sends_files(
    image: Path, environ: dict[str, object], mode: Mode, handed_over: bool
) -> None:
    """Hosts compare bodies by identity; what has read() goes to their file_wrapper."""
    extent, response = deliver(image, 1000, environ, mode)
    assert (response.stream is extent) == handed_over
    assert hasattr(response.stream, "read") == handed_over
    assert "connection" not in response.headers
    extent.close()


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"http-socket": b":80"}, True),
        ({"socket": b":80", "http11-socket": b":81"}, True),
        ({"socket": b":80", "protocol": b"uwsgi"}, True),
        ({"socket": b":80", "protocol": b"fastcgi"}, False),
        ({"http-socket": b":80", "fastcgi-socket": b":81"}, False),
        ({"https-socket": b":80"}, False),
        ({}, False),
    ],
)
def test_a_range_is_sent_into_uwsgis_connection_only_where_nothing_frames_it(
    image: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bytes], sent: bool
) -> None:
    host = ModuleType("uwsgi")
    host.opt, host.connection_fd = options, lambda: 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uwsgi", host)
    extent, response = deliver(image, 1000, UWSGI, Range="bytes=1-5")
    assert ("_Sent" in type(response.stream).__name__) == sent
    assert response.stream is not extent
    extent.close()


@pytest.mark.parametrize(
    ("length", "encoding"),
    [("-5", ""), ("abc", ""), ("1_0", ""), ("+4", ""), ("4", "chunked"), ("", "gzip, chunked")],
)
def test_a_body_of_doubtful_length_is_none(length: str, encoding: str) -> None:
    environ = {"wsgi.input": io.BytesIO(b"data"), "wsgi.input_terminated": True}
    with pytest.raises(errors.BadRequest):
        intake.body({**environ, "CONTENT_LENGTH": length, "HTTP_TRANSFER_ENCODING": encoding})


def test_what_the_host_is_given_is_what_its_file_wrapper_made(tmp_path: Path) -> None:
    """Through the framework and everything around it: uWSGI and gunicorn compare by identity."""
    settings: dict[tuple[str, str], object] = {
        ("headrace", "state_dir"): str(tmp_path / "state"),
        ("headrace", "unauthenticated_ok"): True,
    }
    application = app.build(config.load([], settings))
    client = TestClient(application)
    record = msgspec.json.encode({"disk_format": "raw", "container_format": "bare"})
    path = client.simulate_post("/v2/images", body=record).json["file"]
    octets = {"Content-Type": "application/octet-stream"}
    client.simulate_put(path, body=bytes(100_000), headers=octets)
    made: list[object] = []

    class Wrapper:
        def __init__(self, extent: Extent, _size: int) -> None:
            self.extent = extent
            made.append(self)

    environ = {**create_environ(path=path), **GUNICORN}
    environ["wsgi.file_wrapper"] = Wrapper
    for headers in ({}, {"HTTP_RANGE": "bytes=7-"}):
        body = application({**environ, **headers}, lambda *_: None)
        assert body is made.pop()
        assert isinstance(body, Wrapper)
        assert type(body.extent) is Extent
        body.extent.close()
    application.close()


def test_nothing_is_handed_over_when_zero_copy_is_off(image: Path) -> None:
    engine.enable(False)
    try:
        extent, response = deliver(image, 1000, GUNICORN)
    finally:
        engine.enable(True)
    assert response.stream is not extent
    extent.close()


def test_tls_is_copied(image: Path) -> None:
    with (
        socket.socket() as plain,
        ssl.create_default_context().wrap_socket(
            plain, server_hostname="localhost", do_handshake_on_connect=False
        ) as encrypted,
    ):
        extent, response = deliver(image, 1000, {"gunicorn.socket": encrypted})
    assert response.stream is not extent
    extent.close()


def test_a_daemon_whose_front_does_not_count_has_its_connection_closed(image: Path) -> None:
    extent, response = deliver(image, 1000, {**MOD_WSGI, "mod_wsgi.process_group": "headrace"})
    assert response.headers["connection"] == "close"
    extent.close()


def test_nginx_is_told_a_name_below_its_location(image: Path) -> None:
    extent, response = deliver(image, 1000, EMBEDDED, Mode.X_ACCEL_REDIRECT, Range="bytes=1-2")
    assert response.headers["x-accel-redirect"] == "/internal/an%20image%20100%25"
    assert (response.stream, response.status) == (None, falcon.HTTP_200)
    assert (extent.way, extent.length) == ("offloaded", 2)  # as the metrics count it
    extent.close()


def test_apache_is_told_a_path_as_it_is(image: Path) -> None:
    extent, response = deliver(image, 1000, EMBEDDED, Mode.X_SENDFILE)
    assert response.headers["x-sendfile"] == str(image)
    assert response.stream is None
    extent.close()


@pytest.mark.parametrize("mode", [Mode.X_ACCEL_REDIRECT, Mode.X_SENDFILE])
def test_a_range_that_no_front_knows_leaves_through_us(image: Path, mode: Mode) -> None:
    header = {"Content-Range": "bytes 5-9/1000"}
    extent, response = deliver(image, 1000, EMBEDDED, mode, **header)
    assert response.stream is extent
    assert (extent.offset, extent.length, response.status) == (5, 5, falcon.HTTP_206)
    assert not {"x-accel-redirect", "x-sendfile"} & set(response.headers)
    extent.close()


@pytest.mark.parametrize("mode", [Mode.X_ACCEL_REDIRECT, Mode.X_SENDFILE])
@pytest.mark.parametrize("path", ["{directory}/elsewhere/image", ""])
def test_a_front_is_told_of_its_directories_only(image: Path, mode: Mode, path: str) -> None:
    """Files that are registered in place leave through us."""
    response = falcon.Response()
    request = falcon.Request({**create_environ(), **EMBEDDED})
    path = path.format(directory=image.parent)
    extent = Extent(os.open(image, os.O_RDONLY), 0, 1000, path)
    Delivery(mode, {str(image.parent): "/internal/"}, 60.0, Traffic(Metrics())).deliver(
        request, response, IMAGE, extent
    )
    assert response.stream is extent
    assert not {"x-accel-redirect", "x-sendfile"} & set(response.headers)
    extent.close()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("host", [EMBEDDED, GUNICORN, MOD_WSGI, UWSGI, UNKNOWN])
def test_what_is_at_an_origin_is_delivered_in_blocks(host: dict[str, object], mode: Mode) -> None:
    """Whatever the host: there is no file that could be sent."""
    with running() as origin:
        origin.data["/image"] = bytes(range(256)) * 20
        rules = Rules(allowed_hosts=("127.0.0.1",), allowed_ports=(origin.port,))
        store = HttpStore("web", Origins(Destinations(rules)))
        response = falcon.Response()
        environ = {**create_environ(headers={"Range": "bytes=1000-1999"}), **host}
        remote = store.open(origin.url("/image"))
        Delivery(mode, {"": "/internal/"}, 60.0, Traffic(Metrics())).deliver(
            falcon.Request(environ), response, IMAGE, remote
        )
        assert response.headers["content-range"] == "bytes 1000-1999/5120"
        assert not hasattr(response.stream, "read")
        assert response.stream is not None
        assert b"".join(response.stream) == origin.data["/image"][1000:2000]
        remote.close()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("host", [EMBEDDED, GUNICORN, MOD_WSGI, UNKNOWN])
def test_what_has_not_landed_is_left_to_nobody(
    image: Path, host: dict[str, object], mode: Mode
) -> None:
    """A host would take the end of the file for the end of the answer."""
    response = falcon.Response()
    with contextlib.closing(growing(image, 1000)) as extent:
        delivery = Delivery(mode, {str(image.parent): "/internal/"}, 60.0, Traffic(Metrics()))
        delivery.deliver(falcon.Request({**create_environ(), **host}), response, IMAGE, extent)
        assert not {"x-accel-redirect", "x-sendfile"} & set(response.headers)
        if host is EMBEDDED and mode is not Mode.COPY:
            assert response.stream is extent
            return
        assert response.stream is not None
        assert not hasattr(response.stream, "read")
        blocks = iter(response.stream)
        assert next(blocks) == bytes(999)
        image.chmod(0o400)
        assert list(blocks) == [bytes(1)]


@pytest.mark.parametrize("sent", [True, False])
def test_what_has_not_landed_is_sent_into_uwsgis_connection_by_us(
    image: Path, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    host = ModuleType("uwsgi")
    host.opt = {"http-socket" if sent else "https-socket": b":80"}  # type: ignore[attr-defined]
    host.connection_fd = lambda: 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uwsgi", host)
    response = falcon.Response()
    with contextlib.closing(growing(image, 1000)) as extent:
        delivery = Delivery(Mode.AUTO, {}, 60.0, Traffic(Metrics()))
        delivery.deliver(falcon.Request({**create_environ(), **UWSGI}), response, IMAGE, extent)
        assert ("_Sent" in type(response.stream).__name__) == sent
        assert response.stream is not extent


def test_what_has_landed_is_left_to_a_host(image: Path) -> None:
    """It was whole before the answer was made, or as much of it as was asked for."""
    for mode, header in ((0o600, {"Range": "bytes=100-199"}), (0o400, {})):
        response = falcon.Response()
        image.chmod(mode)
        with contextlib.closing(growing(image, 1000)) as extent:
            request = falcon.Request({**create_environ(headers=header), **GUNICORN})
            delivery = Delivery(Mode.AUTO, {}, 60.0, Traffic(Metrics()))
            delivery.deliver(request, response, IMAGE, extent)
            assert response.stream is extent
            assert os.lseek(extent.fd, 0, os.SEEK_CUR) == extent.offset


def growing(path: Path, size: int) -> Growing:
    return Growing(os.open(path, os.O_RDONLY), size, str(path), stall=30)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("asked", "error"),
    [("bytes=0-1,3-4", errors.BadRequest), ("bytes=1000-", errors.RangeNotSatisfiable)],
)
def test_a_range_is_refused_before_anybody_is_told_of_the_file(
    image: Path, mode: Mode, asked: str, error: type[errors.Error]
) -> None:
    response = falcon.Response()
    request = falcon.Request({**create_environ(headers={"Range": asked}), **EMBEDDED})
    extent = Extent(os.open(image, os.O_RDONLY), 0, 1000, str(image))
    with pytest.raises(error):
        Delivery(mode, {str(image.parent): "/internal/"}, 60.0, Traffic(Metrics())).deliver(
            request, response, IMAGE, extent
        )
    assert not {"x-accel-redirect", "x-sendfile"} & set(response.headers)
    extent.close()


@pytest.mark.parametrize("size", [1, MIB, 2 * MIB + 1])
def test_a_file_is_delivered_in_blocks(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "image").write_bytes(content)
    assert delivered(tmp_path / "image", size) == content


@pytest.mark.parametrize("missing", [1, MIB, 2 * MIB])
def test_a_file_cut_short_does_not_end_quietly(tmp_path: Path, missing: int) -> None:
    """Not every host compares what it sent with the Content-Length."""
    size = 2 * MIB
    (tmp_path / "image").write_bytes(bytes(size - missing))
    with pytest.raises(errors.FileTruncated) as caught:
        delivered(tmp_path / "image", size)
    assert caught.value.fields == {"missing": missing, "moved": size - missing}


@pytest.mark.parametrize("wire", [b"xyz\r\n", b"5\r\nhelloX", b"5\r\nhel", b"5\r\nhello\r\n0\r\n"])
def test_a_body_that_the_host_cannot_make_out(tmp_path: Path, wire: bytes) -> None:
    """gunicorn's own reader says so by exceptions of its own."""
    host = Body(ChunkedReader(SimpleNamespace(), IterUnreader([wire])))
    environ = {
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input_terminated": True,
        "wsgi.input": host,
    }
    fd = os.open(tmp_path / "image", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises((errors.UploadIncomplete, errors.PeerGone)):
            pump_all(intake.body(environ).pieces(), FileSink(fd))
    finally:
        os.close(fd)


def test_json_that_the_host_cannot_make_out() -> None:
    host = Body(ChunkedReader(SimpleNamespace(), IterUnreader([b"xyz\r\n"])))
    chunks = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    environ = {**create_environ(), "wsgi.input": host, **chunks}
    with pytest.raises(errors.UploadIncomplete):
        read_json(falcon.Request(environ))
