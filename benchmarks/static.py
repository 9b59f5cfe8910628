"""nginx serving a file by itself: what nothing behind nginx can beat."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.hosts import SBIN, free_port, wait_for_port
from tools.serving import environment, family

# As in Headrace's own recipe, but for what stands behind.
_CONF = """\
daemon off;
worker_processes auto;
pid {directory}/pid;
{user}
events {{ worker_connections 8192; }}
http {{
    access_log {directory}/access.log;
    sendfile on;
    aio threads;
    sendfile_max_chunk 2m;
    tcp_nopush on;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location = /v2/images {{ return 200 '{{"images": []}}'; }}
        location = /v2/images/{name} {{ return 200 '{{"status": "active", "size": {size}}}'; }}
        location = /v2/images/{name}/file {{ alias {file}; }}
    }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    process: subprocess.Popen[bytes]
    port: int

    def pids(self) -> list[int]:
        return family(self.process.pid)


@contextlib.contextmanager
def serving(directory: Path, file: Path) -> Iterator[Nginx]:
    """Serve ``file`` as an image, its name as id; ``directory`` is nginx's own."""
    directory.mkdir()
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    conf = directory / "conf"
    served = {"file": file, "name": file.name, "size": file.stat().st_size}
    conf.write_text(_CONF.format(directory=directory, port=port, user=user, **served))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["nginx", "-e", "stderr", "-c", conf],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment({"PATH": f"{os.environ['PATH']}:{SBIN}"}),
            start_new_session=True,
        )
    try:
        wait_for_port(port, [process])
        yield Nginx(process, port)
    finally:
        process.terminate()
        process.wait()
