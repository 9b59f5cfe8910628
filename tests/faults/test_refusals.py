"""What must not get in: names that are paths, content that lies, requests inside of bodies."""

import json
from contextlib import suppress
from urllib.parse import quote

import pytest

from tests.deploy.wire import Answer, Wire
from tests.faults.service import BLOCK, Service
from tests.image_files import qcow2

OCTETS = "Content-Type: application/octet-stream"
UNKNOWN = "00000000-0000-0000-0000-00000000dead"

# --- names that are paths

IDS = [
    "..", ".", "../headrace.db", "../../../../../../etc/passwd", "/etc/passwd", "..\\headrace.db",
    "a\0b", "\0", "é", "x" * 37, "x" * 4000, "-", "*", "%", "images", ".headrace-x.part",
    f"{UNKNOWN}/../../headrace.db", f"{UNKNOWN}\n", f" {UNKNOWN}", f"{{{UNKNOWN}}}",
]  # fmt: skip


@pytest.mark.parametrize("name", IDS, ids=lambda name: ascii(name)[:40])
@pytest.mark.parametrize("target", ["/v2/images/{}", "/v2/images/{}/file"])
def test_a_name_is_never_a_path(service: Service, name: str, target: str) -> None:
    """Every coding of it is an unknown image: nothing is read, written or removed."""
    before = sorted(service.server.state_dir.glob("*"))
    codings = {quote(name, safe=""), quote(quote(name, safe=""), safe="")}
    if name.isascii() and name.isprintable() and " " not in name and "%" not in name:
        codings.add(name)
    for coded in codings:
        path = target.format(coded)
        for method, fields in (
            ("GET", ()),
            ("DELETE", ()),
            ("PUT", (OCTETS,)),
            ("PATCH", ("Content-Type: application/openstack-images-v2.1-json-patch",)),
        ):
            body = b"[]" if method in ("PUT", "PATCH") else b""
            answer = service.request(method, path, *fields, body=body)
            assert answer.status in (400, 404, 405), (method, path, answer.status)
            assert b"root:" not in answer.body
    assert sorted(service.server.state_dir.glob("*")) == before
    service.check_store([])


@pytest.mark.parametrize("name", IDS, ids=lambda name: ascii(name)[:40])
def test_an_image_gets_no_such_id(service: Service, name: str) -> None:
    record = json.dumps({"id": name, "disk_format": "raw", "container_format": "bare"})
    assert service.request("POST", "/v2/images", body=record.encode()).status == 400


# --- content that is not what it is said to be


def test_refused_content_is_removed(service: Service) -> None:
    """Neither bytes nor digests of it stay, and the image takes what is right."""
    image_id = service.create(disk_format="qcow2")
    with service.one_complaint(image_id, "raw"):
        answer = service.upload(image_id, b"certainly no qcow2" * BLOCK)
        assert answer.status == 415
        assert answer.headers["x-headrace-error"] == "upload.format_mismatch"
    image = service.show(image_id)
    assert (image["status"], image["size"], image["checksum"]) == ("queued", None, None)
    assert image["os_hash_value"] is None
    assert service.request("GET", f"/v2/images/{image_id}/file").status == 204
    assert image_id not in service.files()
    good = qcow2()
    assert service.upload(image_id, good).status == 204
    assert service.request("GET", f"/v2/images/{image_id}/file").body == good
    service.check_store([image_id])


@pytest.mark.parametrize(
    "content",
    [qcow2(backing_offset=512), qcow2(incompatible=1 << 2), qcow2(version=4)],
    ids=["backing file", "data file", "unknown version"],
)
@pytest.mark.parametrize("declared", ["raw", "qcow2"])
def test_dangerous_content_is_refused(service: Service, content: bytes, declared: str) -> None:
    """Whatever it is declared as: what reads it later looks at the content (OSSA-2024-001)."""
    image_id = service.create(disk_format=declared)
    with service.one_complaint(image_id):
        answer = service.upload(image_id, content)
        assert answer.status == 415
        assert answer.headers["x-headrace-error"] == "upload.unsafe_image"
    assert service.request("GET", f"/v2/images/{image_id}/file").status == 204
    if declared == "raw":
        service.check_released(image_id)


# --- requests from elsewhere, while nobody has to say who he is

ELSEWHERE = [
    "Forwarded: for=192.0.2.1",
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-Host: localhost",
    "X-Forwarded-Proto: https",
    "Via: 1.1 proxy",
    "X-Real-IP: 192.0.2.1",
    "X-Client-IP: 192.0.2.1",
    "Origin: http://attacker.example",
    "Origin: null",
    "Origin: http://localhost:1",
]


@pytest.mark.parametrize("field", ELSEWHERE)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_passed_on_or_from_a_web_page(service: Service, field: str, method: str) -> None:
    answer = service.request(method, "/v2/images", field, body=b"{}" if method == "POST" else b"")
    assert answer.status == 403
    assert answer.headers["x-headrace-error"] == "access.remote_without_auth"
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "host", ["attacker.example", "192.0.2.1", "localhost.attacker.example", "127.0.0.1.example", ""]
)
def test_another_host(service: Service, host: str) -> None:
    """A name that an attacker's DNS points at this machine (rebinding)."""
    with service.connect() as wire:
        wire.send(f"GET /v2/images HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        assert wire.answer().status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3", "[::1]:80"])
def test_this_host(service: Service, host: str) -> None:
    with service.connect() as wire:
        wire.send(f"GET /v2/images HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        assert wire.answer().status == 200


# --- requests inside of bodies


def inner(victim: str) -> bytes:
    head = f"DELETE /v2/images/{victim} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    return head.encode()


def answers(wire: Wire) -> list[Answer]:
    """Every answer until the connection ends."""
    found = []
    try:
        while True:
            found.append(wire.answer("PUT"))
    except (EOFError, ConnectionResetError):
        return found


@pytest.fixture
def victim(service: Service) -> str:
    return service.active(b"precious")


@pytest.mark.parametrize("padding", [0, 60_000, 4 * BLOCK], ids=["small", "drained", "large"])
@pytest.mark.parametrize("framing", ["plain", "chunked"])
@pytest.mark.parametrize("why", ["active", "unknown", "no type", "403", "no method"])
def test_a_refused_body_is_never_a_request(
    service: Service, victim: str, padding: int, framing: str, why: str
) -> None:
    target = f"/v2/images/{UNKNOWN if why == 'unknown' else victim}/file"
    fields = [] if why == "no type" else [OCTETS]
    if why == "403":
        fields.append("Via: 1.1 proxy")
    method = "POST" if why == "no method" else "PUT"
    body = inner(victim) + b"x" * padding + inner(victim)
    if framing == "chunked":
        fields.append("Transfer-Encoding: chunked")
        # The size line is a request's end, too: the chunk's data starts where a request would.
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        fields.append(f"Content-Length: {len(body)}")
        sent = body
    with service.connect() as wire:
        wire.send(wire.head(method, target, *fields))
        # It may hang up on a body it does not want.
        with suppress(BrokenPipeError, ConnectionResetError):
            wire.send(sent, wire.head("GET", "/healthcheck", "Connection: close"))
        found = answers(wire)
    expected = {"active": 409, "unknown": 404, "no type": 415, "403": 403, "no method": 405}[why]
    assert [answer.status for answer in found] in ([expected], [expected, 200])
    if len(found) == 1:
        assert found[0].closes, "hung up without saying so"
    assert service.status(victim) == "active"
    service.delete(victim)


@pytest.mark.parametrize("fields", [
    ("Content-Length: 5", "Transfer-Encoding: chunked"),
    ("Content-Length: 5", "Content-Length: 6"),
    ("Content-Length: +5",),
    ("Content-Length: 0x5",),
    ("Content-Length: -1",),
    ("Content-Length: 99999999999999999999999",),
    ("Transfer-Encoding: chunked, identity",),
    ("Transfer-Encoding: xchunked",),
    ("Transfer-Encoding: identity",),
    ("Transfer-Encoding : chunked",),
    ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
], ids=" ".join)  # fmt: skip
def test_ambiguous_framing_is_refused(
    service: Service, victim: str, fields: tuple[str, ...]
) -> None:
    image_id = service.create()
    with service.connect() as wire:
        wire.send(wire.head("PUT", f"/v2/images/{image_id}/file", OCTETS, *fields))
        wire.send(b"0\r\n\r\n", inner(victim))
        found = answers(wire)
    assert len(found) == 1
    assert found[0].status in (400, 413, 501), found[0].status
    assert service.status(victim) == "active"
    assert service.status(image_id) == "queued"
    service.check_store([])


def test_a_body_where_none_belongs(service: Service, victim: str) -> None:
    body = inner(victim)
    with service.connect() as wire:
        assert wire.request("GET", f"/v2/images/{victim}", body=body).status == 400
        assert wire.request("GET", "/healthcheck").status == 200
    assert service.status(victim) == "active"


# --- Expect: 100-continue


def test_a_body_is_asked_for_only_when_it_is_wanted(service: Service, victim: str) -> None:
    for image_id, status in ((victim, 409), (UNKNOWN, 404)):
        with service.connect() as wire:
            length = f"Content-Length: {BLOCK}"
            path = f"/v2/images/{image_id}/file"
            wire.send(wire.head("PUT", path, OCTETS, length, "Expect: 100-continue"))
            answer = wire.read_head()
            assert (answer.status, answer.closes) == (status, True)

    image_id = service.create()
    with service.connect() as wire:
        path = f"/v2/images/{image_id}/file"
        wire.send(wire.head("PUT", path, OCTETS, "Content-Length: 4", "Expect: 100-continue"))
        assert wire.read_head().status == 100
        assert service.status(image_id) == "saving"
        wire.send(b"data")
        assert wire.answer("PUT").status == 204
        assert wire.request("GET", path).body == b"data"
