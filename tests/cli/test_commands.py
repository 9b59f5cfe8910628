"""The other commands: lists, records, downloads, exit statuses, completion."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli.main import COMMANDS, cli
from tests.cli.conftest import COMMAND, Headrace, run
from tests.cli.terminal import on_terminal
from tests.client.peer import Wire, peer
from tools.serving import Serving, environment, serving

DATA = os.urandom(200_000)


@pytest.fixture
def image(headrace: Headrace) -> tuple[str, str]:
    """The id and the name of an active image."""
    name = f"image-{uuid.uuid4()}"
    done = headrace("add", f"name={name}", "os_distro=debian", f"probe={name}", stdin=DATA)
    return done.image_id, name


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server whose images are these tests' own."""
    with serving(tmp_path_factory.mktemp("own")) as running:
        yield running


def test_index_is_the_table_of_2012(headrace: Headrace, image: tuple[str, str]) -> None:
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


def test_delete_asks_or_is_told(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, _ = image
    other = headrace("add", "name=other").image_id
    done = headrace("delete", image_id)
    assert done.status == 1
    assert "--force" in done.err
    assert headrace("show", image_id).status == 0
    assert "Would delete" in headrace("delete", "--dry-run", image_id).out
    assert headrace("show", image_id).status == 0

    missing = str(uuid.uuid4())
    done = headrace("delete", "-f", missing, image_id, other)
    assert done.status == 1
    assert f"image {missing} not found" in done.err
    for gone in (image_id, other):
        shown = headrace("show", gone)
        assert (shown.status, shown.out) == (1, "")
        assert shown.err == f"headrace: image {gone} not found\n"


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


def test_nothing_is_written_to_a_terminal(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, _ = image
    status, text = on_terminal(["download", image_id], {})
    assert status == 2
    assert "not written to a terminal" in text


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


def complete(line: str, server: Serving) -> list[str]:
    words = line.split()
    env = {
        "HEADRACE_URL": server.url,
        "_HEADRACE_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - (0 if line.endswith(" ") else 1)),
    }
    return [item.partition(",")[2] for item in run(env=env).out.splitlines() if item]


def test_completion_offers_commands_keys_values_and_images(
    server: Serving, image: tuple[str, str], tmp_path: Path
) -> None:
    image_id, name = image
    (tmp_path / "a file").touch()
    assert complete("headrace ind", server) == ["index"]
    assert "container_format=" in complete("headrace add ", server)
    assert complete("headrace add disk_format=qc", server) == ["disk_format=qcow2"]
    assert complete("headrace add disk_format = qc", server) == ["qcow2"]  # as bash breaks it
    assert complete("headrace index status=act", server) == ["status=active"]
    assert complete(f"headrace add path={tmp_path}/a", server) == [f"path={tmp_path}/a file"]
    assert complete(f"headrace show {image_id[:30]}", server) == [image_id]
    assert complete(f"headrace show {name}", server) == [name]
    assert image_id in complete("headrace delete ", server)
    with peer() as gone:
        pass
    assert complete(f"headrace -U {gone.url} show ", server) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    script = run("completion", shell)
    assert "_HEADRACE_COMPLETE" in script.out
    assert run("completion", env={"SHELL": f"/bin/{shell}"}).out == script.out


def test_where_to_listen_is_not_where_to_ask(tmp_path: Path) -> None:
    done = run("-p", "1", "serve", "--port", "0", "--state-dir", tmp_path / "state")
    assert done.status == 2
    assert "after its name" in done.err


def test_serving_everybody_must_be_meant(tmp_path: Path) -> None:
    done = run("serve", "--host", "0.0.0.0", "--port", "0", "--state-dir", tmp_path / "state")
    assert done.status == 2
    assert "--unauthenticated-ok" in done.err
    assert not (tmp_path / "state").exists()


def test_loopback_may_be_written_as_ipv6(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "::ffff:127.0.0.1") as server:
        done = run("-H", "127.0.0.1", "-p", str(server.port), "index")
        assert done.status == 0, done.err
