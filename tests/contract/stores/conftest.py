"""Stores to test, and processes that write to them."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.stores.base import Store
from tests.contract.stores.storing import IMAGE_ID, WritingProcess, descriptors
from tests.contract.stores.variants import VARIANTS
from tests.needs import require_root

WRITING_PROCESS = Path(__file__).with_name("writing_process.py")
StartWriting = Callable[..., WritingProcess]


@pytest.fixture
def datadir(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(variant: str, datadir: Path) -> Iterator[Store]:
    """A store of every variant; the test must leave no descriptor open."""
    before = descriptors()
    yield VARIANTS[variant](datadir)
    assert descriptors() == before


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
