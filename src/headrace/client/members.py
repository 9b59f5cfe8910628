"""Members: with which projects an image is shared, and what they make of it."""

from collections.abc import Iterator
from urllib.parse import quote

from headrace.client.connection import Connection
from headrace.client.images import Images, Record, image_path
from headrace.errors import ClientError, Forbidden, NotFound


class Members:
    """The members of images behind ``connection``; records are the service's JSON objects.

    All methods raise ImageNotFound (or NotFound, of another server than Headrace), and Forbidden
    for an image that is not shared.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def list(self, image_id: str) -> list[Record]:
        """All members of an image."""
        answer = self.connection.request("GET", _path(image_id)).json()
        members = answer.get("members")
        if not isinstance(members, list):
            raise ClientError(reason="the answer holds no members: is this an image service?")
        return members

    def show(self, image_id: str, project: str) -> Record:
        """One member; MemberNotFound."""
        return self.connection.request("GET", _path(image_id, project)).json()

    def create(self, image_id: str, project: str) -> Record:
        """Share an image with a project, whose member is then pending; MemberExists."""
        body = {"member": project}
        return self.connection.request("POST", _path(image_id), body=body).json()

    def update(self, image_id: str, project: str, status: str) -> Record:
        """Set a member's status: accepted, rejected or pending; MemberNotFound."""
        body = {"status": status}
        return self.connection.request("PUT", _path(image_id, project), body=body).json()

    def delete(self, image_id: str, project: str) -> None:
        """Stop sharing an image with a project; MemberNotFound."""
        self.connection.request("DELETE", _path(image_id, project))

    def images(
        self, project: str, *, page_size: int | None = None
    ) -> Iterator[tuple[Record, Record]]:
        """The images shared with a project, each with the project's membership.

        The API has no such question: of every shared image that the caller may see, hidden ones
        too, the member is asked for, at a request each.
        """
        images = Images(self.connection)
        for hidden in ("false", "true"):
            shared = {"visibility": "shared", "member_status": "all", "os_hidden": hidden}
            for image in images.list(shared, page_size=page_size):
                try:
                    yield image, self.show(str(image["id"]), project)
                except (NotFound, Forbidden):
                    continue


def _path(image_id: str, project: str | None = None) -> str:
    path = f"{image_path(image_id)}/members"
    return path if project is None else f"{path}/{quote(project, safe='')}"
