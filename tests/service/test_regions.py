"""glance-download: images of other regions, whose services may be anything but well."""

import hashlib
import http.server
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import pytest

from headrace import errors
from headrace.model import Image, Status, TaskStatus, Viewer
from headrace.service.context import Context
from headrace.service.imports import ImportRequest
from headrace.service.regions import Regions, RemoteImage
from tests import certificates
from tests.image_files import qcow2
from tests.service.conftest import Service
from tests.service.test_imports import Answer, nothing_left, origin, settled, task
from tests.service.test_stores import read

SOURCE = "99999999-9999-9999-9999-999999999999"
DATA = b"the data of an image elsewhere" * 10_000
SHA512 = hashlib.sha512(DATA).hexdigest()
RECORD: dict[str, object] = {
    "id": SOURCE, "status": "active", "size": len(DATA), "disk_format": "ploop",
    "container_format": "bare", "os_hash_algo": "sha512", "os_hash_value": SHA512,
    "checksum": hashlib.md5(DATA, usedforsecurity=False).hexdigest(), "name": "theirs",
    "owner": "them", "visibility": "public", "hw_disk_bus": "virtio", "os_type": "linux",
    "note": "not taken", "os_hidden": False, "os_glance_import_task": "theirs",
}  # fmt: skip


@dataclass
class Region:
    """An image service with one image, and what it was asked."""

    record: dict[str, object] = field(default_factory=lambda: dict(RECORD))
    data: bytes = DATA
    cut: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    def __call__(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Each transfer breaks off after as many bytes as ``cut`` says next."""
        token, byte_range = handler.headers["X-Auth-Token"], handler.headers["Range"]
        self.asked.append((handler.path, token, byte_range))
        if not handler.path.endswith("/file"):
            body = json.dumps(self.record).encode()
            handler.send_response(HTTPStatus.OK)
            self._send(handler, body, body)
            return
        start = int(byte_range.removeprefix("bytes=").removesuffix("-")) if byte_range else 0
        left = self.data[start:]
        handler.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        if start:
            end, size = len(self.data) - 1, len(self.data)
            handler.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self._send(handler, left, left[: self.cut.pop(0)] if self.cut else left)

    def _send(self, handler: http.server.BaseHTTPRequestHandler, whole: bytes, sent: bytes) -> None:
        handler.send_header("Content-Length", str(len(whole)))
        handler.end_headers()
        with suppress(OSError):
            handler.wfile.write(sent)


def catalog(url: str, *, old: bool = False) -> str:
    """As Keystone has it, or as the middleware hands it on; the region's port is behind ``url``."""
    if old:
        endpoints = [{"region": "East", "publicURL": url, "internalURL": None, "adminURL": url}]
    else:
        endpoints = [
            {"region": "East", "region_id": "East", "interface": each, "url": url}
            for each in ("public", "admin")
        ]
    nova = {"type": "compute", "endpoints": [{"region": "East", "publicURL": "http://nova/"}]}
    return json.dumps([nova, {"type": "image", "name": "glance", "endpoints": endpoints}])


@contextmanager
def region(answer: Answer, certificate: Path | None = None) -> Iterator[Context]:
    """A caller in whose catalog the region East is."""
    with origin(answer, certificate) as url:
        found = catalog(url.removesuffix("/image"))
        yield Context(Viewer(is_admin=True), token="hush", catalog=found)


REQUEST = ImportRequest(
    "glance-download",
    remote=RemoteImage("east", SOURCE),
    given={"method": {"name": "glance-download", "token": "hush"}, "stores": None},
)


def downloaded(
    service: Service, answer: Answer, certificate: Path | None = None, **values: object
) -> Image:
    image_id = service.record(name="ours", **values)
    with region(answer, certificate) as caller:
        service.imports.begin(caller, image_id, REQUEST)
        return settled(service, image_id)


def test_an_image_is_taken_with_its_formats_and_some_properties(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    east = Region()
    image = downloaded(service, east, note="ours")
    assert (image.status, image.size) == (Status.ACTIVE, len(DATA))
    assert (image.name, image.disk_format, image.container_format) == ("ours", "ploop", "bare")
    assert (image.owner, image.visibility, image.os_hidden) == (None, "shared", False)
    taken = {"hw_disk_bus": "virtio", "os_type": "linux"}
    assert image.properties == {"note": "ours", **taken}
    assert image.os_hash_algo == "sha256"
    assert read(service, image.id)[1] == DATA
    assert east.asked == [
        (f"/v2/images/{SOURCE}", "hush", None), (f"/v2/images/{SOURCE}/file", "hush", None)
    ]  # fmt: skip
    done = task(service, image.id)
    assert (done.status, done.result) == (TaskStatus.SUCCESS, {"image_id": image.id})
    assert isinstance(done.input, dict)
    assert done.input["import_req"]["method"] == {
        "name": "glance-download",
        "glance_region": "east",
        "glance_image_id": SOURCE,
        "glance_service_interface": "public",
    }
    assert "hush" not in f"{done} {caplog.text}"


def test_a_broken_connection_is_taken_up_again(service: Service) -> None:
    east = Region(cut=[70_000, 0, 100_000])
    image = downloaded(service, east)
    assert (image.status, read(service, image.id)[1]) == (Status.ACTIVE, DATA)
    assert [byte_range for *_, byte_range in east.asked[2:]] == [
        "bytes=70000-", "bytes=70000-", "bytes=170000-"
    ]  # fmt: skip


def test_only_a_region_whose_certificate_is_trusted_is_told_the_token(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, east = certificates.make(tmp_path / "both.pem"), Region(cut=[70_000])
    assert downloaded(service, east, certificate).status is Status.QUEUED
    assert east.asked == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    image = downloaded(service, east, certificate)
    assert (image.status, read(service, image.id)[1]) == (Status.ACTIVE, DATA)


def changed(**values: object) -> Callable[[], Answer]:
    return lambda: Region({**RECORD, **values})


@pytest.mark.parametrize(
    "answer",
    [
        changed(status="queued"),
        changed(status="deactivated"),
        changed(size=None),
        changed(size=len(DATA) - 1),
        changed(size=len(DATA) + 1),
        changed(size=1 << 40),
        changed(disk_format=None),
        changed(disk_format="floppy"),
        changed(disk_format="qcow2"),
        changed(os_hash_value="0" * 128),
        changed(os_hash_algo=None, os_hash_value=None, checksum="0" * 32),
        changed(hw_disk_bus=1),
        changed(hw_a="a", hw_b="b", hw_c="c"),
        changed(id="11111111-1111-1111-1111-111111111111"),
        lambda: Region({**RECORD, "disk_format": "qcow2"}, qcow2(backing_offset=512)),
        lambda: lambda handler: handler.send_error(404),
        lambda: lambda handler: handler.wfile.write(b"what?\r\n\r\n"),
    ],
    ids=[
        "queued", "deactivated", "no size", "more", "less", "over the cap", "no format",
        "unknown format", "another format", "os_hash", "checksum", "a number", "quota",
        "another image", "OSSA-2015-014 backing file",
         "404", "no HTTP",
    ],
)  # fmt: skip
def test_what_is_not_right_leaves_nothing(service: Service, answer: Callable[[], Answer]) -> None:
    image = downloaded(service, answer(), note="ours")
    assert (image.status, image.size) == (Status.QUEUED, None)
    assert (image.disk_format, image.properties) == ("raw", {"note": "ours"})
    assert nothing_left(service)
    failed = task(service, image.id)
    assert failed.status is TaskStatus.FAILURE
    assert failed.message
    assert "127.0.0.1" not in failed.message


def test_what_a_region_says_is_bounded(service: Service) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        body = ("no \U0001f600" * 5000).encode()
        handler.send_response(HTTPStatus.FORBIDDEN)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    image = downloaded(service, answer)
    message = task(service, image.id).message
    assert (message.startswith("no ?no ?"), len(message)) == (True, 1000)


def test_ossa_2026_004_no_redirect_is_followed(service: Service) -> None:
    asked = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        handler.send_response(HTTPStatus.FOUND)
        handler.send_header("Location", f"http://{handler.headers['Host']}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    assert downloaded(service, answer).status is Status.QUEUED
    assert asked == [f"/v2/images/{SOURCE}"]


def test_ossa_2014_028_more_than_was_announced_is_not_taken(service: Service) -> None:
    east, sent = Region(), []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if not handler.path.endswith("/file"):
            east(handler)
            return
        handler.send_response(HTTPStatus.OK)
        handler.end_headers()  # of a body until the connection's end
        with suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(bytes(1 << 20))
                sent.append(1)

    image = downloaded(service, answer)
    assert (image.status, nothing_left(service)) == (Status.QUEUED, True)
    assert len(sent) < 100


def test_data_goes_to_all_stores(several: Service) -> None:
    image_id = several.record()
    with region(Region()) as caller:
        wanted = ImportRequest(REQUEST.method, remote=REQUEST.remote, all_stores=True)
        several.imports.begin(caller, image_id, wanted)
        image = settled(several, image_id)
    assert [each.metadata["store"] for each in image.locations] == ["fast", "cheap"]
    assert image.disk_format == "ploop"
    for place in (several.datadir, several.datadir.parent / "cheap"):
        assert (place / image_id).read_bytes() == DATA


def test_what_a_region_is(service: Service) -> None:
    regions = Regions({"West": "http://west:1/"}, (), lambda _, value: value, -1, 1.0)
    nobody = Context(Viewer(is_admin=True))
    assert regions.source(nobody, RemoteImage("west", SOURCE)).endpoint == "http://west:1/"
    for text in (catalog("http://east:2/"), catalog("http://east:2/", old=True)):
        caller = Context(Viewer(is_admin=True), token="hush", catalog=text)
        for interface in ("public", "admin"):
            source = regions.source(caller, RemoteImage("EAST", SOURCE, interface))
            assert source.endpoint == "http://east:2/"
            assert "hush" not in repr(source)
        for region_name, interface in (("north", "public"), ("east", "internal"), ("", "public")):
            with pytest.raises(errors.BadRequest):
                regions.source(caller, RemoteImage(region_name, SOURCE, interface))
    for text in ("", "no JSON", "{}", '[{"type": "image", "endpoints": 1}]'):
        caller = Context(Viewer(is_admin=True), catalog=text)
        with pytest.raises(errors.BadRequest):
            regions.source(caller, RemoteImage("east", SOURCE))
    image_id = service.record()
    with pytest.raises(errors.BadRequest):
        service.imports.begin(nobody, image_id, REQUEST)
    assert service.images.show(nobody, image_id).status is Status.QUEUED


def test_a_region_whose_address_is_none() -> None:
    with pytest.raises(errors.ConfigurationError):
        Regions({"west": "west.example.com"}, (), lambda _, value: value, -1, 1.0)
