"""Imports: data that a service is sent to keep, fetches, or copies between its stores."""

import time
from collections.abc import Sequence

from headrace.client import upload as uploads
from headrace.client.connection import Connection
from headrace.client.images import Images, Record, image_path
from headrace.client.upload import Body
from headrace.errors import ClientError, NotFound
from headrace.transfer.engine import Moved, Progress

_LOCK = "os_glance_import_task"
_LOOK_AGAIN = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between two looks, the last one again and again


class Imports:
    """The imports of images behind ``connection``; records are the service's JSON objects."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def methods(self) -> list[str]:
        """The methods that the service has."""
        told = self.connection.request("GET", "/v2/info/import").json().get("import-methods")
        found = told.get("value") if isinstance(told, dict) else None
        if not isinstance(found, list):
            raise ClientError(reason="the answer holds no methods: is this an image service?")
        return [str(each) for each in found]

    def stage(self, image_id: str, body: Body, *, progress: Progress | None = None) -> Moved:
        """Send data that is to be imported by the method glance-direct; how it went."""
        return uploads.upload(self.connection, image_id, body, part="stage", progress=progress)

    def begin(
        self,
        image_id: str,
        method: str,
        *,
        uri: str | None = None,
        region: str | None = None,
        remote_id: str | None = None,
        stores: Sequence[str] = (),
        all_stores: bool = False,
        all_must_succeed: bool = True,
    ) -> None:
        """Have the service import an image's data; it answers before that is done.

        ``region`` and ``remote_id`` say which image the method glance-download takes.  ``stores``
        are ids, where there are several; ``all_must_succeed=False`` makes do with some of them.
        """
        where = {"uri": uri, "glance_region": region, "glance_image_id": remote_id}
        given = {name: value for name, value in where.items() if value}
        body: dict[str, object] = {"method": {"name": method, **given}}
        if all_stores:
            body["all_stores"] = True
        elif stores:
            body["stores"] = list(stores)
        if not all_must_succeed:
            body["all_stores_must_succeed"] = False
        self.connection.request("POST", f"{image_path(image_id)}/import", body=body)

    def tasks(self, image_id: str) -> list[Record]:
        """What was asked for an image, oldest first, and what became of it."""
        found = self.connection.request("GET", f"{image_path(image_id)}/tasks").json().get("tasks")
        if not isinstance(found, list):
            raise ClientError(reason="the answer holds no tasks: is this an image service?")
        return found

    def wait(self, image_id: str) -> Record:
        """Wait until an image's import is over; its record.

        Raises ClientError with what the service says of an import that failed, ImageNotFound.
        """
        images, looks = Images(self.connection), 0
        while _LOCK in (image := images.show(image_id)) or image.get("status") == "importing":
            time.sleep(_LOOK_AGAIN[min(looks, len(_LOOK_AGAIN) - 1)])
            looks += 1
        try:
            tasks = self.tasks(image_id)
        except NotFound:
            tasks = []
        if tasks and tasks[-1].get("status") == "failure":
            raise ClientError(reason=f"the import failed: {tasks[-1].get('message')}")
        return image
