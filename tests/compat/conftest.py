"""The real clients in their own environment, pointed at a running server."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.compat import compatibility
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
    """The environment .venv-clients; ``home`` is where its programs keep what they cache.

    ``used`` is what of the ``catalogue`` has succeeded in the test that is going on.
    """

    directory: Path
    home: Path
    catalogue: compatibility.Catalogue
    used: set[str] = field(default_factory=set)

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
        if done.returncode == 0:
            self._note(" ".join(map(str, words[1:])), str(words[0]))
        return Finished(done.returncode, done.stdout, done.stderr.decode())

    def call(self, program: str, function: str, *arguments: str | Path) -> None:
        """Have the clients' Python call a function of ``programs``; it fails when that raises."""
        record = self.home / "calls"
        words = (PROGRAMS / "recorded.py", record, PROGRAMS / program, function, *arguments)
        done = self.run("python", *words)
        if done.status:
            pytest.fail(f"{program} {function}:\n{done.text}{done.stderr}", pytrace=False)
        self.used.update(record.read_text().splitlines())

    def _note(self, words: str, client: str) -> None:
        """Note the command of a line: the longest of those that it has in it as words."""
        found = [name for name in self.catalogue.get(client, []) if f" {name} " in f" {words} "]
        if found:
            self.used.add(f"{client} {max(found, key=len)}")


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    directory, home = require_environment(".venv-clients"), tmp_path_factory.mktemp("home")
    listed = subprocess.run(
        [directory / "python", PROGRAMS / "catalogue.py"],
        capture_output=True, check=True, env=environment({"HOME": str(home)}),
    )  # fmt: skip
    return Clients(directory, home, json.loads(listed.stdout))


SEEN = pytest.StashKey[tuple[compatibility.Catalogue, compatibility.Used]]()
WRITE = "HEADRACE_WRITE_COMPATIBILITY"


@pytest.fixture(autouse=True)
def recorded(request: pytest.FixtureRequest) -> Iterator[None]:
    """What of the clients succeeds in a test is what the page of the references says."""
    if "clients" not in request.fixturenames:
        yield
        return
    clients = request.getfixturevalue("clients")
    clients.used.clear()
    yield
    all_names = {
        f"{client} {name}" for client, names in clients.catalogue.items() for name in names
    }
    seen, test = clients.used & all_names, f"{request.path.stem}::{request.node.name}"
    if WRITE in os.environ:
        _, used = request.session.stash.setdefault(SEEN, (clients.catalogue, {}))
        used[test] = seen
        return
    told = compatibility.said(compatibility.PAGE.read_text(encoding="utf-8"))
    missing = seen - told.get(test, set())
    assert not missing, f"{sorted(missing)}: run make compatibility"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if WRITE in os.environ and exitstatus == 0:
        text = compatibility.page(*session.stash[SEEN])
        compatibility.PAGE.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of an odd size that is of no format, larger than any client's block."""
    path = tmp_path_factory.mktemp("data") / "image.raw"
    path.write_bytes(os.urandom((3 << 20) + 1))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server for the tests of one file: others have images of the same names."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


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
