"""An nginx that fetches data from a store itself, and what is known of that: for several stores.

A module that takes the fixtures has a fixture ``redirecting`` of its own: the nginx.
"""

from collections.abc import Iterable, Iterator

import pytest

from tests.deploy.conftest import Deployed
from tests.deploy.wire import Answer
from tests.meddler import Meddler, meddling
from tools.swift import Swift

_STORES_OWN = (
    "x-accel", "x-amz", "x-manifest", "x-object", "x-static", "x-timestamp", "x-trans",
    "content-disposition", "expires",
)  # fmt: skip


@pytest.fixture(scope="module")
def meddler(swift: Swift) -> Iterator[Meddler]:
    """What stands before the store, to nginx as to Headrace."""
    with meddling(swift.port) as between:
        yield between


@pytest.fixture
def nginx(redirecting: Deployed, meddler: Meddler) -> Deployed:
    assert redirecting.whole  # uploaded by now
    meddler.faults.clear()
    meddler.asked.clear()
    return redirecting


def by_headrace(meddler: Meddler) -> list[str]:
    return [method for method, _, head in meddler.asked if "User-Agent: headrace/" in head]


def by_nginx(meddler: Meddler) -> list[str]:
    """What nginx has asked the store for, as it did."""
    return [head for _, _, head in meddler.asked if "User-Agent" not in head]


def told_nothing(
    answer: Answer, nginx: Deployed, secrets: Iterable[str], unlogged: Iterable[str]
) -> None:
    """Neither the client learns where the data lies, nor a log how to get them."""
    text = f"{answer.headers} {answer.body[:2000]!r}"
    assert not [each for each in secrets if each in text], text
    assert not [name for name in answer.headers if name.startswith(_STORES_OWN)]
    logs = nginx.host.logs()
    for file in nginx.host.state_dir.glob("nginx-*.log"):
        logs += file.read_text()
    assert not [each for each in unlogged if each in logs]
