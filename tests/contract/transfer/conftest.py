"""Every contract of the engine is tested on the kernel's ways and on the copying loop."""

from collections.abc import Iterator

import pytest

from headrace.transfer import engine


@pytest.fixture(params=["linux", "portable"])
def ways(request: pytest.FixtureRequest) -> Iterator[str]:
    engine.enable(request.param == "linux")
    yield request.param
    engine.enable(True)
