"""headrace db load-metadefs, export-metadefs, unload-metadefs: files and a service's database."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from headrace import config
from headrace.db import engine, metadefs, migrate
from headrace.model import Namespace
from tests.cli.conftest import Outcome, run

OWN = sorted(file.name for file in (files("headrace") / "definitions").iterdir())

FILE = {
    "namespace": "OS::Test::File",
    "display_name": "File",
    "visibility": "public",
    "protected": True,
    "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "hw_"}],
    "properties": {"p": {"title": "P", "description": "d", "type": "integer", "default": 3}},
    "objects": [{"name": "o", "description": "d", "required": ["q"], "properties": {}}],
    "tags": [{"name": "t"}],
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state directory of a service, whose database is empty."""
    directory = tmp_path / "state"
    directory.mkdir()
    return directory


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    """A directory with one definition file."""
    directory = tmp_path / "definitions"
    directory.mkdir()
    write(directory / "file.json", **FILE)
    return directory


def write(path: Path, **document: object) -> None:
    path.write_text(json.dumps(document))


def db(word: str, state: Path, *options: str | Path) -> Outcome:
    return run("db", f"{word}-metadefs", "--state-dir", state, *options)


def stored(state: Path) -> dict[str, Namespace]:
    settings = {("headrace", "state_dir"): str(state)}
    database = engine.connect(config.database_url(config.load([], settings)))
    migrate.prepare(database)
    found = {each.namespace: each for each in metadefs.show_all(database)}
    database.close()
    return found


def test_nothing_is_loaded_unless_asked(state: Path) -> None:
    assert stored(state) == {}


@pytest.mark.slow
def test_our_own_definitions_are_loaded_and_exported_the_same(state: Path, tmp_path: Path) -> None:
    done = db("load", state)
    assert done.status == 0, done.err
    loaded = stored(state)
    assert len(loaded) == len(OWN) >= 5
    properties = {
        f"{association.prefix or ''}{each.name}"
        for namespace in loaded.values()
        for association in namespace.associations
        if association.name == "OS::Glance::Image"
        for each in namespace.properties
    }
    wanted = {
        "hw_disk_bus", "hw_vif_model", "hw_machine_type", "hw_firmware_type", "hw_video_model",
        "hw_qemu_guest_agent", "hw_scsi_model", "hw_cpu_cores", "os_distro", "os_version",
        "os_type", "os_secure_boot",
    }  # fmt: skip
    assert wanted <= properties
    for namespace in loaded.values():
        for each in namespace.properties:
            assert each.definition["title"]
            assert each.definition["description"]

    target = tmp_path / "out"
    target.mkdir()
    assert db("export", state, "--path", target).status == 0
    assert len(list(target.iterdir())) == len(OWN)
    assert db("unload", state, "--force").status == 0
    assert stored(state) == {}
    assert db("load", state, "--path", target).status == 0
    again = stored(state)
    assert {name: content(each) for name, each in again.items()} == {
        name: content(each) for name, each in loaded.items()
    }


def content(namespace: Namespace) -> Any:
    return (
        namespace.display_name,
        namespace.visibility,
        namespace.protected,
        namespace.owner,
        [(each.name, each.definition) for each in namespace.properties],
        [(each.name, each.required, each.properties) for each in namespace.objects],
        [each.name for each in namespace.tags],
        [(each.name, each.prefix) for each in namespace.associations],
    )


def test_a_file_is_loaded_as_it_is(state: Path, definitions: Path) -> None:
    for path in (definitions, definitions / "file.json"):
        assert db("load", state, "--path", path).status == 0
        found = stored(state)["OS::Test::File"]
        assert content(found) == (
            "File", "public", True, "admin",
            [("p", {"title": "P", "description": "d", "type": "integer", "default": "3"})],
            [("o", ("q",), {})],
            ["t"],
            [("OS::Glance::Image", "hw_")],
        )  # fmt: skip
        db("unload", state, "-f")


def test_the_settings_may_say_where_the_files_are(
    state: Path, definitions: Path, tmp_path: Path
) -> None:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(f"[DEFAULT]\nmetadata_source_path = {definitions}\n")
    assert db("load", state, "--config-file", conf).status == 0
    assert list(stored(state)) == ["OS::Test::File"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "titles"),
    [
        ([], {"p": "P"}),
        (["--merge"], {"p": "P", "new": "N"}),
        (["--merge", "--prefer-new"], {"p": "changed", "new": "N"}),
        (["--merge", "--prefer_new"], {"p": "changed", "new": "N"}),
        (["--merge", "--overwrite"], {"new": "N"}),
    ],
)
def test_what_is_there_is_merged_as_asked(
    state: Path, definitions: Path, options: list[str], titles: dict[str, str]
) -> None:
    db("load", state, "--path", definitions)
    changed = {
        "p": {"title": "changed", "type": "string"},
        "new": {"title": "N", "type": "string"},
    }
    if "--overwrite" in options:
        del changed["p"]
    write(definitions / "file.json", namespace="OS::Test::File", properties=changed)
    done = db("load", state, "--path", definitions, *options)
    assert done.status == 0, done.err
    found = stored(state)["OS::Test::File"]
    assert {each.name: each.definition["title"] for each in found.properties} == titles
    assert ("kept" in done.err) == (not options)


@pytest.mark.parametrize(
    "options", [["--overwrite"], ["--prefer-new"], ["--merge", "--prefer-new", "--overwrite"]]
)
def test_ways_of_merging_go_with_merge_and_not_together(state: Path, options: list[str]) -> None:
    assert db("load", state, *options).status == 2
    assert stored(state) == {}


def test_a_bad_file_keeps_no_other_from_being_loaded(state: Path, definitions: Path) -> None:
    (definitions / "a.json").write_text("{")
    write(definitions / "b.json", namespace="b", colour="red")
    write(definitions / "c.json", namespace="c", tags=[{"name": "t"}, {"name": "t"}])
    (definitions / "d.json").write_text("[" * 100_000)
    (definitions / "README").write_text("no JSON")
    done = db("load", state, "--path", definitions)
    assert done.status == 1
    assert "4 of 5 files were not loaded" in done.err
    assert "b.json was not loaded" in done.err
    assert list(stored(state)) == ["OS::Test::File"]


def test_a_directory_without_definitions_is_an_error(state: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert db("load", state, "--path", tmp_path / "empty").status == 2
    assert db("load", state, "--path", tmp_path / "missing").status == 2


def test_exported_files_stay_in_their_directory(
    state: Path, definitions: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(["../../out", "a:b", "a_b", "A:B", ".."]):
        write(definitions / f"{number}.json", namespace=name)
    db("load", state, "--path", definitions)
    target = tmp_path / "target"
    target.mkdir()
    assert db("export", state, "--path", target).status == 0
    assert len(list(target.iterdir())) == 6
    assert db("unload", state, "-f").status == 0
    assert db("load", state, "--path", target).status == 0
    assert set(stored(state)) == {"../../out", "a:b", "a_b", "A:B", "..", "OS::Test::File"}


def test_unloading_asks(state: Path) -> None:
    db("load", state)
    assert db("unload", state).status != 0
    assert len(stored(state)) == len(OWN)
