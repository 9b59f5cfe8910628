"""The few requests of the Image API that prepare and check a measurement, on any server."""

import http.client
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.cpu import Server
from headrace.client import Connection, Images

GUARD = 300.0
_JSON = {"Content-Type": "application/json"}


def request(
    server: Server,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> bytes:
    """Make one request on a connection of its own; its answer's body.

    Raises RuntimeError unless the answer is a success.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {data[:500]!r}")
    return data


def create(server: Server, name: str = "bench") -> str:
    """Create an image record; its id."""
    body = {"name": name, "disk_format": "raw", "container_format": "bare"}
    found = json.loads(request(server, "POST", "/v2/images", json.dumps(body).encode(), _JSON))
    return str(found["id"])


def show(server: Server, image_id: str) -> dict[str, Any]:
    image: dict[str, Any] = json.loads(request(server, "GET", f"/v2/images/{image_id}"))
    return image


def delete(server: Server, image_id: str) -> None:
    request(server, "DELETE", f"/v2/images/{image_id}")


def data_path(image_id: str) -> str:
    return f"/v2/images/{image_id}/file"


def put(server: Server, source: Path, store: str | None = None) -> str:
    """An image with the data of ``source``, in the default store or another; its id."""
    image = create(server)
    with Connection(f"http://127.0.0.1:{server.port}", timeout=GUARD) as connection:
        Images(connection).upload(image, source, store=store)
    require_active(server, image, source.stat().st_size)
    return image


def require_active(server: Server, image_id: str, size: int) -> dict[str, Any]:
    """The image, which must have become active with ``size`` bytes."""
    deadline = time.monotonic() + GUARD
    while True:
        image = show(server, image_id)
        if (image["status"], image["size"]) == ("active", size):
            return image
        if time.monotonic() > deadline or image["status"] not in ("queued", "saving"):
            raise RuntimeError(f"image {image_id} is {image['status']}, {image['size']} bytes")
        time.sleep(0.05)
