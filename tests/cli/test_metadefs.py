"""headrace md: metadata definitions of a running service."""

import json
import uuid
from pathlib import Path

import pytest

from tests.cli.conftest import Headrace, run
from tests.cli.test_completion import complete
from tools.serving import Serving


@pytest.fixture
def name(headrace: Headrace, tmp_path: Path) -> str:
    """A namespace with something of everything."""
    made = f"OS::Test::{uuid.uuid4()}"
    document = {
        "namespace": made,
        "display_name": "A name",
        "description": "x=y,z",
        "visibility": "public",
        "properties": {
            "bus": {"type": "string", "title": "Bus", "enum": ["virtio", "scsi"]},
            "count": {"type": "integer", "title": "Count", "minimum": -1, "default": "2"},
        },
        "objects": [{"name": "cpu", "description": "Processors", "required": ["a", "b"]}],
        "tags": [{"name": "one"}, {"name": "two words"}],
        "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "hw_"}],
    }
    file = tmp_path / "whole.json"
    file.write_text(json.dumps(document))
    done = headrace("md", "import", file)
    assert done.status == 0, done.err
    return made


def test_what_is_imported_is_shown(headrace: Headrace, name: str) -> None:
    lines = headrace("md", "show", name).out.splitlines()
    assert lines[:5] == [
        f"Namespace: {name}",
        "Display name: A name",
        "Description: x=y,z",
        "Visibility: public",
        "Protected: No",
    ]
    assert lines[8:] == [
        "Resource type: OS::Glance::Image (prefix hw_)",
        "Property 'bus': Bus (string, one of scsi, virtio)",
        "Property 'count': Count (integer)",
        "Object 'cpu': Processors",
        "Tags: one, two words",
    ]
    prefixed = json.loads(
        headrace("md", "show", name, "--resource-type", "OS::Glance::Image", "--json").out
    )
    assert set(prefixed["properties"]) == {"hw_bus", "hw_count"}


@pytest.mark.slow
def test_words_make_what_a_file_does(headrace: Headrace, name: str) -> None:
    made = f"OS::Test::{uuid.uuid4()}"
    for words in (
        ["create", made, "display_name=A name", "description=x=y,z", "visibility=public"],
        ["set-property", made, "bus", "type=string", "title=Bus", "enum=virtio,scsi"],
        ["set-property", made, "count", "type=integer", "title=Count", "minimum=-1", "default=2"],
        ["set-object", made, "cpu", "description=Processors", "required=a,b"],
        ["add-tag", made, "one", "two words"],
        ["associate", made, "OS::Glance::Image", "prefix=hw_"],
    ):
        done = headrace("md", *words)
        assert done.status == 0, done.err

    def parts(namespace: str) -> dict[str, object]:
        found = json.loads(headrace("md", "show", namespace, "--json").out)
        for each in [found, *found["objects"], *found["resource_type_associations"]]:
            for key in ("namespace", "self", "created_at", "updated_at"):
                each.pop(key, None)
        return found

    assert parts(made) == parts(name)


@pytest.mark.slow
def test_namespaces_are_listed(headrace: Headrace, name: str) -> None:
    def listed(*words: str) -> list[str]:
        return [
            each["namespace"] for each in json.loads(headrace("md", "list", "--json", *words).out)
        ]

    other = f"OS::Test::{uuid.uuid4()}"
    headrace("md", "create", other)
    assert {name, other} <= set(listed())
    assert name in listed("visibility=public")
    assert other not in listed("visibility=public")
    assert name in listed("resource_types=OS::Glance::Image,x")
    assert other not in listed("resource_types=OS::Glance::Image,x")
    assert listed("--sort", "created_at:desc", "--limit", "1") == [other]
    assert listed("--sort", "created_at:desc", "--limit", "1", "--marker", other) == [name]
    assert f"{name} public   OS::Glance::Image" in " ".join(headrace("md", "list").out.split("\n"))
    assert "OS::Glance::Image" in headrace("md", "types").out.splitlines()
    assert headrace("md", "list", "colour=red").status == 2


def test_an_update_changes_what_is_named(headrace: Headrace, name: str) -> None:
    assert headrace("md", "update", name, "protected=yes", "display_name=").status == 0
    found = json.loads(headrace("md", "show", name, "--json").out)
    assert (found["protected"], found["display_name"]) == (True, "")
    assert (found["description"], found["visibility"]) == ("x=y,z", "public")
    assert set(found["properties"]) == {"bus", "count"}
    assert headrace("md", "update", name, "protected=no").status == 0


def test_a_definition_is_defined_anew(headrace: Headrace, name: str, tmp_path: Path) -> None:
    assert headrace("md", "set-property", name, "bus", "type=boolean", "title=New").status == 0
    path = tmp_path / "properties.json"
    path.write_text('{"cores": {"title": "Cores", "type": "integer"}}')
    assert headrace("md", "set-object", name, "cpu", f"path={path}").status == 0
    found = json.loads(headrace("md", "show", name, "--json").out)
    assert found["properties"]["bus"] == {"title": "New", "type": "boolean"}
    assert list(found["objects"][0]["properties"]) == ["cores"]
    assert "description" not in found["objects"][0]
    assert "Object 'cpu' property 'cores': Cores (integer)" in headrace("md", "show", name).out


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["set-property", "x", "p", "colour=red"], 2, "colour= is none of"),
        (["set-property", "x", "p", "minimum=a"], 2, "whole number"),
        (["set-property", "x", "p", "type=text", "title=t"], 1, "[request.invalid_body]"),
        (["set-property", "x", "p", "type=string", "title=t"], 1, "[metadef.namespace_not_found]"),
        (["show", "nothing"], 1, "namespace nothing not found [metadef.namespace_not_found]"),
        (["update", "nothing", "owner=x"], 1, "[metadef.namespace_not_found]"),
        (["create", "x", "protected=perhaps"], 2, "true or false"),
        (["set-object", "x", "o", "path=/nothing"], 2, "No such file"),
    ],
)
def test_errors_are_told(headrace: Headrace, words: list[str], status: int, text: str) -> None:
    done = headrace("md", *words)
    assert (done.status, text in done.err) == (status, True), done.err


@pytest.mark.slow
def test_removing_asks_or_is_told(headrace: Headrace, name: str) -> None:
    assert headrace("md", "remove", name, "tag", "one").status == 1
    assert "Would delete" in headrace("md", "remove", name, "tag", "one", "--dry-run").out
    for kind, part in (
        ("tag", "one"),
        ("tag", "two words"),
        ("property", "bus"),
        ("object", "cpu"),
        ("resource-type", "OS::Glance::Image"),
    ):
        assert headrace("md", "remove", name, kind, part, "-f").status == 0
    again = headrace("md", "remove", name, "tag", "one", "--force")
    assert (again.status, "[metadef.definition_not_found]" in again.err) == (1, True)
    found = json.loads(headrace("md", "show", name, "--json").out)
    assert list(found["properties"]) == ["count"]
    assert found.keys().isdisjoint({"tags", "objects", "resource_type_associations"})


@pytest.mark.slow
def test_deleting_asks_or_is_told(headrace: Headrace, name: str) -> None:
    assert headrace("md", "delete", name).status == 1
    assert "Would delete" in headrace("md", "delete", name, "--dry-run").out
    headrace("md", "update", name, "protected=true")
    refused = headrace("md", "delete", name, "-f")
    assert (refused.status, "[metadef.namespace_protected]" in refused.err) == (1, True)
    headrace("md", "update", name, "protected=false")
    done = headrace("md", "delete", "nothing", name, "-f")
    assert (done.status, done.out) == (1, f"Deleted namespace {name}\n")
    assert headrace("md", "show", name).status == 1


def test_what_is_shown_is_imported(headrace: Headrace, name: str, tmp_path: Path) -> None:
    document = json.loads(headrace("md", "show", name, "--json").out)
    file = tmp_path / "file.json"
    for key in ("self", "schema", "created_at", "updated_at"):
        del document[key]
    document["namespace"] = f"{name}-2"
    file.write_text(json.dumps(document))
    (tmp_path / "bad.json").write_text("[]")
    done = headrace("md", "import", tmp_path / "bad.json", file)
    assert (done.status, done.out) == (1, f"Created namespace {name}-2\n")
    assert "1 of 2 files were not imported" in done.err
    again = json.loads(headrace("md", "show", f"{name}-2", "--json").out)
    assert again["properties"] == document["properties"]
    assert again["tags"] == document["tags"]


def test_a_name_cannot_steer_the_terminal(headrace: Headrace) -> None:
    name = f"\x1b]0;owned\x07{uuid.uuid4()}"
    headrace("md", "create", name, "display_name=\x1b]0;owned\x07")
    assert "\x1b" not in headrace("md", "show", name).out + headrace("md", "list").out


@pytest.mark.slow
def test_namespaces_and_keys_are_completed(server: Serving, name: str) -> None:
    url = server.url
    assert complete("headrace md sh", url) == ["show"]
    assert complete(f"headrace md show {name[:-4]}", url) == [name.rpartition(":")[2]]
    assert "display_name=" in complete(f"headrace md update {name} ", url)
    assert complete(f"headrace md set-property {name} p type=int", url) == ["integer"]
    assert complete(f"headrace md remove {name} prop", url) == ["property"]
    run("md", "create", "x$(touch owned)", env={"HEADRACE_URL": url})
    assert complete("headrace md show x", url) == []
