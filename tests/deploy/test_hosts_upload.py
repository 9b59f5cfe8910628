"""Uploads on the wire: one list of checks, every host."""

import contextlib
import json
import os

import pytest

from tests.deploy.conftest import MIB, OCTETS, Deployed, path
from tests.deploy.wire import Answer, Wire
from tests.faults.service import wait_until

pytestmark = pytest.mark.slow

SIZE = 5 * MIB + 7

# Hosts that answer `Expect: 100-continue` themselves, before anybody has looked at the request.
# nginx does when it passes on, unbuffered, what Headrace did not let it receive.
EAGER = {
    "gunicorn-gthread",
    "gunicorn-sync",
    "mod_wsgi-daemon",
    "mod_wsgi-daemon-x-sendfile",
    "nginx",
}
SMUGGLED = b"GET /v2/images?smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def chunked(data: bytes, size: int) -> bytes:
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(block), block) for block in blocks) + b"0\r\n\r\n"


def put(wire: Wire, image: str, data: bytes, chunk: int | None, *fields: str) -> Answer:
    if chunk is None:
        fields = (*fields, f"Content-Length: {len(data)}")
        body = data
    else:
        fields = (*fields, "Transfer-Encoding: chunked")
        body = chunked(data, chunk)
    wire.send(wire.head("PUT", path(image), OCTETS, *fields))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.send(body)  # it may be refused already; the answer is there all the same
    return wire.answer("PUT")


def follows(wire: Wire, deployed: Deployed, image: str) -> None:
    """The next answer, if the connection goes on, is that to the next request and no other."""
    try:
        answer = wire.request("GET", f"/v2/images/{image}")
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return
    assert answer.status == 200, answer
    assert answer.json["id"] == image


@pytest.mark.parametrize("chunk", [None, 1000, 64 << 10, MIB], ids=lambda size: f"chunks {size}")
def test_an_upload_arrives_whole(deployed: Deployed, chunk: int | None) -> None:
    data = os.urandom(SIZE if chunk != 1000 else 300_001)
    image = deployed.create()
    with deployed.connect() as wire:
        answer = put(wire, image, data, chunk)
        assert (answer.status, answer.body) == (204, b""), deployed.host.logs()
        follows(wire, deployed, image)
    record = deployed.ask("GET", f"/v2/images/{image}").json
    assert (record["status"], record["size"]) == ("active", len(data))
    assert deployed.ask("GET", path(image)).body == data


@pytest.mark.parametrize("chunk", [None, 1], ids=["plain", "chunked"])
@pytest.mark.parametrize("data", [b"", b"1"], ids=["empty", "one byte"])
def test_a_small_upload(deployed: Deployed, data: bytes, chunk: int | None) -> None:
    image = deployed.create()
    with deployed.connect() as wire:
        assert put(wire, image, data, chunk).status == 204
        follows(wire, deployed, image)
    assert deployed.ask("GET", f"/v2/images/{image}").json["size"] == len(data)
    assert deployed.ask("GET", path(image)).body == data


@pytest.mark.parametrize("chunk", [None, 64 << 10], ids=["plain", "chunked"])
@pytest.mark.parametrize("size", [100, 3 * MIB])
def test_a_refused_upload_is_no_request(deployed: Deployed, size: int, chunk: int | None) -> None:
    """The image has data already; the body looks like requests, which nobody may take it for."""
    stored = deployed.stored()
    image = deployed.whole
    data = (SMUGGLED * (size // len(SMUGGLED) + 1))[:size]
    with deployed.connect() as wire:
        answer = put(wire, image, data, chunk)
        assert (answer.status, answer.headers["x-headrace-error"]) == (
            409,
            "image.status_conflict",
        )
        follows(wire, deployed, image)
    assert set(deployed.stored()) <= {*stored, image}
    assert deployed.ask("GET", path(image)).body == deployed.data


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Content-Type: text/plain"], 415),
        ([OCTETS, "x-openstack-image-size: 12"], 400),
        ([OCTETS, "x-openstack-image-size: many"], 400),
    ],
)
def test_a_refusal_has_its_own_status(deployed: Deployed, fields: list[str], status: int) -> None:
    image = deployed.create()
    answer = deployed.ask("PUT", path(image), *fields, body=b"x" * 1000)
    assert answer.status == status
    assert deployed.status(image) == "queued"
    assert image not in deployed.stored()


def test_an_upload_to_nowhere(deployed: Deployed) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    assert deployed.ask("PUT", path(unknown), OCTETS, body=b"x" * 1000).status == 404
    assert unknown not in deployed.stored()


def test_data_of_another_format_is_not_kept(deployed: Deployed) -> None:
    """Refused when all of it has arrived."""
    before = deployed.stored()
    image = deployed.create(disk_format="qcow2")
    answer = deployed.ask("PUT", path(image), OCTETS, body=os.urandom(MIB))
    assert (answer.status, answer.headers["x-headrace-error"]) == (415, "upload.format_mismatch")
    assert deployed.status(image) == "queued"
    wait_until(lambda: deployed.stored() == before, "the removal of what was uploaded")


@pytest.mark.parametrize("chunk", [None, 64 << 10], ids=["plain", "chunked"])
def test_an_upload_that_breaks_off(deployed: Deployed, chunk: int | None) -> None:
    before = deployed.stored()
    image = deployed.create()
    with deployed.connect() as wire:
        if chunk is None:
            wire.send(wire.head("PUT", path(image), OCTETS, f"Content-Length: {SIZE}"))
            wire.send(bytes(3 * MIB))
        else:
            wire.send(wire.head("PUT", path(image), OCTETS, "Transfer-Encoding: chunked"))
            wire.send(chunked(bytes(3 * MIB), chunk)[: 2 * MIB])
        wait_until(lambda: deployed.stored() != before or deployed.open_images() != [], "its start")
    wait_until(lambda: deployed.status(image) == "queued", "its end")
    wait_until(lambda: deployed.stored() == before, "the removal of what had arrived")
    wait_until(lambda: not deployed.open_images(), "the end of every descriptor")
    assert deployed.ask("PUT", path(image), OCTETS, body=b"again").status == 204


def test_a_client_that_asks_first(deployed: Deployed) -> None:
    """``Expect: 100-continue``: refused, it need not send anything; else it is told to go on."""
    with deployed.connect() as wire:
        fields = (OCTETS, f"Content-Length: {SIZE}", "Expect: 100-continue")
        wire.send(wire.head("PUT", path(deployed.whole), *fields))
        answer = wire.read_head()
        assert answer.status == (100 if deployed.host.name in EAGER else 409)
    image, data = deployed.create(), os.urandom(1000)
    with deployed.connect() as wire:
        fields = (OCTETS, f"Content-Length: {len(data)}", "Expect: 100-continue")
        wire.send(wire.head("PUT", path(image), *fields), data)
        answer = wire.read_head()
        while answer.status == 100:
            answer = wire.read_head()
        assert answer.status == 204
    assert deployed.ask("GET", path(image)).body == data


def test_json_in_chunks(deployed: Deployed) -> None:
    body = json.dumps({"name": "in chunks"}).encode()
    with deployed.connect() as wire:
        wire.send(wire.head("POST", "/v2/images", "Transfer-Encoding: chunked"), chunked(body, 7))
        answer = wire.answer("POST")
    assert (answer.status, answer.json["name"]) == (201, "in chunks")


def test_nobody_else_can_say_what_nginx_says(deployed: Deployed) -> None:
    """A client that names a file of the store as its upload gets it from no host."""
    theft = deployed.host.image_dir / ".headrace-uploads" / "0000000001"
    image = deployed.create()
    fields = (
        OCTETS,
        "X-Headrace-Upload: file",
        f"X-Headrace-Upload-File: {theft}",
        "X-Headrace-Upload-Length: 1",
    )
    answer = deployed.ask("PUT", path(image), *fields, body=b"mine")
    if deployed.host.name in ("nginx", "apache", "haproxy"):  # who keep such words back
        assert answer.status == 204
        assert deployed.ask("GET", path(image)).body == b"mine"
    else:
        assert answer.status == 400
        assert deployed.status(image) == "queued"
