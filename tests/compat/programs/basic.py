"""Clients that show a name and a password.  Run by their own Python: FUNCTION URL FILE…"""

import sys
from pathlib import Path

import glanceclient
import openstack
from glanceclient import exc
from glanceclient.v2.client import Client
from keystoneauth1 import http_basic, session
from openstack import exceptions


def openstacksdk(url: str, source: str, target: str) -> None:
    """A member creates with a file, downloads and deletes; a reader and a wrong password do not."""

    def connect(name: str, password: str) -> openstack.connection.Connection:
        # With the version: by this auth_type openstacksdk does not look for one.
        auth = {"endpoint": f"{url}/v2", "username": name, "password": password}
        return openstack.connect(auth_type="http_basic", auth=auth)

    cloud = connect("alice", "alice-secret")
    image = cloud.create_image(
        "sdk", filename=source, disk_format="raw", container_format="bare", wait=True
    )
    assert image.owner == "mine"
    cloud.image.download_image(image.id, output=target)
    assert Path(target).read_bytes() == Path(source).read_bytes()
    try:
        connect("rita", "rita-secret").image.delete_image(image.id)
    except exceptions.ForbiddenException:
        pass
    else:
        raise AssertionError("a reader deletes")
    try:
        list(connect("alice", "wrong").image.images())
    except exceptions.HttpException as error:
        if error.status_code != 401:
            raise
    else:
        raise AssertionError("a wrong password lists")
    cloud.image.delete_image(image.id)


def glance(url: str, source: str) -> None:
    """glanceclient over a session of keystoneauth1's."""

    def client(name: str, password: str) -> Client:
        auth = http_basic.HTTPBasicAuth(endpoint=url, username=name, password=password)
        return glanceclient.Client("2", session=session.Session(auth=auth))

    mine = client("alice", "alice-secret")
    image = mine.images.create(name="glance", disk_format="raw", container_format="bare")
    with open(source, "rb") as data:
        mine.images.upload(image.id, data)
    assert b"".join(mine.images.data(image.id)) == Path(source).read_bytes()
    try:
        client("alice", "wrong").images.get(image.id)
    except exc.HTTPUnauthorized:
        pass
    else:
        raise AssertionError("a wrong password shows")
    mine.images.delete(image.id)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
