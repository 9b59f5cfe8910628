"""python-glanceclient as a library.  Run by its own Python: FUNCTION URL FILE…"""

import hashlib
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import glanceclient
from glanceclient import exc
from glanceclient.v2.client import Client
from keystoneauth1 import noauth, session

FORMATS = {"disk_format": "raw", "container_format": "bare"}


def clients(url: str) -> Iterator[Client]:
    """The two ways of making one: with a token, and over a keystoneauth1 session."""
    yield glanceclient.Client(endpoint=f"{url}/v2", token="none")
    yield glanceclient.Client("2", session=session.Session(auth=noauth.NoAuth(endpoint=url)))


@contextmanager
def raises(cls: type[Exception]) -> Iterator[None]:
    try:
        yield
    except cls:
        return
    raise AssertionError(f"{cls.__name__} was not raised")


def round_trip(url: str, source: str) -> None:
    """Create, upload, list, show, update, download with its hash, delete."""
    data = Path(source).read_bytes()
    for glance in clients(url):
        image = glance.images.create(
            name="round trip", tags=["a", "b"], os_distro="debian", **FORMATS
        )
        assert image.status == "queued"
        assert sorted(image.tags) == ["a", "b"]
        with open(source, "rb") as file:
            glance.images.upload(image.id, file)
        image = glance.images.get(image.id)
        assert image.status == "active"
        assert (image.size, image.os_distro) == (len(data), "debian")
        found = glance.images.list(filters={"name": "round trip"}, sort_key="created_at")
        assert [each.id for each in found] == [image.id]

        changed = glance.images.update(image.id, remove_props=["os_distro"], name="ü", note="x=y,z")
        assert (changed.name, changed.note) == ("ü", "x=y,z")
        assert "os_distro" not in changed

        # Verified by os_hash_value while it is iterated over.
        assert b"".join(glance.images.data(image.id)) == data
        glance.images.delete(image.id)
        with raises(exc.HTTPNotFound):
            glance.images.get(image.id)


def pages(url: str) -> None:
    """A list that takes several requests, each image once."""
    for glance in clients(url):
        made = {glance.images.create(name="pages").id for _ in range(5)}
        found = [image.id for image in glance.images.list(page_size=2, filters={"name": "pages"})]
        assert len(found) == len(set(found)) == 5
        assert set(found) == made
        for image_id in made:
            glance.images.delete(image_id)


def errors(url: str, source: str) -> None:
    """What is refused comes back as the client's own classes."""
    for glance in clients(url):
        unknown = "00000000-0000-0000-0000-00000000dead"
        with raises(exc.HTTPNotFound):
            glance.images.get(unknown)
        with raises(exc.HTTPNotFound):
            glance.images.delete(unknown)
        with raises(exc.HTTPNotFound):
            glance.images.upload(unknown, io.BytesIO(b"data"))

        image = glance.images.create(name="errors", protected=True, **FORMATS)
        with raises(exc.HTTPConflict):
            glance.images.create(id=image.id)
        with raises(exc.HTTPForbidden):
            glance.images.delete(image.id)
        with raises(exc.HTTPBadRequest), open(source, "rb") as file:
            glance.images.upload(image.id, file, image_size=7)
        with open(source, "rb") as file:
            glance.images.upload(image.id, file)
        with raises(exc.HTTPConflict), open(source, "rb") as file:
            glance.images.upload(image.id, file)
        with raises(exc.HTTPForbidden):
            glance.images.update(image.id, disk_format="qcow2")
        glance.images.update(image.id, protected=False)
        glance.images.delete(image.id)

        wrong = glance.images.create(name="errors", disk_format="qcow2", container_format="bare")
        with raises(exc.HTTPException), open(source, "rb") as file:
            glance.images.upload(wrong.id, file)
        assert glance.images.get(wrong.id).status == "queued"
        # 204 is no data: None, where a body would be an iterator.
        assert glance.images.data(wrong.id).wrapped is None
        glance.images.delete(wrong.id)


def too_large(url: str, source: str) -> None:
    for glance in clients(url):
        image = glance.images.create(name="too large", **FORMATS)
        with raises(exc.HTTPOverLimit), open(source, "rb") as file:
            glance.images.upload(image.id, file)
        assert glance.images.get(image.id).status == "queued"
        glance.images.delete(image.id)


def members(url: str) -> None:
    """An image is shared, accepted, listed, taken back."""
    for glance in clients(url):
        image = glance.images.create(name="shared by glanceclient")
        made = glance.image_members.create(image.id, "yours")
        assert (made.image_id, made.member_id, made.status) == (image.id, "yours", "pending")
        with raises(exc.HTTPConflict):
            glance.image_members.create(image.id, "yours")
        assert glance.image_members.update(image.id, "yours", "accepted").status == "accepted"
        assert glance.image_members.get(image.id, "yours").status == "accepted"
        with raises(exc.HTTPBadRequest):
            glance.image_members.update(image.id, "yours", "undecided")
        found = [member.member_id for member in glance.image_members.list(image.id)]
        assert found == ["yours"]
        shared = {"visibility": "shared", "member_status": "all", "name": "shared by glanceclient"}
        assert [each.id for each in glance.images.list(filters=shared)] == [image.id]
        glance.image_members.delete(image.id, "yours")
        with raises(exc.HTTPNotFound):
            glance.image_members.delete(image.id, "yours")
        assert list(glance.image_members.list(image.id)) == []
        glance.images.update(image.id, visibility="public")
        with raises(exc.HTTPForbidden):
            glance.image_members.create(image.id, "yours")
        glance.images.delete(image.id)


def tags_and_actions(url: str, source: str) -> None:
    for glance in clients(url):
        image = glance.images.create(name="tags", tags=["old"], **FORMATS)
        for _ in range(2):
            glance.image_tags.update(image.id, "new")
        glance.image_tags.delete(image.id, "old")
        assert glance.images.get(image.id).tags == ["new"]
        assert [each.id for each in glance.images.list(filters={"tag": ["new"]})] == [image.id]
        with raises(exc.HTTPNotFound):
            glance.image_tags.delete(image.id, "old")
        with raises(exc.HTTPBadRequest):
            glance.image_tags.update(image.id, "x" * 256)

        with raises(exc.HTTPForbidden):
            glance.images.deactivate(image.id)
        with open(source, "rb") as file:
            glance.images.upload(image.id, file)
        glance.images.deactivate(image.id)
        assert glance.images.get(image.id).status == "deactivated"
        found = glance.images.list(filters={"status": "deactivated"})
        assert [each.id for each in found] == [image.id]
        glance.images.reactivate(image.id)
        assert glance.images.get(image.id).status == "active"
        with raises(exc.HTTPNotFound):
            glance.images.deactivate("00000000-0000-0000-0000-00000000dead")
        glance.images.delete(image.id)


def ids(glance: Client, **filters: object) -> set[str]:
    return {image.id for image in glance.images.list(filters=filters)}


def hidden_and_visible(url: str) -> None:
    """The filters that glance has options for."""
    for glance in clients(url):
        shown = glance.images.create(name="in:a,b", visibility="community", protected=True)
        hidden = glance.images.create(name="hidden", os_hidden=True)

        assert hidden.id not in ids(glance) | ids(glance, visibility="all")
        assert ids(glance, os_hidden=True) == {hidden.id}
        assert shown.id not in ids(glance)
        assert ids(glance, visibility="community") == {shown.id}
        assert shown.id in ids(glance, visibility="all", protected="true")
        glance.images.update(shown.id, protected=False, visibility="private")
        glance.images.update(hidden.id, os_hidden=False)
        assert {shown.id, hidden.id} <= ids(glance)
        for image in (shown, hidden):
            glance.images.delete(image.id)


def schema(url: str) -> None:
    """The client makes its model and its options from the schema."""
    for glance in clients(url):
        image = glance.schemas.get("image")
        assert image.is_base_property("disk_format")
        assert not image.is_base_property("os_distro")
        assert "images" in {item.name for item in glance.schemas.get("images").properties}


def stores(url: str, source: str, registered: str) -> None:
    """Several stores, and the locations of images in them."""
    data = Path(source).read_bytes()
    for glance in clients(url):
        assert glance.info.get_usage() == {}
        found = glance.images.get_stores_info()["stores"]
        assert [store["id"] for store in found] == ["fast", "cheap", "web"]
        detail = glance.images.get_stores_info_detail()["stores"]
        assert [store["type"] for store in detail] == ["file", "file", "http"]

        image = glance.images.create(name="stores", **FORMATS)
        with raises(exc.HTTPBadRequest), open(source, "rb") as file:
            glance.images.upload(image.id, file, backend="slow")
        with open(source, "rb") as file:
            glance.images.upload(image.id, file, backend="cheap")
        image = glance.images.get(image.id)
        assert image.stores == "cheap"
        assert image.direct_url.endswith(f"/cheap/{image.id}")
        assert b"".join(glance.images.data(image.id, prefer=["fast", "cheap"])) == data
        with raises(exc.HTTPForbidden):
            glance.images.delete_from_store("cheap", image.id)

        # Legacy: a second location, other metadata for it, and one of them removed again.
        location = f"file://{registered}"
        image = glance.images.add_location(image.id, location, {})
        assert [each["url"] for each in image.locations] == [image.direct_url, location]
        image = glance.images.update_location(image.id, location, {"rack": "7"})
        assert image.locations[1]["metadata"] == {"rack": "7"}
        glance.images.delete_locations(image.id, {location})
        assert len(glance.images.get(image.id).locations) == 1
        with raises(exc.HTTPForbidden):
            glance.images.delete_locations(image.id, {image.direct_url})
        with raises(exc.HTTPBadRequest):
            glance.images.add_location(image.id, "file:///etc/passwd", {})
        glance.images.delete(image.id)

        new = glance.images.create(name="location", **FORMATS)
        known = {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(data).hexdigest()}
        glance.images.add_image_location(new.id, location, known)
        deadline = time.monotonic() + 60
        while (image := glance.images.get(new.id)).status != "active":
            assert time.monotonic() < deadline, image
            time.sleep(0.05)
        assert image.os_hash_value == known["os_hash_value"]
        (shown,) = glance.images.get_image_locations(new.id)
        assert shown == {"url": location, "metadata": {}}
        assert b"".join(glance.images.data(new.id)) == data
        glance.images.delete(new.id)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
