"""Images of other regions and of tasks, asked for by python-glanceclient.

The regions have a real Glance 33, and a Headrace.
"""

import hashlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from benchmarks import glance
from tests.compat.conftest import Clients, Finished
from tests.needs import require_environment
from tests.several_stores import several_stores
from tools.serving import Serving, serving

pytestmark = pytest.mark.slow

GUARD = 60.0  # seconds; a hang guard
RECORD = {"name": "theirs", "disk_format": "raw", "container_format": "bare", "os_type": "linux"}


@contextmanager
def regions(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The services of the regions east, a Glance, and west, a Headrace."""
    require_environment(".venv-glance")
    directory = tmp_path / "glance"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    glance.prepare(directory, port)
    with glance.serving(directory) as east, serving(tmp_path / "west") as west:
        yield {"east": east.url, "west": west.url}


def ask(url: str, method: str = "GET", data: bytes | None = None, kind: str = "json") -> Any:
    headers = {"Content-Type": f"application/{kind}"}
    with urlopen(Request(url, data, headers, method=method), timeout=GUARD) as answer:
        return json.loads(answer.read() or b"null")


def client(clients: Clients, server: Serving, *words: str) -> Finished:
    return clients.run("glance", "--os-image-url", server.url, "--os-auth-token", "t", *words)


def ended(server: Serving, path: str) -> Any:
    """A task once it has."""
    deadline = time.monotonic() + GUARD
    while (found := ask(f"{server.url}{path}"))["status"] in ("pending", "processing"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_an_image_of_another_region(clients: Clients, image_file: Path, tmp_path: Path) -> None:
    with regions(tmp_path) as there:
        env = {
            "OS_DEFAULT__ENABLED_IMPORT_METHODS": "[glance-download]",
            "OS_HEADRACE__GLANCE_REGIONS": ",".join(f"{k}:{v}" for k, v in there.items()),
        }
        with serving(tmp_path / "here", env=env) as here:
            for region, url in there.items():
                image_id = ask(f"{url}/v2/images", "POST", json.dumps(RECORD).encode())["id"]
                file = f"{url}/v2/images/{image_id}/file"
                ask(file, "PUT", image_file.read_bytes(), "octet-stream")
                source = ask(f"{url}/v2/images/{image_id}")
                record = {"disk_format": "iso", "container_format": "bare"}
                ours = ask(f"{here.url}/v2/images", "POST", json.dumps(record).encode())["id"]
                done = client(
                    clients, here, "image-import", ours, "--import-method", "glance-download",
                    "--remote-region", region, "--remote-image-id", image_id,
                )  # fmt: skip
                assert done.status == 0, done.stderr
                (task,) = ask(f"{here.url}/v2/images/{ours}/tasks")["tasks"]
                assert ended(here, f"/v2/tasks/{task['id']}")["status"] == "success"
                found = ask(f"{here.url}/v2/images/{ours}")
                for name in ("size", "checksum", "os_hash_value", "disk_format", "os_type"):
                    assert found[name] == source[name]
                data = (here.image_dir / ours).read_bytes()
                assert hashlib.sha512(data).hexdigest() == source["os_hash_value"]


@contextmanager
def origin(data: bytes) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/image"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_task_makes_an_image(clients: Clients, image_file: Path, tmp_path: Path) -> None:
    here, data = tmp_path / "here", image_file.read_bytes()
    with origin(data) as uri, serving(here, env=several_stores(here)) as server:
        wanted = {
            "import_from": uri,
            "import_from_format": "raw",
            "image_properties": {"name": "made", "container_format": "bare", "disk_format": "raw"},
        }
        words = ("task-create", "--type", "import", "--input", json.dumps(wanted))
        done = client(clients, server, *words)
        assert done.status == 0, done.stderr
        (listed,) = ask(f"{server.url}/v2/tasks?type=import")["tasks"]
        task = ended(server, f"/v2/tasks/{listed['id']}")
        assert task["status"] == "success", task["message"]
        image_id = task["result"]["image_id"]
        image = ask(f"{server.url}/v2/images/{image_id}")
        assert (image["name"], image["status"], image["stores"]) == ("made", "active", "fast")
        assert (here / "fast" / image_id).read_bytes() == data
        assert image_id in client(clients, server, "task-show", listed["id"]).text
        assert "success" in client(clients, server, "image-tasks", image_id).text

        wanted["import_from"] = "file:///etc/passwd"
        refused = client(clients, server, *words[:3], "--input", json.dumps(wanted))
        assert (refused.status, "400" in refused.stderr) == (1, True)
