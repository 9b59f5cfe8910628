"""An origin to fetch from: an HTTP server of this process, with data and manners to order."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Origin:
    """``data`` by path; ``heads`` are further headers by path, ``statuses`` other statuses.

    What it was asked is in ``asked``: method, path and headers.
    """

    port: int = 0
    scheme: str = "http"
    host: str = "127.0.0.1"
    data: dict[str, bytes] = field(default_factory=dict)
    heads: dict[str, dict[str, str]] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    announced: int | None = None
    pieces: Callable[[bytes], Iterable[bytes]] = lambda data: (data,)
    """How data is sent; an error breaks it off."""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.host}:{self.port}{path}"

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        self.data[path] = b""
        self.statuses[path] = status
        self.heads[path] = {"Location": to}


def _handler(origin: Origin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            origin.asked.append((self.command, self.path, dict(self.headers)))
            data = origin.data.get(self.path)
            if data is None:
                self.send_error(404)
                return
            status = origin.statuses.get(self.path, 200)
            asked = self.headers.get("Range")
            total = len(data)
            if asked and origin.ranges and status == 200:
                first, last = map(int, asked.removeprefix("bytes=").split("-"))
                status, data = 206, data[first : last + 1]
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
            heads = origin.heads.get(self.path, {})
            if "Transfer-Encoding" not in heads:
                length = len(data) if origin.announced is None else origin.announced
                self.send_header("Content-Length", str(length))
            for name, value in heads.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in origin.pieces(data):
                    self.wfile.write(piece)
            except OSError:
                self.close_connection = True

    return Handler


@contextlib.contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[Origin]:
    """An origin on a loopback port, with TLS if there is a context for it."""
    origin = Origin()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(origin))
    server.daemon_threads = True
    if tls is not None:
        origin.scheme = "https"
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    origin.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield origin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
