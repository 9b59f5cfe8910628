"""Sharing from the command line: member-add, -delete, -accept, -reject, and the two lists."""

import json
import uuid

import pytest

from tests.cli.conftest import Headrace
from tests.cli.test_completion import complete
from tools.serving import Serving


@pytest.fixture
def image(headrace: Headrace) -> tuple[str, str]:
    """The id and the name of an image."""
    name = f"shared-{uuid.uuid4()}"
    return headrace("add", f"name={name}").image_id, name


@pytest.fixture
def project() -> str:
    return f"project-{uuid.uuid4()}"


def statuses(headrace: Headrace, image_id: str) -> dict[str, str]:
    done = headrace("image-members", image_id, "--json")
    assert done.status == 0, done.err
    return {one["member_id"]: one["status"] for one in json.loads(done.out)}


def test_an_image_is_shared_accepted_and_taken_back(
    headrace: Headrace, image: tuple[str, str], project: str
) -> None:
    image_id, name = image
    assert headrace("image-members", name).out == ""
    done = headrace("member-add", name, project)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"Shared image {image_id} {name} with project {project}\n"
    assert statuses(headrace, image_id) == {project: "pending"}

    done = headrace("member-accept", image_id, project)
    assert done.out == f"Set image {image_id} {name}, shared with project {project}: accepted\n"
    head, rule, row = headrace("image-members", name).out.splitlines()
    assert (head.split(), row.split()) == (["Project", "Status"], [project, "accepted"])
    assert [len(dashes) for dashes in rule.split(" ")] == [36, 10]
    assert headrace("member-reject", name, project, "--json").status == 0
    assert statuses(headrace, image_id) == {project: "rejected"}

    done = headrace("member-delete", image_id, project)
    assert done.out == f"Stopped sharing image {image_id} {name} with project {project}\n"
    assert statuses(headrace, image_id) == {}


@pytest.mark.slow
def test_the_images_shared_with_a_project(
    headrace: Headrace, image: tuple[str, str], project: str
) -> None:
    image_id, name = image
    hidden = headrace("add", "name=hidden", "os_hidden=true").image_id
    headrace("add", "name=public", "visibility=public")
    assert headrace("member-images", project).out == ""
    headrace("member-add", image_id, project)
    headrace("member-add", hidden, project)
    headrace("member-add", hidden, f"{project}-other")
    headrace("member-accept", hidden, project)
    head, _, *rows = headrace("member-images", project).out.splitlines()
    assert head.split() == ["ID", "Name", "Status"]
    assert [row.split() for row in rows] == [
        [image_id, name, "pending"],
        [hidden, "hidden", "accepted"],
    ]
    found = json.loads(headrace("member-images", project, "--json").out)
    assert [(one["image"]["id"], one["member"]["status"]) for one in found] == [
        (image_id, "pending"),
        (hidden, "accepted"),
    ]


def test_a_rehearsal_changes_nothing(
    headrace: Headrace, image: tuple[str, str], project: str
) -> None:
    image_id, name = image
    told = f"image {image_id} {name}"
    done = headrace("member-add", name, project, "--dry-run")
    assert done.out == f"Would share {told} with project {project}\n"
    assert statuses(headrace, image_id) == {}
    headrace("member-add", name, project)
    done = headrace("member-accept", name, project, "--dry-run")
    assert done.out == f"Would set {told}, shared with project {project}: accepted\n"
    done = headrace("member-delete", name, project, "--dry-run")
    assert done.out == f"Would stop sharing {told} with project {project}\n"
    assert statuses(headrace, image_id) == {project: "pending"}


def test_json_is_the_service_s(headrace: Headrace, image: tuple[str, str], project: str) -> None:
    image_id, _ = image
    made = json.loads(headrace("member-add", image_id, project, "--json").out)
    assert (made["image_id"], made["member_id"], made["status"]) == (image_id, project, "pending")
    assert json.loads(headrace("image-members", image_id, "--json").out) == [made]
    changed = json.loads(headrace("member-accept", image_id, project, "--json").out)
    assert changed["status"] == "accepted"


@pytest.mark.slow
def test_what_is_refused_is_one_line(
    headrace: Headrace, image: tuple[str, str], project: str
) -> None:
    image_id, _ = image
    public = headrace("add", "name=public", "visibility=public").image_id
    headrace("member-add", image_id, project)
    for words, code in (
        (["member-add", image_id, project], "member.exists"),
        (["member-add", public, project], "image.not_shared"),
        (["image-members", public], "image.not_shared"),
        (["member-delete", image_id, "nobody"], "member.not_found"),
        (["member-accept", image_id, "nobody"], "member.not_found"),
        (["member-add", str(uuid.uuid4()), project], "image.not_found"),
    ):
        done = headrace(*words)
        assert (done.status, done.out) == (1, "")
        assert done.err.endswith(f"[{code}]\n")
        assert len(done.err.splitlines()) == 1
    assert headrace("member-add", image_id).status == 2


def test_a_project_cannot_steer_the_terminal(headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, _ = image
    out = headrace("member-add", image_id, "\x1b]0;owned\x07").out
    out += headrace("image-members", image_id).out
    assert "\x1b" not in out
    assert out.count(r"\x1b]0;owned\x07") == 2


@pytest.mark.slow
def test_members_are_offered(server: Serving, headrace: Headrace, image: tuple[str, str]) -> None:
    image_id, name = image
    for project in ("one", "other", "$(touch owned)"):
        headrace("member-add", image_id, project)
    assert complete("headrace member-acc", server.url) == ["member-accept"]
    assert complete(f"headrace member-add {name[:20]}", server.url) == [name]
    assert complete(f"headrace member-delete {name} ", server.url) == ["one", "other"]
    assert complete(f"headrace member-accept {image_id} ot", server.url) == ["other"]
    assert complete("headrace member-reject nobody o", server.url) == []
