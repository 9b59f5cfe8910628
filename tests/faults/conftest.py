"""Servers to be hurt."""

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Serve
from tests.faults.service import Service
from tools.serving import serving

Start = Callable[..., Service]


@pytest.fixture
def start(serve: Serve) -> Start:
    """``start(*options, **settings)``: a server of the test's own, with settings of [headrace]."""

    def started(*options: str, **how: object) -> Service:
        return Service(serve(*options, **how))

    return started


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One server for all tests of a module that neither stop it nor need it empty."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield Service(running)
