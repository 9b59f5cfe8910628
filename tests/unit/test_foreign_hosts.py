"""Bodies under hosts that are not ours: what they take from us, and what we take from them."""

import os
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import falcon
import pytest
from falcon.testing import create_environ
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.unreader import IterUnreader

from headrace import errors
from headrace.api import intake
from headrace.api.delivery import deliver
from headrace.api.requests import read_json
from headrace.model import MIB, Image
from headrace.transfer.engine import FileSink, pump_all
from headrace.transfer.extent import Extent

IMAGE = Image(id="any", created_at=datetime.min, updated_at=datetime.min)


def delivered(path: Path, size: int) -> bytearray:
    """What a host gets that takes the body block by block."""
    environ = {**create_environ(), "SERVER_SOFTWARE": "another host"}
    response = falcon.Response()
    extent = Extent(os.open(path, os.O_RDONLY), 0, size)
    deliver(falcon.Request(environ), response, IMAGE, extent)
    body = bytearray()
    assert response.stream is not None
    try:
        for block in response.stream:
            body += block
    finally:
        extent.close()
    return body


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
    environ = {**create_environ(), "wsgi.input": host, "wsgi.input_terminated": True}
    with pytest.raises(errors.UploadIncomplete):
        read_json(falcon.Request(environ))
