"""The other commands: lists, records, downloads, exit statuses, completion."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli.main import COMMANDS, cli
from tests.accounts import write_accounts
from tests.cli.conftest import COMMAND, Headrace, run
from tests.cli.terminal import on_terminal
from tests.client.peer import Wire, peer
from tests.faults.service import Service
from tools.serving import Serving, environment, serving

DATA = os.urandom(200_000)


@pytest.fixture
def image(server: Serving) -> tuple[str, str]:
    """The id and the name of an active image."""
    name = f"image-{uuid.uuid4()}"
    return Service(server).active(DATA, name=name, os_distro="debian", probe=name), name


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server whose images are these tests' own."""
    with serving(tmp_path_factory.mktemp("own")) as running:
        yield running


def test_index_is_a_table_of_fixed_columns(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, name = image
    head, rule, row = headrace("index", f"name={name}").out.splitlines()
    assert head.split() == ["ID", "Name", "Disk", "Format", "Container", "Format", "Size"]
    assert [len(dashes) for dashes in rule.split(" ")] == [36, 30, 20, 20, 14]
    assert row.split() == [image_id, name, "raw", "bare", str(len(DATA))]
    assert headrace("index", "name=nobody").out == ""


def test_a_name_cannot_steer_the_terminal(headrace: Headrace) -> None:
    image_id = headrace("add", "name=\x1b]0;owned\x07\nline").image_id
    for words in (["index", "name=\x1b]0;owned\x07\nline"], ["show", image_id]):
        out = headrace(*words).out
        assert "\x1b" not in out
        assert r"\x1b]0;owned\x07\nline" in out


@pytest.mark.slow
def test_filters_limits_and_orders(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, name = image
    other = headrace("add", f"name={name}", f"probe={name}", "tag=a", "tag=b,c").image_id

    def found(*words: str) -> list[str]:
        return [one["id"] for one in json.loads(headrace("index", "--json", *words).out)]

    assert found(f"probe={name}", "status=active") == [image_id]
    assert found(f"name={name}", "size_min=1") == [image_id]
    assert found(f"name={name}", "tag=a", "tag=b,c") == [other]
    assert found(f"name={name}", "--sort", "created_at:asc") == [image_id, other]
    assert found(f"name={name}", "--sort", "created_at:desc", "--limit", "1") == [other]
    assert found(f"name={name}", "--sort", "created_at:asc", "--marker", image_id) == [other]
    assert headrace("index", "--sort", "nonsense").status == 1


def test_details_and_show_tell_all(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, name = image
    details = headrace("details", f"name={name}").out
    assert details.startswith("=" * 80 + "\nURI: http://127.0.0.1:")
    block = details.split("\n", 1)[1]
    assert headrace("show", image_id).out == block
    assert headrace("show", name).out == block
    for line in (f"Id: {image_id}", f"Name: {name}", "Status: active", f"Size: {len(DATA)}"):
        assert line in block.splitlines()
    assert "Property 'os_distro': debian" in block.splitlines()


def test_a_name_of_several_images_is_nobody_s(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, name = image
    other = headrace("add", f"name={name}").image_id
    done = headrace("show", name)
    assert done.status == 2
    assert image_id in done.err
    assert other in done.err


@pytest.mark.slow
def test_of_many_images_of_one_name_ten_are_told(own: Serving) -> None:
    env = {"HEADRACE_URL": own.url}
    ids = [run("add", "name=many", env=env).image_id for _ in range(10)]
    assert "more" not in run("show", "many", env=env).err
    ids.append(run("add", "name=many", env=env).image_id)
    done = run("show", "many", env=env)
    assert sum(one in done.err for one in ids) == 10
    assert "and more" in done.err
    run("clear", "-f", env=env)


def test_a_hidden_image_has_a_name_too(headrace: Headrace) -> None:
    name = f"hidden-{uuid.uuid4()}"
    hidden = headrace("add", f"name={name}", "os_hidden=true").image_id
    assert f"Id: {hidden}" in headrace("show", name).out
    assert headrace("update", name, "min_ram=1").status == 0
    shown = headrace("add", f"name={name}").image_id
    assert f"Id: {shown}" in headrace("show", name).out


def test_update_changes_what_is_named_and_nothing_else(
    headrace: Headrace, image: tuple[str, str]
) -> None:
    image_id, name = image
    words = ["new=x=y,z", "min_ram=5", "protected=yes", "tags=a", "os_distro="]
    assert headrace("update", image_id, *words, "--remove", "probe").status == 0
    found = json.loads(headrace("show", image_id, "--json").out)
    assert (found["new"], found["min_ram"], found["protected"]) == ("x=y,z", 5, True)
    assert (found["tags"], found["os_distro"], found["name"]) == (["a"], "", name)
    assert "probe" not in found
    assert headrace("update", image_id, "protected=no").status == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "nothing to change"),
        (["path=x"], "headrace upload"),
        (["id=x"], "cannot be changed"),
        (["--remove", "name"], "cannot be removed"),
        (["a=b", "--remove", "a"], "both set and removed"),
    ],
)
def test_update_says_what_it_cannot_do(words: list[str], reason: str) -> None:
    done = run("update", str(uuid.uuid4()), *words)
    assert done.status == 2
    assert reason in done.err


@pytest.mark.slow
def test_delete_asks_or_is_told(
    headrace: Headrace, server: Serving, image: tuple[str, str]
) -> None:
    env = {"HEADRACE_URL": server.url}
    image_id, _ = image
    other = headrace("add", "name=other").image_id
    done = headrace("delete", image_id)
    assert done.status == 1
    assert "--force" in done.err
    assert headrace("show", image_id).status == 0
    assert "Would delete" in headrace("delete", "--dry-run", image_id).out
    assert headrace("show", image_id).status == 0

    missing = str(uuid.uuid4())
    run("update", other, "protected=true", env=env)
    done = headrace("delete", "-f", missing, image_id, other)
    assert done.status == 1
    assert done.err.splitlines()[-1] == "headrace: 2 of 3 images were kept"
    run("update", other, "protected=false", env=env)
    done = headrace("delete", "-f", missing, other)
    assert done.status == 1
    assert done.err.splitlines()[-1] == "headrace: 1 of 2 images was kept"
    assert f"image {missing} not found" in done.err
    for gone in (image_id, other):
        shown = headrace("show", gone)
        assert (shown.status, shown.out) == (1, "")
        assert shown.err == f"headrace: image {gone} not found [image.not_found]\n"


@pytest.mark.slow
def test_a_protected_image_is_kept_and_the_rest_goes(own: Serving) -> None:
    env = {"HEADRACE_URL": own.url}
    kept = run("add", "name=kept", "protected=true", env=env).image_id
    run("add", "name=hidden", "os_hidden=true", env=env)
    run("add", "name=plain", env=env)
    assert run("clear", env=env).status == 1
    done = run("clear", "--force", env=env)
    assert done.status == 1
    assert "protected" in done.err
    assert run("index", "os_hidden=true", env=env).out == ""
    assert [one["id"] for one in json.loads(run("index", "--json", env=env).out)] == [kept]
    run("update", kept, "protected=false", env=env)
    assert run("clear", "-f", env=env).status == 0
    assert run("clear", env=env).status == 0


def test_download_writes_files_and_standard_output(
    headrace: Headrace, image: tuple[str, str], tmp_path: Path, server: Serving
) -> None:
    image_id, name = image
    done = headrace("-v", "download", image_id, "--file", tmp_path / "out")
    assert (done.status, done.out) == (0, "")
    assert "by splice" in done.err
    assert "sha512 verified" in done.err
    assert (tmp_path / "out").read_bytes() == DATA
    for options in ([], ["--no-verify"]):
        piped = subprocess.run(
            [COMMAND, "download", name, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment({"HEADRACE_URL": server.url}),
            timeout=60,
            check=True,
        )
        assert piped.stdout == DATA
        assert piped.stderr == b""


def test_a_dash_is_standard_output_and_a_slash_a_directory(
    server: Serving, headrace: Headrace, image: tuple[str, str], tmp_path: Path
) -> None:
    image_id, _ = image
    done = subprocess.run(
        [COMMAND, "download", image_id, "--file", "-"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=tmp_path,
        env=environment({"HEADRACE_URL": server.url}),
        timeout=60,
        check=True,
    )
    assert done.stdout == DATA
    assert headrace("download", image_id, "--file", f"{tmp_path}/new/").status == 2
    assert not list(tmp_path.iterdir())


def test_what_a_cut_leaves_is_named(tmp_path: Path) -> None:
    image_id = str(uuid.uuid4())
    record = {"id": image_id, "size": 10, "os_hash_algo": "sha256", "os_hash_value": "ab"}

    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer_json(record)
        wire.head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")

    def deny(wire: Wire) -> None:
        wire.head()
        wire.answer("503 Service Unavailable")

    with peer(serve, deny) as found:
        done = run("download", image_id, "--file", tmp_path / "out", "-U", found.url)
    (part,) = tmp_path.iterdir()
    assert done.status == 1
    assert f"5 bytes are kept in {part};" in done.err


@pytest.mark.parametrize("words", [["index"], ["--help"], ["index", "--json"], ["version"]])
def test_output_that_cannot_be_written_is_one_line(own: Serving, words: list[str]) -> None:
    env = {"HEADRACE_URL": own.url}
    run("add", "name=one", env=env)
    done = run(*words, env=env, under=["sh", "-c", 'exec "$0" "$@" >/dev/full'])
    assert (done.status, done.err) == (1, "headrace: No space left on device\n")


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_like_one_that_goes_nowhere(
    own: Serving, tmp_path: Path, closed: str
) -> None:
    env = {"HEADRACE_URL": own.url}
    (tmp_path / "in").write_bytes(b"text")
    under = ["sh", "-c", f'exec "$0" "$@" {closed}']
    image_id = run("add", f"path={tmp_path / 'in'}", env=env).image_id
    for words in (
        ["add", f"path={tmp_path / 'in'}"],
        ["index"],
        ["download", image_id, "--file", str(tmp_path / "out")],
        ["download", image_id],
    ):
        done = run(*words, env=env, under=under)
        assert (done.status, done.err) == (0, "")
    assert (tmp_path / "out").read_bytes() == b"text"
    assert run("show", str(uuid.uuid4()), env=env, under=under).status == 1
    run("clear", "-f", env=env)


@pytest.mark.parametrize(
    "options",
    [
        ["--timeout", "nan"],
        ["--timeout", "1e400"],
        ["--timeout", "1e9"],
        ["-U", "http://h/é"],
        ["-H", "a b"],
        ["-H", "a/b"],
        ["-H", "a@b"],
    ],
)
def test_an_option_without_sense_is_a_wrong_call(options: list[str]) -> None:
    done = run("index", *options)
    assert done.status == 2
    assert "Traceback" not in done.err


def test_a_server_cannot_steer_the_terminal() -> None:
    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer_json({"id": "\x1b[1m", "name": "\x9b2J"}, "200 \x1b]0;owned\x07")

    def refuse(wire: Wire) -> None:
        wire.head()
        wire.answer_json({"images": [{"id": "x\x1b[1m", "name": "a"}]})
        wire.head()
        wire.answer_json({"message": "no\x1b[2J"}, "403 Forbidden")

    image_id = str(uuid.uuid4())

    def change(wire: Wire) -> None:
        serve(wire)
        serve(wire)

    with peer(serve, serve, change, refuse) as found:
        env = {"HEADRACE_URL": found.url}
        outcomes = [
            run("-d", "show", image_id, env=env),
            run("show", "--json", image_id, env=env),
            run("update", "-v", image_id, "a=b", env=env),
            run("delete", "-f", "a", env=env),
        ]
    text = "".join(done.out + done.err for done in outcomes)
    assert r"\x1b]0;owned" in text
    assert r"no\x1b[2J" in text
    assert not {character for character in text if not character.isprintable()} - {"\n"}


def test_nothing_is_written_to_a_terminal(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, _ = image
    status, text = on_terminal(["download", image_id], {})
    assert status == 2
    assert "not written to a terminal" in text


@pytest.mark.slow
def test_on_a_terminal_the_list_stops_after_a_page(own: Serving) -> None:
    env = {"HEADRACE_URL": own.url}
    ids = [run("add", f"name={'n' * 40}{i}", env=env).image_id for i in range(7)]
    status, text = on_terminal(["index"], env, b"\nn\n")
    assert status == 0
    assert text.count("next page?") == 1
    assert sum(one in text for one in ids) == 7
    assert "n" * 29 + "…" in text
    status, text = on_terminal(["index"], env, b"n\n")
    assert sum(one in text for one in ids) == 5
    status, text = on_terminal(["index"], env, b"\x04")
    assert status == 0
    assert sum(one in text for one in ids) == 5
    # Each row takes two lines of 80 columns, of which there are five.
    status, text = on_terminal(["index"], env, b"\nn\n", columns=80)
    assert sum(one in text for one in ids) == 4
    status, text = on_terminal(["delete", ids[0]], env, b"y\n")
    assert status == 0
    assert "Deleted" in text
    status, text = on_terminal(["clear"], env, b"\n")
    assert status == 1
    assert len(json.loads(run("index", "--json", env=env).out)) == 6
    run("clear", "-f", env=env)


def test_a_progress_bar_is_drawn_on_a_terminal_alone(server: Serving, tmp_path: Path) -> None:
    env = {"HEADRACE_URL": server.url}
    (tmp_path / "data").write_bytes(DATA)
    _, text = on_terminal(["-v", "add", f"path={tmp_path / 'data'}"], env)
    assert "Uploading" in text
    assert "by sendfile" in text
    _, text = on_terminal(["-v", "add", "--no-progress", f"path={tmp_path / 'data'}"], env)
    assert "Uploading" not in text
    assert "Uploading" not in run("add", f"path={tmp_path / 'data'}", env=env).err


@pytest.mark.parametrize("where", ["before", "after"])
def test_options_may_stand_before_and_after_the_command(server: Serving, where: str) -> None:
    options = ["-H", "127.0.0.1", "-p", str(server.port), "--json"]
    words = [*options, "index", "name=x"] if where == "before" else ["index", "name=x", *options]
    done = run(*words, env={"HEADRACE_URL": "http://nowhere.invalid:1"})
    assert (done.status, done.out) == (0, "[]\n")


def test_two_ways_to_name_the_service_are_one_too_many() -> None:
    assert run("index", "-U", "http://h", "-p", "1").status == 2


def test_a_service_that_is_not_there_is_one_line() -> None:
    with peer() as gone:
        pass
    done = run("index", "-U", gone.url)
    assert (done.status, done.out) == (1, "")
    assert done.err == f"headrace: cannot reach {gone.url}: Connection refused\n"


def test_a_reader_that_goes_away_is_no_error_to_tell(own: Serving) -> None:
    env = {"HEADRACE_URL": own.url}
    run("add", "name=one", env=env)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as broken:
        done = subprocess.run(
            [COMMAND, "index"],
            stdin=subprocess.DEVNULL,
            stdout=broken,
            stderr=subprocess.PIPE,
            env=environment(env),
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_is_quiet() -> None:
    def hang(wire: Wire) -> None:
        wire.head()
        process.send_signal(2)
        wire.take(1)

    with peer(hang) as found:
        process = subprocess.Popen(
            [COMMAND, "index"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment({"HEADRACE_URL": found.url}),
        )
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


def test_summaries_are_those_of_the_commands() -> None:
    context = cli.make_context("headrace", [], resilient_parsing=True)
    for name, (_, _, summary) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help is not None
        assert command.help.split("\n\n")[0] == summary


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = run(name, "--help")
    assert done.status == 0
    assert done.out.startswith(f"Usage: headrace {name}")


def test_module_and_version() -> None:
    assert run("version").out.startswith("headrace ")
    assert run("--version").out == run("version").out


@pytest.mark.parametrize("options", [["-p", "1"], ["-v"], ["--json"], ["-A", "t"], ["-k"]])
def test_what_is_said_to_a_client_is_not_for_serve(tmp_path: Path, options: list[str]) -> None:
    # The address is refused as well, so that nothing is served whatever becomes of the options.
    words = ["serve", "--port", "0", "--host", "0.0.0.0", "--state-dir", str(tmp_path / "state")]
    done = run(*options, *words)
    assert done.status == 2
    assert "after its name" in done.err
    assert run("serve", "--drain-timeout", "nan").status == 2


def test_serving_everybody_must_be_meant(tmp_path: Path) -> None:
    done = run("serve", "--host", "0.0.0.0", "--port", "0", "--state-dir", tmp_path / "state")
    assert done.status == 2
    assert "--unauthenticated-ok" in done.err
    assert not (tmp_path / "state").exists()


def test_serving_everybody_is_said_loudly(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--unauthenticated-ok") as server:
        assert "NOBODY IS AUTHENTICATED" in server.log.read_text()


def test_passwords_in_clear_are_said_loudly(tmp_path: Path) -> None:
    write_accounts(tmp_path / "htpasswd", ("alice", "mine", "member"))
    for host, said in (("0.0.0.0", True), ("127.0.0.1", False)):
        with serving(tmp_path / host, "--host", host, env=by_password(tmp_path)) as server:
            assert ("PASSWORDS CROSS THE NETWORK" in server.log.read_text()) == said


def by_password(directory: Path) -> dict[str, str]:
    return {
        "OS_HEADRACE__AUTH_STRATEGY": "http_basic",
        "OS_HEADRACE__HTTP_BASIC_AUTH_USER_FILE": str(directory / "htpasswd"),
    }


def test_a_service_without_users_does_not_start(tmp_path: Path) -> None:
    done = run("serve", "--auth", "http_basic", "--port", "0", "--state-dir", tmp_path / "state")
    assert done.status in (1, 4)
    assert "headrace user add" in done.err


def test_nobody_is_asked_for_a_password_that_nobody_needs(tmp_path: Path) -> None:
    words = ["serve", "--port", "0", "--state-dir", tmp_path / "state"]
    done = run(*words, "--auth", "http_basic", "--unauthenticated-ok")
    assert (done.status, "unauthenticated_ok" in done.err) == (1, True)


def test_loopback_may_be_written_as_ipv6(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "::ffff:127.0.0.1") as server:
        done = run("-H", "127.0.0.1", "-p", str(server.port), "index")
        assert done.status == 0, done.err
