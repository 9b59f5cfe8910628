"""As much of an identity service as `openstack image add project` asks: every project exists."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        base = f"http://{self.headers['Host']}/v3"
        links = [{"rel": "self", "href": base}]
        document: dict[str, object] = {
            "version": {"id": "v3.14", "status": "stable", "links": links}
        }
        if self.path.startswith("/v3/projects/"):
            document = {"project": {"id": self.path.rpartition("/")[2]}}
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *_: object) -> None:
        """Not on stderr, among the tests' own output."""


@contextmanager
def identity() -> Iterator[str]:
    """The service's URL, while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v3"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
