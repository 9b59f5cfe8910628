"""`headrace user`, and what shows a name and a password to a service."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import write_accounts
from tests.cli.conftest import run
from tests.cli.terminal import on_terminal
from tools.serving import Serving, serving

USERS = (("alice", "mine", "member"), ("root", "admins", "admin"))
TWICE = b"pass word\npass word\n"


@pytest.fixture
def state(tmp_path: Path) -> list[str]:
    return ["--state-dir", str(tmp_path / "state")]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that asks for passwords."""
    directory = tmp_path_factory.mktemp("guarded")
    write_accounts(directory / "htpasswd", *USERS)
    with serving(directory, "--auth", "http_basic") as server:
        yield server


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("alice-secret\n")
    return file


def test_a_user_comes_changes_and_goes(tmp_path: Path, state: list[str]) -> None:
    words = ["--project", "mine", "--role", "member", "--role", "service", *state]
    assert run("user", "add", "alice", *words, stdin=TWICE).status == 0
    file = tmp_path / "state" / "htpasswd"
    first = file.read_text()
    assert "pass word" not in first

    listed = run("user", "list", *state)
    assert listed.out.splitlines()[-1].split() == ["alice", "mine", "member,", "service"]
    shown = json.loads(run("user", "list", "--json", *state).out)
    assert json.loads(run("--json", "user", "list", *state).out) == shown
    assert shown == [{"name": "alice", "project": "mine", "roles": ["member", "service"]}]

    again = run("user", "add", "alice", *words, stdin=TWICE)
    assert (again.status, "[user.exists]" in again.err) == (1, True)
    assert run("user", "passwd", "alice", *state, stdin=b"other\nother\n").status == 0
    assert file.read_text() != first
    assert run("user", "remove", "alice", *state).status == 0
    gone = run("user", "remove", "alice", *state)
    assert (gone.status, "[user.not_found]" in gone.err) == (1, True)


def test_the_file_is_that_of_the_settings(tmp_path: Path) -> None:
    conf = tmp_path / "headrace.conf"
    conf.write_text(f"[headrace]\nhttp_basic_auth_user_file = {tmp_path}/deep/users\n")
    words = ["--project", "mine", "--role", "admin", "--config-file", conf]
    assert run("user", "add", "alice", *words, stdin=TWICE).status == 0
    assert sorted(os.listdir(tmp_path / "deep")) == ["users", "users.roles"]


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (b"one\nother\n", 2, "not the same"),
        (b"once\n", 2, "not the same"),
        (b"", 1, "at least one"),
        (b"\xff\n\xff\n", 2, "not UTF-8"),
        (b"x" * 73 + b"\n" + b"x" * 73, 1, "72 bytes"),
    ],
)
def test_a_password_must_be_one(
    tmp_path: Path, state: list[str], given: bytes, status: int, said: str
) -> None:
    words = ["--project", "mine", "--role", "member", *state]
    done = run("user", "add", "alice", *words, stdin=given)
    assert (done.status, said in done.err) == (status, True), done.err
    assert not (tmp_path / "state" / "htpasswd").exists()


def test_at_a_terminal_it_is_asked_for_and_not_shown(state: list[str]) -> None:
    words = ["user", "add", "alice", "--project", "mine", "--role", "member", *state]
    asked = [(b"Password: ", b"hidden-one\n"), (b"Once more: ", b"hidden-one\n")]
    status, text = on_terminal(words, {}, asked=asked)
    assert status == 0, text
    assert "hidden-one" not in text
    assert run("user", "list", *state).out.splitlines()[-1].startswith("alice")


def test_roles_are_those_that_there_are(state: list[str]) -> None:
    words = ["user", "add", "alice", "--project", "mine", *state]
    assert run(*words, "--role", "owner", stdin=TWICE).status == 2
    assert run(*words, stdin=TWICE).status == 2


def test_without_a_password_nothing_is_shown(guarded: Serving) -> None:
    done = run("-U", guarded.url, "index")
    assert (done.status, "[access.unauthenticated]" in done.err) == (1, True)


def test_a_password_by_file(guarded: Serving, password: Path, image: Path, tmp_path: Path) -> None:
    words = ["-U", guarded.url, "--user", "alice", "--password-file", password]
    added = run(*words, "add", "name=x", f"path={image}", "disk_format=raw")
    assert added.status == 0, added.err
    target = tmp_path / "down"
    assert run("download", added.image_id, "--file", target, *words).status == 0
    assert target.read_bytes() == image.read_bytes()
    shown = json.loads(run(*words, "--json", "show", added.image_id).out)
    assert shown["owner"] == "mine"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.raw"
    file.write_bytes(os.urandom(100_000))
    return file


def test_a_password_by_the_environment_of_openstacks_clients(guarded: Serving) -> None:
    env = {"OS_AUTH_TYPE": "http_basic", "OS_ENDPOINT": guarded.url, "OS_USERNAME": "alice"}
    assert run("index", env=env | {"OS_PASSWORD": "alice-secret"}).status == 0
    wrong = run("index", env=env | {"OS_PASSWORD": "wrong"})
    assert (wrong.status, "[access.unauthenticated]" in wrong.err) == (1, True)
    missing = run("index", env=env)
    assert (missing.status, "no password for alice" in missing.err) == (2, True)


@pytest.mark.parametrize("auth_type", ["none", ""])
def test_by_other_ways_to_authenticate_it_is_not_shown(guarded: Serving, auth_type: str) -> None:
    env = {"OS_AUTH_TYPE": auth_type, "OS_USERNAME": "alice", "OS_PASSWORD": "alice-secret"}
    assert run("-U", guarded.url, "index", env=env).status == 1
    named = run("-U", guarded.url, "--user", "alice", "index", env=env)
    assert (named.status, "no password for alice" in named.err) == (2, True)


def test_the_command_line_wins_over_the_environment(guarded: Serving, password: Path) -> None:
    env = {"OS_AUTH_TYPE": "http_basic", "OS_USERNAME": "nobody", "OS_PASSWORD": "nothing"}
    words = ["-U", guarded.url, "--user", "alice", "--password-file", password]
    assert run(*words, "index", env=env).status == 0
    url = guarded.url.replace("//", "//alice:alice-secret@")
    assert run("-U", url, "index", env=env).status == 0


def test_a_password_is_asked_for_at_a_terminal(guarded: Serving) -> None:
    words = ["-U", guarded.url, "--user", "alice", "index"]
    status, text = on_terminal(words, {}, asked=[(b"Password of alice: ", b"alice-secret\n")])
    assert (status, "alice-secret" in text) == (0, False), text


def test_what_cannot_be_is_said(guarded: Serving, password: Path) -> None:
    url = guarded.url.replace("//", "//bob:x@")
    both = run("-U", url, "--user", "alice", "--password-file", password, "index")
    assert (both.status, "already says which user" in both.err) == (2, True)
    alone = run("-U", guarded.url, "--password-file", password, "index")
    assert (alone.status, "goes with --user" in alone.err) == (2, True)
    missing = run("-U", guarded.url, "--user", "alice", "--password-file", "/none", "index")
    assert (missing.status, "/none" in missing.err) == (2, True)
    colon = run("-U", guarded.url, "--user", "a:b", "--password-file", password, "index")
    assert colon.status == 2


def test_the_password_is_in_no_message(guarded: Serving, password: Path) -> None:
    words = ["-d", "-U", guarded.url, "--user", "alice", "--password-file", password]
    done = run(*words, "show", "no such image")
    assert done.status == 1
    assert "Authorization: ***" in done.err
    assert "alice-secret" not in done.err + guarded.log.read_text()
    assert "YWxpY2U6" not in done.err + guarded.log.read_text()


def test_a_change_needs_no_restart(guarded: Serving, password: Path) -> None:
    state = ["--state-dir", guarded.state_dir]
    words = ["-U", guarded.url, "--user", "eve", "--password-file", password, "index"]
    assert run(*words).status == 1
    twice = b"alice-secret\nalice-secret\n"
    added = run("user", "add", "eve", "--project", "p", "--role", "reader", *state, stdin=twice)
    assert added.status == 0, added.err
    assert run(*words).status == 0
    assert run("user", "remove", "eve", *state).status == 0
    assert run(*words).status == 1
