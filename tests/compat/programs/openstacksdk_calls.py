"""openstacksdk.  Run by its own Python: FUNCTION URL FILE…"""

import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openstack
from openstack import exceptions
from openstack.connection import Connection


def connections(url: str) -> Iterator[Connection]:
    """The two ways of saying where the service is when there is no catalogue."""
    yield openstack.connect(auth_type="none", auth={"endpoint": url})
    yield openstack.connect(auth_type="none", image_endpoint_override=url)


@contextmanager
def raises(cls: type[Exception]) -> Iterator[None]:
    try:
        yield
    except cls as error:
        if type(error) is cls:
            return
        raise
    raise AssertionError(f"{cls.__name__} was not raised")


def round_trip(url: str, source: str, target: str) -> None:
    """Create with a file, list, find, update, download with its hash, delete."""
    data = Path(source).read_bytes()
    for cloud in connections(url):
        image = cloud.create_image(
            "sdk",
            filename=source,
            disk_format="raw",
            container_format="bare",
            tags=["a"],
            validate_checksum=True,
            wait=True,
            os_distro="debian",
        )
        assert (image.status, image.size, image.tags) == ("active", len(data), ["a"])
        assert image.checksum == hashlib.md5(data).hexdigest()
        assert image.id in {each.id for each in cloud.image.images()}
        assert [each.id for each in cloud.image.images(name="sdk", status="active")] == [image.id]
        assert cloud.image.find_image("sdk").id == image.id
        assert cloud.image.find_image(image.id).name == "sdk"
        # Nothing is uploaded again: the hashes it keeps in the image's properties are the file's.
        again = cloud.create_image("sdk", filename=source, validate_checksum=True)
        assert again.id == image.id

        changed = cloud.image.update_image(image.id, name="renamed", min_ram=512)
        assert (changed.name, changed.min_ram) == ("renamed", 512)
        assert cloud.update_image_properties(image=changed, meta={"note": "x=y"})
        assert cloud.image.get_image(image.id).properties["note"] == "x=y"

        cloud.image.download_image(image.id, output=target)
        assert Path(target).read_bytes() == data
        assert cloud.image.download_image(image.id).content == data
        cloud.image.delete_image(image.id, ignore_missing=False)
        assert cloud.image.find_image("renamed") is None
        cloud.close()


def members(url: str) -> None:
    """An image is shared, accepted, listed, taken back."""
    for cloud in connections(url):
        image = cloud.image.create_image(
            "shared by openstacksdk", container_format="bare", disk_format="raw"
        )
        made = cloud.image.add_member(image, member_id="yours")
        assert (made.image_id, made.member_id, made.status) == (image.id, "yours", "pending")
        with raises(exceptions.ConflictException):
            cloud.image.add_member(image, member_id="yours")
        changed = cloud.image.update_member("yours", image, status="accepted")
        assert changed.status == "accepted"
        assert cloud.image.get_member("yours", image).status == "accepted"
        assert cloud.image.find_member("yours", image).member_id == "yours"
        assert [each.member_id for each in cloud.image.members(image)] == ["yours"]
        found = cloud.image.images(
            visibility="shared", member_status="all", name="shared by openstacksdk"
        )
        assert [each.id for each in found] == [image.id]
        cloud.image.remove_member("yours", image, ignore_missing=False)
        with raises(exceptions.NotFoundException):
            cloud.image.remove_member("yours", image, ignore_missing=False)
        cloud.image.update_image(image.id, visibility="community")
        with raises(exceptions.ForbiddenException):
            cloud.image.add_member(image, member_id="yours")
        cloud.image.delete_image(image.id, ignore_missing=False)
        cloud.close()


def tags_and_actions(url: str, source: str) -> None:
    for cloud in connections(url):
        image = cloud.image.create_image(
            "tags", data=Path(source).read_bytes(), disk_format="raw", tags=["old"]
        )
        cloud.image.add_tag(image, "new")
        cloud.image.remove_tag(image, "old")
        assert cloud.image.get_image(image.id).tags == ["new"]
        assert [each.id for each in cloud.image.images(tag="new")] == [image.id]
        cloud.image.deactivate_image(image)
        assert cloud.image.get_image(image.id).status == "deactivated"
        assert [each.id for each in cloud.image.images(status="deactivated")] == [image.id]
        cloud.image.reactivate_image(image)
        assert cloud.image.get_image(image.id).status == "active"
        cloud.image.delete_image(image.id, ignore_missing=False)
        cloud.close()


def errors(url: str, source: str) -> None:
    """What is refused comes back as the SDK's own classes."""
    for cloud in connections(url):
        unknown = "00000000-0000-0000-0000-00000000dead"
        with raises(exceptions.NotFoundException):
            cloud.image.get_image(unknown)
        with raises(exceptions.NotFoundException):
            cloud.image.delete_image(unknown, ignore_missing=False)
        with raises(exceptions.BadRequestException):
            list(cloud.image.images(limit="many"))

        image = cloud.image.create_image(
            "errors", data=Path(source).read_bytes(), disk_format="raw", is_protected=True
        )
        with raises(exceptions.ConflictException):
            cloud.image.upload_image(container_format="bare", disk_format="raw", id=image.id)
        with raises(exceptions.ForbiddenException):
            cloud.image.delete_image(image.id, ignore_missing=False)
        cloud.image.update_image(image.id, is_protected=False)
        cloud.image.delete_image(image.id, ignore_missing=False)
        cloud.close()


def schemas(url: str) -> None:
    for cloud in connections(url):
        for name in ("image", "images", "member", "members"):
            found = getattr(cloud.image, f"get_{name}_schema")()
            assert (found.name, bool(found.properties)) == (name, True)
        cloud.close()


def waiting(url: str) -> None:
    """It asks until an image is as it should be, and until it is gone."""
    for cloud in connections(url):
        image = cloud.image.create_image("waiting", container_format="bare", disk_format="raw")
        assert cloud.image.wait_for_status(image, "queued", wait=10).id == image.id
        cloud.image.delete_image(image.id, ignore_missing=False)
        cloud.image.wait_for_delete(image, wait=10)
        cloud.close()


def stores(url: str, source: str) -> None:
    """Several stores."""
    for cloud in connections(url):
        found = list(cloud.image.stores())
        assert [store.id for store in found] == ["fast", "cheap", "web"]
        assert found[0].is_default
        detail = list(cloud.image.stores(details=True))
        assert [bool(store.properties) for store in detail] == [True, True, False]
        image = cloud.image.create_image("stores", filename=source, disk_format="raw", wait=True)
        image = cloud.image.get_image(image.id)
        assert (image.status, image.properties["stores"]) == ("active", "fast")
        assert image.locations[0]["metadata"] == {"store": "fast"}
        with raises(exceptions.ForbiddenException):
            cloud.image.delete_image(image.id, store="fast", ignore_missing=False)
        cloud.image.delete_image(image.id, ignore_missing=False)
        cloud.close()


def imports(url: str, source: str) -> None:
    """Data that is staged, imported to a store, and copied to another."""
    for cloud in connections(url):
        methods = cloud.image.get_import_info().import_methods["value"]
        assert methods == ["glance-direct", "web-download", "copy-image"]
        image = cloud.image.create_image(
            "imports", disk_format="raw", container_format="bare", allow_duplicates=True
        )
        cloud.image.stage_image(image, filename=source)
        assert cloud.image.get_image(image.id).status == "uploading"
        cloud.image.import_image(image, method="glance-direct", stores=["cheap"])
        cloud.image.wait_for_status(image, "active", interval=0.1, wait=60)
        assert cloud.image.get_image(image.id).properties["stores"] == "cheap"
        cloud.image.import_image(image, method="copy-image", all_stores=True)
        while "os_glance_import_task" in cloud.image.get_image(image.id).properties:
            time.sleep(0.1)
        assert cloud.image.get_image(image.id).properties["stores"] == "fast,cheap"
        assert {task.status for task in cloud.image.tasks()} == {"success"}
        cloud.image.delete_image(image.id, ignore_missing=False)
        cloud.close()


def tasks(url: str, source: str) -> None:
    """An image that a task makes of another one's data."""
    for cloud in connections(url):
        image = cloud.image.create_image("tasks", filename=source, disk_format="raw", wait=True)
        wanted = {
            "import_from": f"{url}/v2/images/{image.id}/file",
            "import_from_format": "raw",
            "image_properties": {"name": "made"},
        }
        task = cloud.image.create_task(type="import", input=wanted)
        task = cloud.image.wait_for_task(task, interval=0.1, wait=60)
        assert cloud.image.get_task(task.id).result == task.result
        made = cloud.image.get_image(task.result["image_id"])
        assert (made.name, made.hash_value) == ("made", cloud.image.get_image(image.id).hash_value)
        with raises(exceptions.BadRequestException):
            cloud.image.create_task(type="import", input={**wanted, "import_from": "file:///x"})
        for each in (made, image):
            cloud.image.delete_image(each.id, ignore_missing=False)
        cloud.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
