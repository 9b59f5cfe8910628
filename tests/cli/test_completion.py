"""Completion: what is offered after TAB, by the functions and in a shell."""

import contextlib
import os
import pty
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Headrace, run
from tests.cli.terminal import GUARD
from tests.client.peer import Wire, peer
from tests.needs import require_command
from tools.serving import Serving, environment

BREAKS = " \t\n\"'><=;|&(:"  # bash's COMP_WORDBREAKS
SHELL_WORDS = (
    "$(touch owned)",
    "`touch owned`",
    "a;touch owned",
    "a|b",
    "a b",
    "a'b",
    'a"b',
    "a\nb",
)


def complete(line: str, url: str) -> list[str]:
    env = {
        "HEADRACE_URL": url,
        "_HEADRACE_COMPLETE": "bash_complete",
        "COMP_LINE": line,
        "COMP_BREAKS": BREAKS,
    }
    return [item.partition(",")[2] for item in run(env=env).out.splitlines() if item]


@pytest.fixture
def image(headrace: Headrace) -> tuple[str, str]:
    """The id and the name of an image."""
    name = f"image-{uuid.uuid4()}"
    return headrace("add", f"name={name}").image_id, name


def test_what_may_be_fetched_and_was_is_offered(server: Serving, tmp_path: Path) -> None:
    url, data = server.url, tmp_path / "data"
    data.write_bytes(b"data")
    image_id = run("add", f"path={data}", env={"HEADRACE_URL": url}).image_id
    assert complete(f"headrace fetch {image_id[:30]}", url) == [image_id]
    assert complete("headrace fetch --convert q", url) == ["qcow2"]
    run("fetch", image_id, "--cache-dir", tmp_path / "cache", env={"HEADRACE_URL": url})
    assert complete(f"headrace fetched delete --cache-dir {tmp_path}/cache ", url) == [image_id]
    assert complete(f"headrace fetched delete --cache-dir {tmp_path}/none ", url) == []
    assert not (tmp_path / "none").exists()


def test_commands_keys_values_and_images_are_offered(
    server: Serving, image: tuple[str, str], tmp_path: Path
) -> None:
    image_id, name = image
    (tmp_path / "a file").touch()
    (tmp_path / "a $(file)").touch()
    url = server.url
    assert complete("headrace ind", url) == ["index"]
    assert "container_format=" in complete("headrace add ", url)
    assert complete("headrace add disk_format=qc", url) == ["qcow2"]  # bash replaces no more
    assert complete("headrace add name=a:b disk_format=qc", url) == ["qcow2"]
    assert complete("headrace index status=act", url) == ["active"]
    found = complete(f"headrace add path={tmp_path}/a", url)
    assert found == [f"{tmp_path}/a\\ \\$\\(file\\)", f"{tmp_path}/a\\ file"]
    assert complete(f"headrace add path={tmp_path}/a\\ f", url) == [f"{tmp_path}/a\\ file"]
    assert complete(f"headrace show {image_id[:30]}", url) == [image_id]
    assert complete(f"headrace show {name}", url) == [name]
    assert image_id in complete("headrace delete ", url)
    assert complete("headrace bench -t TCP_S", url) == ["TCP_STREAM", "TCP_SENDFILE", "TCP_SPLICE"]
    assert complete("headrace bench -t TCP_RR,image_p", url) == ["TCP_RR,IMAGE_PUT"]
    assert complete("headrace bench --via sendfile,c", url) == ["sendfile,copy"]
    assert image_id in complete("headrace bench --image ", url)
    with peer() as gone:
        pass
    assert complete(f"headrace -U {gone.url} show ", url) == []


def test_a_name_that_means_something_to_a_shell_is_not_offered() -> None:
    ids = [str(uuid.uuid4()) for _ in SHELL_WORDS]
    names = [f"x{word}" for word in SHELL_WORDS]
    listed = [{"id": one, "name": name} for one, name in zip(ids, names, strict=True)]
    listed += [{"id": "x$(touch owned)", "name": "xplain:1"}]

    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer_json({"images": listed})

    with peer(serve, serve) as found:
        assert complete("headrace show x", found.url) == ["xplain:1"]
        assert complete("headrace show ", found.url) == ids


def test_a_service_that_does_not_answer_is_not_waited_for() -> None:
    def hang(wire: Wire) -> None:
        wire.head()
        wire.take(1)  # until the client leaves, which must be before the peer's own guard

    with peer(hang) as found:
        assert complete("headrace show x", found.url) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str) -> None:
    script = run("completion", shell)
    assert "_HEADRACE_COMPLETE" in script.out
    assert run("completion", env={"SHELL": f"/bin/{shell}"}).out == script.out


@contextlib.contextmanager
def bash(directory: Path, url: str) -> Iterator[Callable[[str, str], None]]:
    """``typed(keys, shown)``: type into an interactive bash until its line shows that."""
    path = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    main, side = pty.openpty()
    process = subprocess.Popen(
        [require_command("bash"), "--norc", "-i"],
        stdin=side,
        stdout=side,
        stderr=side,
        cwd=directory,
        env=environment({"HEADRACE_URL": url, "PATH": path, "PS1": "", "TERM": "dumb"}),
        start_new_session=True,
    )
    os.close(side)
    os.set_blocking(main, False)

    def typed(keys: str, shown: str) -> None:
        os.write(main, keys.encode())
        text = ""
        deadline = time.monotonic() + GUARD
        while shown not in text:
            assert time.monotonic() < deadline, text
            with contextlib.suppress(BlockingIOError):
                text += os.read(main, 4096).decode()
            time.sleep(0.02)

    try:
        yield typed
    finally:
        process.kill()
        process.wait(GUARD)
        os.close(main)


def test_in_bash_words_are_completed_where_they_stand(server: Serving, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "sub").mkdir()
    kill = "\x15"  # Ctrl-U
    with bash(tmp_path, server.url) as typed:
        typed('eval "$(headrace completion bash)"; echo rea""dy\n', "ready")
        # What is typed after TAB shows whether a space was put between.
        typed("headrace add disk_f\tqc\t|", "headrace add disk_format=qcow2 |")
        typed(f"{kill}headrace add name=x:y path=su\t|", "headrace add name=x:y path=sub/|")
        typed(f"{kill}headrace add path=a\t|", "headrace add path=a\\ file |")
