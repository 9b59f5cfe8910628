"""Metadata definitions through OpenStack's own clients, on a running server."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat.conftest import Clients, Finished
from tests.compat.test_glance_cli import fields
from tools.serving import Serving

pytestmark = pytest.mark.slow

Run = Callable[..., Finished]

NAME = "OS::Test::Client"
TYPE = "OS::Glance::Image"
DOCUMENT = {
    "namespace": "OS::Test::Imported",
    "display_name": "Imported",
    "visibility": "public",
    "resource_type_associations": [{"name": TYPE, "prefix": "hw_"}],
    "properties": {"bus": {"title": "Bus", "type": "string", "enum": ["virtio"]}},
    "objects": [{"name": "o", "properties": {"p": {"title": "P", "type": "boolean"}}}],
    "tags": [{"name": "t"}],
}


@pytest.fixture
def glance(clients: Clients, server: Serving) -> Run:
    """``glance md-…``; it must succeed."""
    endpoint = ("--os-image-url", server.url, "--os-auth-token", "none")

    def run(word: str, *words: str | Path, status: int = 0) -> Finished:
        done = clients.run("glance", *endpoint, f"md-{word}", *words, stdin=subprocess.DEVNULL)
        assert done.status == status, done.text + done.stderr
        return done

    return run


def names(done: Finished) -> list[str]:
    """The names that a list printed, which has one column or more."""
    lines = [line for line in done.text.splitlines() if line.startswith("|")]
    return [line.split("|")[1].strip() for line in lines[1:]]


def test_glance_namespaces(glance: Run, tmp_path: Path) -> None:
    file = tmp_path / "namespace.json"
    file.write_text(json.dumps(DOCUMENT))
    assert fields(glance("namespace-import", "--file", file))["display_name"] == "Imported"
    shown = fields(glance("namespace-show", DOCUMENT["namespace"], "--resource-type", TYPE))
    assert "hw_bus" in shown["properties"]
    assert (shown["objects"], shown["tags"]) == ('["o"]', '["t"]')
    made = glance("namespace-create", NAME, "--description", "d", "--visibility", "public")
    assert fields(made)["description"] == "d"
    assert {NAME, DOCUMENT["namespace"]} <= set(names(glance("namespace-list", "--page-size", "1")))
    filtered = names(glance("namespace-list", "--resource-types", TYPE, "--visibility", "public"))
    assert DOCUMENT["namespace"] in filtered
    assert NAME not in filtered

    # It sends back all that it was shown, what is in the namespace too.
    imported = str(DOCUMENT["namespace"])
    changed = fields(glance("namespace-update", imported, "--display-name", "Changed"))
    assert (changed["display_name"], changed["tags"]) == ("Changed", '["t"]')
    glance("namespace-update", imported, "--protected", "True")
    glance("namespace-delete", imported, status=1)
    glance("namespace-update", imported, "--protected", "False")
    glance("namespace-delete", imported)
    glance("namespace-show", imported, status=1)
    glance("namespace-delete", NAME)


@pytest.fixture
def namespace(glance: Run) -> str:
    glance("namespace-create", "parts")
    return "parts"


def test_glance_parts(glance: Run, namespace: str) -> None:
    schema = json.dumps({"enum": ["virtio"], "default": "virtio", "description": "d"})
    options = ("--name", "bus", "--title", "Bus", "--type", "string", "--schema", schema)
    assert fields(glance("property-create", namespace, *options))["default"] == "virtio"
    assert names(glance("property-list", namespace)) == ["bus"]
    glance("property-update", namespace, "bus", "--name", "disk_bus", "--title", "Disk bus")
    assert fields(glance("property-show", namespace, "disk_bus"))["title"] == "Disk bus"
    glance("property-create", namespace, *options)
    glance("property-delete", namespace, "bus")
    glance("namespace-properties-delete", namespace)
    assert names(glance("property-list", namespace)) == []

    schema = json.dumps({"properties": {"cores": {"title": "Cores", "type": "integer"}}})
    glance("object-create", namespace, "--name", "cpu", "--schema", schema)
    glance("object-update", namespace, "cpu", "--name", "processor")
    assert fields(glance("object-show", namespace, "processor"))["name"] == "processor"
    shown = fields(glance("object-property-show", namespace, "processor", "cores"))
    assert shown["title"] == "Cores"
    assert names(glance("object-list", namespace)) == ["processor"]
    glance("object-create", namespace, "--name", "cpu", "--schema", schema)
    glance("object-delete", namespace, "cpu")
    glance("namespace-objects-delete", namespace)
    assert names(glance("object-list", namespace)) == []

    assert fields(glance("tag-create", namespace, "--name", "one"))["name"] == "one"
    glance("tag-update", namespace, "one", "--name", "uno")
    assert fields(glance("tag-show", namespace, "uno"))["name"] == "uno"
    glance("tag-create-multiple", namespace, "--names", "a,b")
    assert sorted(names(glance("tag-list", namespace))) == ["a", "b"]
    # Its --append does not work in 4.13: it wants to quote a True.  openstacksdk's does.
    glance("tag-delete", namespace, "a")
    assert names(glance("tag-list", namespace)) == ["b"]
    glance("namespace-tags-delete", namespace)
    assert names(glance("tag-list", namespace)) == []

    glance("resource-type-associate", namespace, "--name", TYPE, "--prefix", "hw_")
    assert TYPE in names(glance("resource-type-list"))
    assert names(glance("namespace-resource-type-list", namespace)) == [TYPE]
    glance("resource-type-deassociate", namespace, TYPE)
    assert names(glance("namespace-resource-type-list", namespace)) == []
    glance("resource-type-deassociate", namespace, TYPE, status=1)


def test_openstacksdk(clients: Clients, server: Serving) -> None:
    clients.call("openstacksdk_metadefs.py", "everything", server.url)


@pytest.fixture
def openstack(clients: Clients, server: Serving) -> Run:
    """``openstack image metadef …``; it must succeed."""
    endpoint = ("--os-auth-type", "none", "--os-endpoint", server.url)

    def run(words: str, *more: str) -> Finished:
        done = clients.run("openstack", *endpoint, "image", "metadef", *words.split(), *more)
        assert done.status == 0, done.text + done.stderr
        return done

    return run


def test_openstack(openstack: Run) -> None:
    openstack("namespace create osc --display-name o --public")
    openstack("namespace set osc --protected --tag a")
    assert "osc" in openstack("namespace list").text
    openstack("namespace set osc --unprotected --public")
    openstack("namespace unset osc --all-tags")

    schema = json.dumps({"description": "d"})
    openstack("property create osc --name p --title P --type string --schema", schema)
    openstack("property set osc p --name q --title Q --type string --schema", schema)
    assert "Q" in openstack("property show osc q").text
    assert "q" in openstack("property list osc").text
    openstack("property delete osc q")

    openstack("object create --namespace osc o")
    openstack("object update osc o --name r")
    assert "r" in openstack("object show osc r").text
    assert "r" in openstack("object list osc").text
    openstack("object delete osc r")

    openstack(f"resource type association create osc {TYPE}")
    assert TYPE in openstack("resource type list").text
    assert TYPE in openstack("resource type association list osc").text
    openstack(f"resource type association delete osc {TYPE}")
    assert "public" in openstack("namespace show osc").text
    openstack("namespace delete osc")
