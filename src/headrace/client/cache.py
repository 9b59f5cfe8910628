"""The image cache of a service, for administrators."""

from urllib.parse import quote

from headrace.client.connection import Connection
from headrace.errors import ClientError

Record = dict[str, object]


class Cache:
    """The cache of the service behind ``connection``; NotFound if it has none."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def list(self) -> tuple[list[Record], list[str]]:
        """The records of what is cached, and the ids of what is queued, oldest first."""
        found = self.connection.request("GET", "/v2/cache").json()
        cached, queued = found.get("cached_images"), found.get("queued_images")
        if not (isinstance(cached, list) and isinstance(queued, list)):
            raise ClientError(reason="the answer holds no cache: is this an image service?")
        return cached, queued

    def queue(self, image_id: str) -> None:
        """Have an active image cached soon; BadRequest for others, and for nobody's."""
        self.connection.request("PUT", _path(image_id))

    def delete(self, image_id: str) -> None:
        """Remove an image from the cache and from its queue."""
        self.connection.request("DELETE", _path(image_id))

    def clear(self, part: str = "") -> None:
        """Remove all that is cached (``cache``), all that is queued (``queue``), or both."""
        headers = {"x-image-cache-clear-target": part}
        self.connection.request("DELETE", "/v2/cache", headers=headers)

    def clean(self) -> None:
        """Remove what is of no use: what failed, what was interrupted long ago."""
        self.connection.request("POST", "/v2/cache/clean")

    def prune(self) -> tuple[int, int]:
        """Make the cache fit its size; the images and the bytes that had to go."""
        found = self.connection.request("POST", "/v2/cache/prune").json()
        images, size = found.get("total_files_pruned"), found.get("total_bytes_pruned")
        if not (isinstance(images, int) and isinstance(size, int)):
            raise ClientError(reason="the answer does not say what had to go")
        return images, size


def _path(image_id: str) -> str:
    return f"/v2/cache/{quote(image_id, safe='')}"
