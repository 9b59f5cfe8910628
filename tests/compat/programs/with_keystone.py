"""openstacksdk and glanceclient, told of a Keystone alone (OS_*).  Run by their Python: SOURCE."""

import os
import sys
from pathlib import Path

import glanceclient
import openstack
from keystoneauth1 import session
from keystoneauth1.identity import v3
from openstack import exceptions


def sdk(source: str) -> None:
    """The service is found in the catalog; another project sees nothing of what is not shared."""
    data = Path(source).read_bytes()
    cloud = openstack.connect()
    image = cloud.create_image(
        "sdk", filename=source, disk_format="raw", container_format="bare", wait=True
    )
    assert image.owner == cloud.current_project_id
    assert cloud.image.download_image(image.id).content == data
    other = openstack.connect(project_name="other")
    assert other.current_project_id != cloud.current_project_id
    assert other.image.find_image(image.id) is None
    cloud.image.add_member(image.id, member_id=other.current_project_id)
    other.image.update_member(other.current_project_id, image.id, status="accepted")
    assert [each.id for each in other.image.images(visibility="shared")] == [image.id]
    try:
        other.image.delete_image(image.id, ignore_missing=False)
    except exceptions.ForbiddenException:
        pass
    else:
        raise AssertionError("deleted from another project")
    cloud.image.delete_image(image.id)


def glance(source: str) -> None:
    """By a session, which gets a new token when its own is no good any more (401)."""
    auth = v3.Password(
        **{
            name: os.environ[f"OS_{name.upper()}"]
            for name in (
                "auth_url",
                "username",
                "password",
                "project_name",
                "user_domain_id",
                "project_domain_id",
            )
        }
    )
    client = glanceclient.Client("2", session=session.Session(auth=auth))
    list(client.images.list())
    auth.auth_ref._auth_token = "x" * 180
    image = client.images.create(name="glance", disk_format="raw", container_format="bare")
    assert auth.auth_ref._auth_token != "x" * 180
    with open(source, "rb") as data:
        client.images.upload(image.id, data)
    assert b"".join(client.images.data(image.id)) == Path(source).read_bytes()
    client.images.delete(image.id)


if __name__ == "__main__":
    sdk(sys.argv[1])
    glance(sys.argv[1])
