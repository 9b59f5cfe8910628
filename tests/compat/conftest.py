"""The real clients in their own environment, pointed at a running server."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.needs import require_environment
from tests.several_stores import several_stores
from tools.serving import Serving, environment, serving

PROGRAMS = Path(__file__).parent / "programs"
GUARD = 120.0  # seconds; a hang guard

Call = Callable[..., None]


@dataclass(frozen=True)
class Finished:
    """What a command came to."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()


@dataclass(frozen=True)
class Clients:
    """The environment .venv-clients; ``home`` is where its programs keep what they cache."""

    directory: Path
    home: Path

    def run(
        self,
        *words: str | Path,
        stdin: Any = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        done = subprocess.run(
            [self.directory / words[0], *words[1:]],
            stdin=stdin,
            capture_output=True,
            env=environment({"HOME": str(self.home), "COLUMNS": "200", **(env or {})}),
            timeout=GUARD,
        )
        return Finished(done.returncode, done.stdout, done.stderr.decode())

    def call(self, program: str, function: str, *arguments: str | Path) -> None:
        """Have the clients' Python call a function of ``programs``; it fails when that raises."""
        done = self.run("python", PROGRAMS / program, function, *arguments)
        if done.status:
            pytest.fail(f"{program} {function}:\n{done.text}{done.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(require_environment(".venv-clients"), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of an odd size that is of no format, larger than any client's block."""
    path = tmp_path_factory.mktemp("data") / "image.raw"
    path.write_bytes(os.urandom((3 << 20) + 1))
    return path


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that takes no more than 1 MiB an image."""
    settings = {"OS_DEFAULT__IMAGE_SIZE_CAP": str(1 << 20)}
    with serving(tmp_path_factory.mktemp("small"), env=settings) as running:
        yield running


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with several stores."""
    directory = tmp_path_factory.mktemp("several")
    with serving(directory, env=several_stores(directory)) as running:
        yield running


@pytest.fixture
def glanceclient(clients: Clients, server: Serving) -> Call:
    return lambda function, *rest: clients.call(
        "glanceclient_calls.py", function, server.url, *rest
    )


@pytest.fixture
def openstacksdk(clients: Clients, server: Serving) -> Call:
    return lambda function, *rest: clients.call(
        "openstacksdk_calls.py", function, server.url, *rest
    )
