"""What the cluster of these tests is good for: images, and the gateway's two APIs."""

import base64
import hashlib
import hmac
import http.client
import signal
from email.utils import formatdate

import pytest

from tools.ceph import USER, Ceph, Gateway

pytestmark = pytest.mark.ceph


def test_the_services_user_has_images_and_nothing_else(ceph: Ceph) -> None:
    pool = ceph.new_pool()
    ceph.rbd("--id", USER, "create", f"{pool}/image", "--size", "8M")
    assert ceph.rbd("--id", USER, "ls", pool) == "image\n"
    with pytest.raises(RuntimeError, match=r"EACCES|Permission denied"):
        ceph.ceph("--id", USER, "osd", "pool", "create", "another")


def test_what_is_written_outlives_an_osd_that_is_killed(ceph: Ceph) -> None:
    pool = ceph.new_pool()
    ceph.rbd("create", f"{pool}/image", "--size", "8M")
    ceph.rbd("snap", "create", f"{pool}/image@snap", "--no-progress")
    ceph.signal("osd", signal.SIGKILL)
    ceph.start("osd")
    ceph.wait_for_osd()
    assert "snap" in ceph.rbd("snap", "ls", f"{pool}/image")


def test_the_gateway_speaks_s3(ceph: Ceph) -> None:
    gateway = ceph.gateway()
    assert _s3(gateway, "PUT", "/bucket")[0] == 200
    assert _s3(gateway, "PUT", "/bucket/key", b"data")[0] == 200
    assert _s3(gateway, "GET", "/bucket/key") == (200, b"data")


def test_the_gateway_speaks_swift(ceph: Ceph) -> None:
    gateway = ceph.gateway()
    user = {"X-Auth-User": gateway.swift_user, "X-Auth-Key": gateway.swift_key}
    status, headers, _ = _ask(gateway, "GET", "/auth/v1.0", headers=user)
    assert status == 204
    assert headers["X-Storage-Url"] == f"{gateway.url}/swift/v1"
    token = {"X-Auth-Token": headers["X-Auth-Token"]}
    assert _ask(gateway, "PUT", "/swift/v1/container", headers=token)[0] == 201
    assert _ask(gateway, "PUT", "/swift/v1/container/object", b"data", token)[0] == 201
    assert _ask(gateway, "GET", "/swift/v1/container/object", headers=token)[2] == b"data"


def _s3(gateway: Gateway, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """A request with a signature of version 2, which takes a line to make."""
    date = formatdate(usegmt=True)
    text = f"{method}\n\n\n{date}\n{path}".encode()
    signed = base64.b64encode(hmac.digest(gateway.secret_key.encode(), text, hashlib.sha1)).decode()
    headers = {"Date": date, "Authorization": f"AWS {gateway.access_key}:{signed}"}
    status, _, data = _ask(gateway, method, path, body, headers)
    return status, data


def _ask(
    gateway: Gateway,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()
