"""Stores to test, and processes that write to them."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.stores.base import Store
from tests.contract.stores import buckets, rbds, swifts
from tests.contract.stores.storing import IMAGE_ID, WritingProcess, descriptors, put
from tests.contract.stores.variants import VARIANTS
from tests.needs import require_root
from tools.ceph import Ceph
from tools.swift import KEY, USER, Swift

WRITING_PROCESS = Path(__file__).with_name("writing_process.py")
StartWriting = Callable[..., WritingProcess]


@pytest.fixture
def datadir(tmp_path: Path) -> Path:
    return tmp_path / "images"


_MARKS = {
    "swift_address": pytest.mark.slow,
    "s3_address": pytest.mark.slow,
    "ceph_address": pytest.mark.ceph,
    "rgw_address": pytest.mark.ceph,
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=_MARKS.get(each.server or "", ()))
        for name, each in VARIANTS.items()
    ]
)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def swift_address(swift: Swift) -> Iterator[None]:
    """Has processes know where Swift is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(swifts.ADDRESS, swift.auth_url)
        yield


@pytest.fixture(scope="session")
def ceph_address(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Has processes know where Ceph is, and this one be connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(rbds.ADDRESS, str(ceph.conf))
        put(rbds.store(tmp_path_factory.mktemp("first") / "images"), b"data")
        yield


@pytest.fixture(scope="session")
def s3_address(swift: Swift) -> Iterator[None]:
    """Has processes know where Swift is, as a service that speaks S3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(buckets.SWIFT, buckets.address(swift.url, USER, KEY))
        yield


@pytest.fixture(scope="session")
def rgw_address(ceph: Ceph) -> Iterator[None]:
    """Has processes know where the gateway of Ceph is."""
    gateway = ceph.gateway()
    where = buckets.address(gateway.url, gateway.access_key, gateway.secret_key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(buckets.RGW, where)
        yield


@pytest.fixture
def store(request: pytest.FixtureRequest, variant: str, datadir: Path) -> Iterator[Store]:
    """A store of every variant; the test must leave no descriptor open."""
    chosen = VARIANTS[variant]
    if chosen.server is not None:
        request.getfixturevalue(chosen.server)
    before = descriptors(sockets=chosen.sockets)
    yield chosen.make(datadir)
    assert descriptors(sockets=chosen.sockets) == before


@pytest.fixture
def names(variant: str, datadir: Path) -> Callable[[], list[str]]:
    """The names of all that the store holds."""
    return lambda: VARIANTS[variant].names(datadir)


@pytest.fixture
def leftovers(variant: str) -> int:
    """What a sweep has to remove of a writer that was killed."""
    return VARIANTS[variant].leftovers


@pytest.fixture
def exclusive(variant: str) -> bool:
    """Whether of those who commit at the same time only one is told that it has."""
    return VARIANTS[variant].exclusive


@pytest.fixture
def start_writing(variant: str, datadir: Path) -> Iterator[StartWriting]:
    """``start_writing(content, *prefix)``: a process that has begun to write IMAGE_ID."""
    with contextlib.ExitStack() as stack:

        def start(content: str, *prefix: str) -> WritingProcess:
            process = subprocess.Popen(
                [*prefix, sys.executable, WRITING_PROCESS, variant, datadir, IMAGE_ID,
                 content],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield start


@pytest.fixture
def mount_tmpfs(datadir: Path) -> Iterator[Callable[[str], None]]:
    """``mount_tmpfs(options)``: a tmpfs where the store will be."""
    require_root()
    with contextlib.ExitStack() as stack:

        def mount(options: str) -> None:
            datadir.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", datadir], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", datadir], check=True)

        yield mount
