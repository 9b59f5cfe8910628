"""The library's members, tags and actions, against a running service and others."""

import uuid
from collections.abc import Iterator

import pytest

from headrace import errors
from headrace.client import Connection, Images, Members
from tests.client.peer import Wire, peer
from tools.serving import Serving


@pytest.fixture
def connection(server: Serving) -> Iterator[Connection]:
    with Connection(server.url) as opened:
        yield opened


def test_members(connection: Connection) -> None:
    images, members = Images(connection), Members(connection)
    image_id = str(images.create(name="members")["id"])
    project = f"a b?{uuid.uuid4()}"
    made = members.create(image_id, project)
    assert (made["member_id"], made["status"]) == (project, "pending")
    assert members.update(image_id, project, "accepted")["status"] == "accepted"
    assert members.show(image_id, project)["status"] == "accepted"
    assert members.list(image_id) == [members.show(image_id, project)]
    ((image, member),) = members.images(project, page_size=2)
    assert (image["id"], member["status"]) == (image_id, "accepted")
    with pytest.raises(errors.MemberExists):
        members.create(image_id, project)
    members.delete(image_id, project)
    with pytest.raises(errors.MemberNotFound):
        members.delete(image_id, project)
    with pytest.raises(errors.ImageNotFound):
        members.list(str(uuid.uuid4()))
    assert list(members.images(project)) == []


def test_tags_and_actions(connection: Connection) -> None:
    images = Images(connection)
    image_id = str(images.create(name="tags")["id"])
    images.add_tag(image_id, "ä ?%#")
    images.add_tag(image_id, "ä ?%#")
    assert images.show(image_id)["tags"] == ["ä ?%#"]
    images.delete_tag(image_id, "ä ?%#")
    with pytest.raises(errors.TagNotFound):
        images.delete_tag(image_id, "ä ?%#")
    for act in (images.deactivate, images.reactivate):
        with pytest.raises(errors.StatusForbids):
            act(image_id)
        with pytest.raises(errors.ImageNotFound):
            act(str(uuid.uuid4()))


def test_words_of_a_path_stay_one_segment() -> None:
    lines: list[str] = []

    def serve(wire: Wire) -> None:
        for _ in range(3):
            head = wire.head()
            lines.append(f"{head.line} {head.headers.get('content-length')}")
            wire.answer("204 No Content")

    with peer(serve) as found, Connection(found.url) as connection:
        Members(connection).delete("../tasks", "../x?y")
        Images(connection).add_tag("an-id", "a/b")
        Images(connection).deactivate("an-id")
    assert lines == [
        "DELETE /v2/images/..%2Ftasks/members/..%2Fx%3Fy HTTP/1.1 None",
        "PUT /v2/images/an-id/tags/a%2Fb HTTP/1.1 0",
        "POST /v2/images/an-id/actions/deactivate HTTP/1.1 0",
    ]


def test_images_that_vanish_or_are_shared_no_longer_are_passed_over() -> None:
    """As one asks about each, others go on changing them; a service that is no Headrace, too."""

    def serve(wire: Wire) -> None:
        for listed in ([{"id": "1"}, {"id": "2"}, {"id": "3"}], []):
            wire.head()
            wire.answer_json({"images": listed})
            for image in listed:
                wire.head()
                if image["id"] == "2":
                    wire.answer_json({"member_id": "p", "status": "pending"})
                else:
                    wire.answer("404 Not Found" if image["id"] == "1" else "403 Forbidden")

    with peer(serve) as found, Connection(found.url) as connection:
        assert [image["id"] for image, _ in Members(connection).images("p")] == ["2"]


def test_an_answer_without_members_is_no_list() -> None:
    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer_json({"images": []})

    with (
        peer(serve) as found,
        Connection(found.url) as connection,
        pytest.raises(errors.ClientError, match="image service"),
    ):
        Members(connection).list("an-id")
