"""Glance 33 beside Headrace, by the same glance-api.conf: one database, one image directory."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import glance
from tests.faults.service import Service
from tests.needs import require_environment
from tools.serving import environment

# As an operator may have it: with what Headrace reads, and with what it does not.
_CONF = """\
[DEFAULT]
node_staging_uri = file://{directory}/staging
transport_url = rabbit://openstack:s3cret@rabbit.example.org/
image_size_cap = 1073741824
hashing_algorithm = sha512
[database]
max_retries = -1
[glance_store]
stores = file
default_store = file
filesystem_store_datadir = {directory}/images
[image_format]
disk_formats = raw,qcow2,iso
[oslo_messaging_notifications]
driver = noop
[keystone_authtoken]
password = s3cret
"""


class Peer:
    """The files of a deployment that both may serve, one at a time or at once."""

    def __init__(self, directory: Path, database: str) -> None:
        self.bin = require_environment(".venv-glance")
        self.directory = directory
        self.database = database
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        glance.write_settings(directory, port, _CONF, database=database, processes=2)

    @property
    def conf(self) -> Path:
        return self.directory / "glance-api.conf"

    @property
    def files(self) -> set[str]:
        return {path.name for path in (self.directory / "images").iterdir()}

    def manage(self, *words: str) -> str:
        """What ``glance-manage`` writes; it must succeed."""
        done = subprocess.run(
            [self.bin / "glance-manage", "--config-file", self.conf, *words],
            env=environment({"PYTHONWARNINGS": "ignore"}), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[Service]:
        """Run the Glance."""
        with glance.serving(self.directory) as running:
            yield Service(running)  # type: ignore[arg-type]
