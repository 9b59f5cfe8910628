"""One database with metadata definitions, and a Glance 33 and a Headrace that both work on it."""

import http.client
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from benchmarks import glance
from headrace.db import engine, metadefs
from headrace.service import definitions
from tests.cli.conftest import run
from tests.needs import require_environment
from tools.serving import Serving, environment, serving

pytestmark = pytest.mark.slow

NAMESPACES = "/v2/metadefs/namespaces"
OURS = "Headrace::Libvirt::Disks"
THEIRS = "OS::Compute::LibvirtImage"
FULL = {
    "namespace": "OS::Test::Full",
    "display_name": "Fäll",
    "description": "x",
    "visibility": "public",
    "owner": "somebody",
    "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "x_"}],
    "properties": {
        "count": {
            "title": "C", "type": "integer", "minimum": 0, "maximum": 5, "default": 3,
            "readonly": True, "confidential": False,
        },
        "list": {
            "title": "L", "type": "array", "items": {"type": "string", "enum": ["ä"]},
            "minItems": 0, "maxItems": 3, "uniqueItems": True, "additionalItems": False,
        },
        "text": {
            "title": "T", "description": "d", "type": "string", "minLength": 1, "maxLength": 9,
            "pattern": "^a$", "enum": ["a"], "default": "a", "operators": ["<in>"],
        },
    },
    "objects": [
        {
            "name": "o", "description": "d", "required": ["p", "q"],
            "properties": {"p": {"title": "P", "type": "boolean"}},
        },
        {"name": "empty"},
    ],
    "tags": [{"name": "t"}, {"name": "s"}],
}  # fmt: skip


@dataclass
class Both:
    glance: glance.Glance
    headrace: Serving

    def ask(self, method: str, path: str, body: object = None) -> tuple[Any, Any]:
        """What each of them answers, Glance first."""
        return tuple(ask(url, method, path, body) for url in (self.glance.url, self.headrace.url))  # type: ignore[return-value]


def ask(url: str, method: str, path: str, body: object = None) -> Any:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
    connection.request(
        method,
        path,
        None if body is None else json.dumps(body),
        {"Content-Type": "application/json", "Accept": "application/json"},
    )
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    assert answer.status < 400, (url, method, path, answer.status, data)
    return json.loads(data) if data else None


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Glance has made the database and loaded its own files, Headrace its own besides."""
    programs = require_environment(".venv-glance")
    directory = tmp_path_factory.mktemp("shared") / "glance"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    glance.prepare(directory, port)
    conf = directory / "glance-api.conf"
    loaded = subprocess.run(
        [programs / "glance-manage", "--config-file", conf, "db", "load_metadefs",
         "--path", programs.parent / "etc" / "glance" / "metadefs"],
        capture_output=True, text=True, env=environment({"PYTHONWARNINGS": "ignore"}),
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    connection = f"sqlite:///{directory}/glance.sqlite"
    ours = directory / "headrace.conf"
    ours.write_text(f"[database]\nconnection = {connection}\n")
    done = run("db", "load-metadefs", "--config-file", ours)
    assert done.status == 0, done.err
    env = {"OS_DATABASE__CONNECTION": connection}
    with glance.serving(directory) as peer, serving(directory / "state", env=env) as headrace:
        yield Both(peer, headrace)


def whole(document: Any) -> Any:
    """An answer about a namespace without what is up to each: order, and what is empty."""
    for each in [document, *document.get("objects", [])]:
        for key in ("self", "schema", "created_at", "updated_at"):
            each.pop(key, None)
        # Glance shows an empty list or object here where nothing is set.
        for key in ("required", "properties"):
            if not each.get(key):
                each.pop(key, None)
    for each in document.get("resource_type_associations", []):
        for key in ("created_at", "updated_at"):
            each.pop(key, None)
    for each in document.get("properties", {}).values():
        each.pop("name", None)
    for key in ("objects", "tags", "resource_type_associations"):
        document.get(key, []).sort(key=lambda each: each["name"])
    return document


def same(both: Both, name: str, query: str = "") -> Any:
    """The namespace, which both show the same."""
    theirs, ours = both.ask("GET", f"{NAMESPACES}/{quote(name, safe='')}{query}")
    assert whole(ours) == whole(theirs)
    return ours


def test_both_list_and_show_what_both_have_loaded(both: Both) -> None:
    files = Path(glance.VENV / "etc" / "glance" / "metadefs").glob("*.json")
    expected = {json.loads(file.read_text())["namespace"] for file in files} | {OURS}
    theirs, ours = both.ask("GET", f"{NAMESPACES}?limit=100&sort_key=namespace&sort_dir=asc")
    listed = [each["namespace"] for each in ours["namespaces"]]
    assert listed == [each["namespace"] for each in theirs["namespaces"]]
    assert expected <= set(listed)
    for name in listed:
        same(both, name)
        same(both, name, "?resource_type=OS::Glance::Image")
    for kind in ("properties", "objects", "tags", "resource_types"):
        theirs, ours = both.ask("GET", f"{NAMESPACES}/{THEIRS}/{kind}")
        assert ours.keys() == theirs.keys()
    theirs, ours = both.ask("GET", "/v2/metadefs/resource_types")
    assert {each["name"] for each in ours["resource_types"]} == {
        each["name"] for each in theirs["resource_types"]
    }


def test_each_reads_and_changes_what_the_other_writes(both: Both) -> None:
    for writer in (both.glance.url, both.headrace.url):
        reader = both.headrace.url if writer == both.glance.url else both.glance.url
        ask(writer, "POST", NAMESPACES, FULL)
        path = f"{NAMESPACES}/{FULL['namespace']}"
        found = same(both, str(FULL["namespace"]))
        assert found["properties"]["count"]["default"] == "3"
        assert found["objects"][1]["required"] == ["p", "q"]
        ask(writer, "POST", f"{path}/properties", {"name": "n", "title": "N", "type": "string"})
        ask(writer, "POST", f"{path}/objects", {"name": "m"})
        ask(writer, "POST", f"{path}/tags/u")
        same(both, str(FULL["namespace"]))
        ask(reader, "PUT", f"{path}/properties/n", {"name": "n2", "title": "N", "type": "number"})
        ask(reader, "PUT", f"{path}/objects/m", {"name": "m2", "required": ["x"]})
        ask(reader, "PUT", f"{path}/tags/u", {"name": "u2"})
        ask(reader, "POST", f"{path}/resource_types", {"name": "OS::Test::Type"})
        ask(reader, "PUT", path, {"namespace": "OS::Test::Full", "owner": "else"})
        found = same(both, str(FULL["namespace"]))
        assert found["properties"]["n2"]["type"] == "number"
        assert (found["owner"], found["visibility"]) == ("else", "private")
        ask(reader, "DELETE", f"{path}/resource_types/OS::Test::Type")
        ask(reader, "DELETE", path)
        theirs, ours = both.ask("GET", f"{NAMESPACES}?limit=100")
        assert len(theirs["namespaces"]) == len(ours["namespaces"])
        assert FULL["namespace"] not in {each["namespace"] for each in theirs["namespaces"]}


def test_our_loader_reads_glances_files_as_glances_does(both: Both, tmp_path: Path) -> None:
    files = glance.VENV / "etc" / "glance" / "metadefs"
    (tmp_path / "state").mkdir()
    done = run("db", "load-metadefs", "--state-dir", tmp_path / "state", "--path", files)
    assert done.status == 0, done.err
    ours = stored(tmp_path / "state" / "headrace.db")
    assert len(ours) == len(list(files.glob("*.json")))
    theirs = stored(both.glance.database)
    assert ours == {name: theirs[name] for name in ours}


def stored(path: Path) -> dict[str, dict[str, object]]:
    """The definitions of a database, as files have them, by their namespaces."""
    database = engine.connect(f"sqlite:///{path}")
    found = {each.namespace: definitions.document(each) for each in metadefs.show_all(database)}
    database.close()
    return found
