"""tag, untag, deactivate and reactivate from the command line."""

import json
import uuid

import pytest

from tests.cli.conftest import Headrace
from tests.cli.test_completion import complete
from tests.faults.service import Service
from tools.serving import Serving


@pytest.fixture
def image(server: Serving) -> tuple[str, str]:
    """The id and the name of an active image."""
    name = f"tagged-{uuid.uuid4()}"
    return Service(server).active(b"data", name=name, tags=["old"]), name


def record(headrace: Headrace, image_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(headrace("show", image_id, "--json").out)
    return found


def test_tags_come_and_go(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, name = image
    done = headrace("tag", name, "new", "a b,c?", "new", "--", "-x")
    assert (done.status, done.err) == (0, "")
    assert done.out == f"Tagged image {image_id} {name}: new, a b,c?, -x\n"
    assert record(headrace, image_id)["tags"] == ["-x", "a b,c?", "new", "old"]
    done = headrace("untag", image_id, "old", "a b,c?")
    assert done.out == f"Untagged image {image_id} {name}: old, a b,c?\n"
    assert record(headrace, image_id)["tags"] == ["-x", "new"]
    found = json.loads(headrace("tag", name, "json", "--json").out)
    assert (found["id"], found["tags"]) == (image_id, ["-x", "json", "new"])


@pytest.mark.slow
def test_a_rehearsal_changes_nothing(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, name = image
    before = record(headrace, image_id)
    for words, told in (
        (["tag", name, "a", "b"], f"Would tag image {image_id} {name}: a, b\n"),
        (["untag", name, "old"], f"Would untag image {image_id} {name}: old\n"),
        (["deactivate", name], f"Would deactivate image {image_id} {name}\n"),
        (["reactivate", name], f"Would reactivate image {image_id} {name}\n"),
    ):
        done = headrace(*words, "--dry-run")
        assert (done.status, done.out, done.err) == (0, told, "")
    assert record(headrace, image_id) == before


def test_an_image_out_of_use_and_back(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, name = image
    done = headrace("deactivate", name)
    assert (done.status, done.out) == (0, f"Deactivated image {image_id} {name}\n")
    assert record(headrace, image_id)["status"] == "deactivated"
    assert headrace("deactivate", name).status == 0
    done = headrace("reactivate", image_id, "--json")
    assert json.loads(done.out)["status"] == "active"


def test_what_is_refused_is_one_line(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, _ = image
    queued = headrace("add", "name=queued").image_id
    for words, code in (
        (["untag", image_id, "missing"], "image.tag_not_found"),
        (["tag", image_id, "x" * 256], "request.invalid_property"),
        (["deactivate", queued], "image.status_forbids"),
        (["reactivate", str(uuid.uuid4())], "image.not_found"),
    ):
        done = headrace(*words)
        assert (done.status, done.out) == (1, "")
        assert done.err.endswith(f"[{code}]\n")
        assert len(done.err.splitlines()) == 1
    assert headrace("tag", image_id).status == 2


@pytest.mark.slow
def test_tags_are_offered(server: Serving, headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, name = image
    headrace("tag", image_id, "other", "$(touch owned)")
    assert complete(f"headrace untag {name} ", server.url) == ["old", "other"]
    assert complete(f"headrace untag {image_id} ot", server.url) == ["other"]
    assert complete(f"headrace deactivate {image_id[:30]}", server.url) == [image_id]
