"""Fixtures that tests of several folders share."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.needs import require, require_command, require_environment
from tests.servers import Server, mariadb, postgresql
from tools import ceph as clusters
from tools import keystone as keystones
from tools import swift as swifts
from tools.serving import Serving, serving

Serve = Callable[..., Serving]
NewDatabase = Callable[[str], str]

POSTGRESQL, MARIADB = (
    pytest.param(kind, marks=pytest.mark.slow) for kind in ("postgresql", "mariadb")
)
KINDS = ("sqlite", POSTGRESQL, MARIADB)
"""The databases that Headrace keeps its records in; what starts a server is slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first, or the last of them would go on beside idle processors."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One running server for all tests that neither stop it nor count what it holds."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """``serve(*options, state_dir=…, env=…, under=…)``: a server of the test's own."""
    with contextlib.ExitStack() as stack:

        def start(*options: str, state_dir: Path | None = None, **how: object) -> Serving:
            directory = state_dir or tmp_path / "state"
            return stack.enter_context(serving(directory, *options, **how))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[keystones.Keystone]:
    """A real Keystone for all tests, who do not change whom it knows."""
    require_environment(".venv-keystone")
    with keystones.running(tmp_path_factory.mktemp("keystone")) as running:
        yield running


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[swifts.Swift]:
    """A real Swift for all tests, each with containers of its own."""
    require_environment(".venv-swift")
    require_command("memcached")
    with swifts.running(tmp_path_factory.mktemp("swift")) as running:
        yield running


@pytest.fixture(scope="session")
def ceph() -> Iterator[clusters.Ceph]:
    """A real Ceph for all tests that are marked ``ceph``, who leave it as healthy as it was."""
    lacking = clusters.missing()
    require(lacking is None, str(lacking))
    with clusters.running() as running:
        yield running


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    with mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> NewDatabase:
    """``new_database(kind)``: the URL of an empty database; its server is started when needed."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('database')}/new.db"
        server: Server = request.getfixturevalue(f"{kind}_server")
        return server.new()

    return make
