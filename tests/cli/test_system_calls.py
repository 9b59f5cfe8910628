"""That bytes go the cheap way is shown by the system calls, counted by strace."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, run
from tests.cli.terminal import on_terminal
from tests.needs import require_strace
from tools import strace
from tools.serving import Serving, environment

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZE = 32 * MIB
OVERHEAD = MIB  # what may be copied: heads, answers, and the part looked into for its format


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "image"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture
def under(prefix: Path) -> list[str]:
    return strace.command(require_strace(), prefix)


def copied(carried: strace.Carried) -> int:
    return sum(size for name, size in carried.bytes.items() if name not in {"sendfile", "splice"})


@pytest.mark.parametrize("way", ["path", "stdin"])
def test_a_file_is_sent_by_sendfile(
    server: Serving, image: Path, prefix: Path, under: list[str], way: str
) -> None:
    env = {"HEADRACE_URL": server.url}
    if way == "path":
        done = run("add", f"path={image}", env=env, under=under)
    else:
        with image.open("rb") as stdin:
            done = run("add", stdin=stdin, env=env, under=under)
    assert done.image_id
    carried = strace.on_sockets(prefix)
    assert carried.bytes["sendfile"] == SIZE
    assert carried.bytes["splice"] == 0
    assert copied(carried) <= OVERHEAD


def test_a_progress_bar_does_not_change_that(
    server: Serving, image: Path, prefix: Path, under: list[str]
) -> None:
    words = ["add", f"path={image}"]
    status, text = on_terminal(words, {"HEADRACE_URL": server.url}, under=under)
    assert status == 0
    assert "Uploading" in text
    carried = strace.on_sockets(prefix)
    assert carried.bytes["sendfile"] == SIZE
    assert copied(carried) <= OVERHEAD


@pytest.mark.parametrize("known", [[], ["disk_format=raw"]], ids=["detected", "given"])
def test_a_pipe_is_sent_by_splice(
    server: Serving, image: Path, prefix: Path, under: list[str], known: list[str]
) -> None:
    env = {"HEADRACE_URL": server.url}
    done = run("add", *known, stdin=image.read_bytes(), env=env, under=under)
    assert done.image_id
    carried = strace.on_sockets(prefix)
    assert carried.bytes["splice"] >= SIZE - 64 * 1024
    assert carried.bytes["sendfile"] == 0
    assert copied(carried) <= OVERHEAD


@pytest.mark.parametrize("way", ["path", "pipe"])
def test_switched_off_it_is_copied(
    server: Serving, image: Path, prefix: Path, under: list[str], way: str
) -> None:
    env = {"HEADRACE_URL": server.url, "HEADRACE_SENDFILE": "off"}
    if way == "path":
        done = run("-v", "add", f"path={image}", env=env, under=under)
    else:
        done = run("-v", "add", stdin=image.read_bytes(), env=env, under=under)
    assert "by copy" in done.err
    carried = strace.on_sockets(prefix)
    assert carried.bytes["sendfile"] == carried.bytes["splice"] == 0
    assert copied(carried) >= SIZE


@pytest.mark.parametrize("switch", ["on", "off"])
def test_a_download_is_received_by_splice(
    server: Serving, image: Path, prefix: Path, under: list[str], tmp_path: Path, switch: str
) -> None:
    env = {"HEADRACE_URL": server.url}
    image_id = run("add", f"path={image}", env=env).image_id
    words = ["download", image_id, "--file", str(tmp_path / "out")]
    done = run(*words, env=env | {"HEADRACE_SENDFILE": switch}, under=under)
    assert done.status == 0, done.err
    assert (tmp_path / "out").read_bytes() == image.read_bytes()
    carried = strace.on_sockets(prefix)
    if switch == "on":
        assert carried.bytes["splice"] >= SIZE - 16 * 1024  # what came with the head is copied
        assert copied(carried) <= OVERHEAD
    else:
        assert carried.bytes["splice"] == 0
        assert copied(carried) >= SIZE


@pytest.mark.parametrize(
    ("options", "way"), [([], "copied"), (["--no-verify"], "spliced")], ids=["verified", "not"]
)
def test_a_download_into_a_pipe_is_copied_only_to_be_hashed(
    server: Serving, image: Path, prefix: Path, under: list[str], options: list[str], way: str
) -> None:
    env = {"HEADRACE_URL": server.url}
    image_id = run("add", f"path={image}", env=env).image_id
    done = subprocess.run(
        [*under, COMMAND, "download", image_id, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(env),
        timeout=120,
        check=True,
    )
    assert done.stdout == image.read_bytes()
    carried = strace.on_sockets(prefix)
    if way == "spliced":
        assert carried.bytes["splice"] >= SIZE - 16 * 1024
        assert copied(carried) <= OVERHEAD
    else:
        assert carried.bytes["splice"] == 0
