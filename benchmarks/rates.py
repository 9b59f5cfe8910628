"""How many requests a second one client gets answered, one after the other on one connection.

The client does next to nothing, so that what is measured is not it.
"""

import socket
import time
from collections.abc import Iterable

from benchmarks.cpu import Server

_TIMEOUT = 60.0


def get(path: str) -> bytes:
    """A request for JSON."""
    return _request("GET", path, b"")


def post(path: str, body: bytes) -> bytes:
    """A request with JSON."""
    return _request("POST", path, body)


def _request(method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def rate(server: Server, requests: Iterable[bytes], status: int) -> float:
    """Answers a second; raises RuntimeError for one with another status."""
    count = 0
    connection = _connect(server)
    began = time.monotonic()
    for request in requests:
        connection.sendall(request)
        if not _answered(connection, status):
            connection.close()
            connection = _connect(server)
        count += 1
    spent = time.monotonic() - began
    connection.close()
    return count / spent


def _connect(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), _TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _answered(connection: socket.socket, status: int) -> bool:
    """Reads an answer; whether the connection stays."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if first.split()[1] != str(status):
        raise RuntimeError(f"{first}: {body[:300]!r}")
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    left = int(fields["content-length"]) - len(body)
    while left > 0:
        left -= len(_more(connection))
    return first.startswith("HTTP/1.1") and fields.get("connection", "").lower() != "close"


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise RuntimeError("the server closed the connection in an answer")
    return data
