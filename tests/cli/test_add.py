"""headrace add and upload: where data may come from, what is said about it, what is left behind."""

import fcntl
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import termios
import time
import uuid
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Headrace, run
from tests.client.peer import Wire, peer
from tools.serving import Serving, environment

DATA = os.urandom(300_000)
QCOW2 = b"QFI\xfb\0\0\0\3" + bytes(16) + (1 << 20).to_bytes(8, "big") + bytes(72)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "my image.img"
    path.write_bytes(DATA)
    return path


def shown(headrace: Headrace, image_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(headrace("show", image_id, "--json").out)
    return found


def everything(headrace: Headrace) -> set[str]:
    return {image["id"] for image in json.loads(headrace("index", "--json").out)}


def test_path_uploads_and_fills_in_what_was_not_said(headrace: Headrace, image: Path) -> None:
    done = headrace("add", f"path={image}", "note=a=b,c", "tags=x,y")
    assert done.err == ""
    found = shown(headrace, done.image_id)
    assert found["status"] == "active"
    assert found["name"] == "my image.img"
    assert (found["disk_format"], found["container_format"]) == ("raw", "bare")
    assert found["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
    assert found["note"] == "a=b,c"
    assert sorted(found["tags"]) == ["x", "y"]  # type: ignore[call-overload]


def test_redirected_input_uploads_with_the_name_of_its_file(
    headrace: Headrace, image: Path
) -> None:
    with image.open("rb") as stdin:
        found = shown(headrace, headrace("add", stdin=stdin).image_id)
    assert (found["status"], found["name"], found["size"]) == ("active", image.name, len(DATA))


def test_a_pipe_uploads(headrace: Headrace) -> None:
    found = shown(headrace, headrace("add", "name=piped", stdin=DATA).image_id)
    assert (found["status"], found["name"]) == ("active", "piped")
    assert found["os_hash_value"] == hashlib.sha512(DATA).hexdigest()


@pytest.mark.parametrize("way", ["path", "stdin", "pipe"])
def test_the_disk_format_is_detected(headrace: Headrace, tmp_path: Path, way: str) -> None:
    plan = tmp_path / "disk"
    plan.write_bytes(QCOW2 + DATA)
    if way == "path":
        done = headrace("add", "--dry-run", f"path={plan}")
    elif way == "stdin":
        with plan.open("rb") as stdin:
            done = headrace("add", "--dry-run", stdin=stdin)
    else:
        done = headrace("add", "--dry-run", stdin=plan.read_bytes())
    assert '"disk_format": "qcow2"' in done.out, done.err
    kept = headrace("add", "--dry-run", f"path={plan}", "disk_format=raw")
    assert '"disk_format": "raw"' in kept.out


def test_the_format_is_detected_in_what_comes_in_pieces() -> None:
    # Of a socket the first read may bring any part, here one without the signature.
    ours, theirs = socket.socketpair()
    data = bytes(32_769) + b"CD001" + bytes(4096)
    with (
        ours,
        subprocess.Popen(
            [COMMAND, "add", "--dry-run"],
            stdin=theirs.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process,
    ):
        theirs.close()
        ours.sendall(data[:100])
        while _unread(ours):
            assert process.poll() is None
            time.sleep(0.01)
        ours.sendall(data[100:])
        ours.shutdown(socket.SHUT_WR)
        out, err = process.communicate(timeout=60)
    assert b'"disk_format": "iso"' in out, err


def _unread(sock: socket.socket) -> int:
    """How many bytes that were sent the other side has not read yet."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(waiting)


@pytest.mark.parametrize("stdin", ["null", "empty pipe", "empty file", "closed"])
def test_no_data_makes_a_record_and_says_so(
    server: Serving, headrace: Headrace, tmp_path: Path, stdin: str
) -> None:
    env = {"HEADRACE_URL": server.url}
    if stdin == "null":
        done = run("add", "name=empty", env=env)
    elif stdin == "empty pipe":
        done = run("add", "name=empty", stdin=b"", env=env)
    elif stdin == "empty file":
        (tmp_path / "empty").touch()
        with (tmp_path / "empty").open("rb") as file:
            done = run("add", "name=empty", stdin=file, env=env)
    else:
        shell = ["sh", "-c", 'exec "$0" "$@" <&-']
        done = run("add", "name=empty", under=shell, env=env)
    assert "no data was given" in done.err
    found = shown(headrace, done.image_id)
    assert (found["status"], found["name"], found["container_format"]) == (
        "queued",
        "empty",
        "bare",
    )


def test_a_record_can_be_filled_later(headrace: Headrace, image: Path) -> None:
    image_id = headrace("add", "name=later").image_id
    done = headrace("upload", image_id, f"path={image}")
    assert (done.status, done.err) == (0, "")
    found = shown(headrace, image_id)
    assert (found["status"], found["disk_format"], found["size"]) == ("active", "raw", len(DATA))
    again = headrace("upload", image_id, stdin=DATA)
    assert again.status == 1
    assert "is active, not queued" in again.err
    assert headrace("upload", image_id).status == 2


def test_an_idle_pipe_beside_path_is_no_input(server: Serving, image: Path) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as idle, open(writer, "wb"):
        done = run("add", f"path={image}", stdin=idle, env={"HEADRACE_URL": server.url})
    assert done.image_id


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["path=missing"], 1, "cannot read missing: No such file"),
        (["path=."], 1, "it is a directory"),
        (["path=/dev/zero"], 1, "it is no regular file"),
        (["path=x", "location=http://h/x"], 2, "which is it?"),
        (["location=http://h/x"], 2, "location= wants disk_format="),
        (["location=http://h/x", "disk_format=raw", "--store", "x"], 2, "which is it?"),
        (["path=/proc/cpuinfo"], 1, "a file without a size"),
        (["copy_from=http://h/x"], 1, "copy_from= is not supported yet"),
        (["name"], 2, "'name' is not of the form key=value"),
        (["size=1"], 2, "size is set by the service"),
        (["name=a", "name=b"], 2, "given twice"),
        (["min_ram=lots"], 2, "whole number"),
        (["--no-such-option"], 2, "No such option"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    tmp_path: Path, words: list[str], status: int, reason: str
) -> None:
    with peer() as nobody:
        shell = ["sh", "-c", f'cd "{tmp_path}"; exec "$0" "$@"']
        done = run("add", *words, env={"HEADRACE_URL": nobody.url}, under=shell)
    assert (done.status, done.out) == (status, "")
    assert reason in done.err
    assert "Traceback" not in done.err
    assert nobody.connections == 0


@pytest.mark.parametrize("word", ["path=", "location=http://h/"])
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_two_sources_of_data_are_one_too_many(
    tmp_path: Path, image: Path, word: str, way: str
) -> None:
    words = ["add", f"{word}{image}" if word == "path=" else f"{word}x"]
    with peer() as nobody, image.open("rb") as file:
        env = {"HEADRACE_URL": nobody.url}
        if way == "file":
            done = run(*words, stdin=file, env=env)
        else:
            reader, writer = os.pipe()
            os.write(writer, b"data")
            with open(reader, "rb") as pipe, open(writer, "wb"):
                done = run(*words, stdin=pipe, env=env)
    assert done.status == 2
    assert "redirected standard input" in done.err


@pytest.mark.parametrize("keep", [False, True])
def test_a_failed_upload_leaves_nothing_unless_told_to(
    headrace: Headrace, image: Path, keep: bool
) -> None:
    # The service refuses data that is not what disk_format says, after all of it has come.
    image_id = str(uuid.uuid4())
    options = ["--keep"] if keep else []
    done = headrace("add", f"path={image}", "disk_format=qcow2", f"id={image_id}", *options)
    assert done.status == 1
    assert done.out == ""
    assert "headrace: " in done.err.splitlines()[-1]
    found = headrace("show", image_id, "--json")
    if keep:
        assert "is kept" in done.err
        assert json.loads(found.out)["status"] == "queued"
    else:
        assert "was removed again" in done.err
        assert found.status == 1


def test_a_record_that_was_there_is_never_removed(headrace: Headrace, image: Path) -> None:
    image_id = headrace("add", f"path={image}").image_id
    done = headrace("add", f"path={image}", f"id={image_id}")
    assert done.status == 1
    assert shown(headrace, image_id)["status"] == "active"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_upload_leaves_nothing(
    headrace: Headrace, server: Serving, number: signal.Signals
) -> None:
    image_id = str(uuid.uuid4())
    reader, writer = os.pipe()
    os.write(writer, DATA[:50_000])
    with open(reader, "rb") as stdin, open(writer, "wb"):
        process = subprocess.Popen(
            [COMMAND, "add", f"id={image_id}", "disk_format=raw"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment({"HEADRACE_URL": server.url}),
        )
        while headrace("show", image_id).status != 0:
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"Traceback" not in err
    assert b"removed again" in err
    assert out == b""
    assert headrace("show", image_id).status == 1


def test_a_dry_run_sends_nothing(image: Path) -> None:
    with peer() as nobody:
        url = nobody.url.replace("http://", "http://me:passw0rd@") + "/image/v2.9"
        done = run("add", "--dry-run", f"path={image}", "x=y", env={"HEADRACE_URL": url})
    assert done.status == 0
    assert nobody.connections == 0
    lines = done.out.splitlines()
    assert lines[0] == f"POST {nobody.url}/image/v2/images"
    assert '  "x": "y"' in lines
    assert lines[-2:] == [f"PUT {nobody.url}/image/v2/images/ID/file", f"{len(DATA)} bytes"]
    assert "passw0rd" not in done.out + done.err


def test_json_is_the_record(headrace: Headrace, image: Path) -> None:
    done = headrace("add", f"path={image}", "--json")
    assert json.loads(done.out)["status"] == "active"
    assert done.err == ""


def test_verbose_tells_how_the_bytes_went(headrace: Headrace, image: Path) -> None:
    done = headrace("-v", "add", f"path={image}")
    assert f"sent {len(DATA)} bytes in " in done.err
    assert "by sendfile" in done.err
    assert "Status: active" in done.out


def test_is_public_is_said_to_be_a_visibility(headrace: Headrace) -> None:
    done = headrace("add", "name=old", "is_public=True", "--dry-run")
    assert "is taken as visibility=public" in done.err
    assert '"visibility": "public"' in done.out


def test_the_token_is_never_shown() -> None:
    def serve(wire: Wire) -> None:
        assert wire.head().headers["x-auth-token"] == "s3cret"
        wire.answer("401 Unauthorized")

    with peer(serve) as found:
        done = run("-d", "add", "name=x", env={"HEADRACE_URL": found.url, "OS_TOKEN": "s3cret"})
    assert done.status == 1
    assert "X-Auth-Token: ***" in done.err
    assert "s3cret" not in done.out + done.err
