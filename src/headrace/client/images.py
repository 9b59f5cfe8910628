"""Images of a service: records by JSON, data by the cheapest way the descriptors allow."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from headrace.client import download as downloads
from headrace.client import upload as uploads
from headrace.client.connection import Connection, Query
from headrace.client.download import Downloaded
from headrace.client.upload import Body
from headrace.errors import ClientError, Error, ImageNotFound, NotFound
from headrace.transfer.engine import Moved, Progress

PATCH = "application/openstack-images-v2.1-json-patch"
IMAGES = "/v2/images"

Record = dict[str, object]


class Images:
    """The images behind ``connection``; records are the service's JSON objects.

    What they hold is said in the OpenStack Image API v2 reference.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def create(self, **properties: object) -> Record:
        """Make a record without data; ``properties`` as the service takes them."""
        return self.connection.request("POST", IMAGES, body=properties).json()

    def url(self, image_id: str) -> str:
        """The URL of one image's record."""
        return self.connection.url(image_path(image_id))

    def show(self, image_id: str) -> Record:
        """The record of one image; ImageNotFound."""
        try:
            return self.connection.request("GET", image_path(image_id)).json()
        except NotFound as error:
            raise _not_found(error, image_id) from error

    def list(
        self,
        filters: Query | None = None,
        *,
        limit: int | None = None,
        sort: str | None = None,
        marker: str | None = None,
        page_size: int | None = None,
    ) -> Iterator[Record]:
        """The images that pass ``filters``, at most ``limit`` of them, page after page.

        ``sort`` is ``key[:asc|desc],…``; ``marker`` is the id after which to start; ``page_size``
        is how many to ask for at a time (None: as many as the service likes).
        """
        left = limit
        while left is None or left > 0:
            wanted = page_size if left is None else min(page_size or left, left)
            page = self._page(filters, wanted, sort, marker)
            images = page.get("images")
            if not isinstance(images, list):
                raise ClientError(reason="the answer holds no images: is this an image service?")
            yield from images if left is None else images[:left]
            left = None if left is None else left - len(images)
            follower = next_marker(page.get("next"))
            if follower is None or follower == marker:
                return
            marker = follower

    def update(
        self, image_id: str, changes: Mapping[str, object], removals: Iterable[str] = ()
    ) -> Record:
        """Set the properties in ``changes``, remove those in ``removals``, leave all others.

        ``add`` sets a property whether it exists or not, where ``replace`` of one that does not
        is a conflict.
        """
        patch: list[dict[str, object]] = [
            {"op": "add", "path": pointer(name), "value": value} for name, value in changes.items()
        ]
        patch += [{"op": "remove", "path": pointer(name)} for name in removals]
        try:
            return self.connection.request(
                "PATCH", image_path(image_id), body=patch, media_type=PATCH
            ).json()
        except NotFound as error:
            raise _not_found(error, image_id) from error

    def delete(self, image_id: str) -> None:
        try:
            self.connection.request("DELETE", image_path(image_id))
        except NotFound as error:
            raise _not_found(error, image_id) from error

    def add_tag(self, image_id: str, tag: str) -> None:
        """Tag an image, which may have the tag already."""
        self.connection.request("PUT", _tag_path(image_id, tag))

    def delete_tag(self, image_id: str, tag: str) -> None:
        """Take a tag away; TagNotFound."""
        self.connection.request("DELETE", _tag_path(image_id, tag))

    def deactivate(self, image_id: str) -> None:
        """Take an active image out of use: only administrators can then fetch its data."""
        self.connection.request("POST", f"{image_path(image_id)}/actions/deactivate")

    def reactivate(self, image_id: str) -> None:
        """Put a deactivated image to use again."""
        self.connection.request("POST", f"{image_path(image_id)}/actions/reactivate")

    def add_location(self, image_id: str, url: str) -> None:
        """Have a queued image's data be what lies at ``url``; the service hashes it by and by."""
        path = f"{image_path(image_id)}/locations"
        try:
            self.connection.request("POST", path, body={"url": url})
        except NotFound as error:
            raise _not_found(error, image_id) from error

    def upload(
        self,
        image_id: str,
        source: int | str | os.PathLike[str] | Body,
        *,
        size: int | None = None,
        store: str | None = None,
        progress: Progress | None = None,
    ) -> Moved:
        """Send the data of a queued image; how it went.

        ``source`` is a path, or a descriptor read from its position to its end: a regular file is
        sent by sendfile, a pipe is spliced, anything else and all of HTTPS is copied.  ``size``, if
        it is known for a source that cannot tell, lets the service check it.  ``store`` is the id
        of the one that is to have the data, where there are several.  ``progress`` is called with
        the bytes sent so far.
        """
        if isinstance(source, Body):
            return uploads.upload(self.connection, image_id, source, store=store, progress=progress)
        if isinstance(source, int):
            body = Body.of(source, size=size)
            return uploads.upload(self.connection, image_id, body, store=store, progress=progress)
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self.upload(image_id, fd, size=size, store=store, progress=progress)
        finally:
            os.close(fd)

    def download(
        self,
        image: str | Record,
        target: int | str | os.PathLike[str],
        *,
        prefer: Sequence[str] = (),
        resume: bool = True,
        verify: bool = True,
        progress: Progress | None = None,
    ) -> Downloaded:
        """Fetch an image's data into the file ``target``, or into a descriptor; how it went.

        ``image`` is an id, or the record if it is at hand.

        A file appears under its name, atomically, only when it is whole and its hash is the one
        the service recorded (DataCorrupt otherwise); a file that was there is replaced.  What came
        before a cut is kept beside it and continued from, unless ``resume`` is False.

        A descriptor gets the bytes as they come, so DataCorrupt is known only after the fact.
        To be hashed on their way into a pipe the bytes must be copied: the system call that could
        duplicate them, tee(2), Python does not offer.  ``verify=False`` splices them.

        ``prefer`` are the stores that the data should rather come from, where there are several.
        ``progress`` is called with the bytes there so far.
        """
        record = self.show(image) if isinstance(image, str) else image
        if isinstance(target, int):
            return downloads.to_descriptor(
                self.connection, record, target, prefer=prefer, verify=verify, progress=progress
            )
        return downloads.to_file(
            self.connection,
            record,
            Path(target),
            prefer=prefer,
            resume=resume,
            verify=verify,
            progress=progress,
        )

    def _page(
        self, filters: Query | None, limit: int | None, sort: str | None, marker: str | None
    ) -> Record:
        # Glance's `next` link loses all but the last of a repeated parameter, such as tag, so only
        # the marker is taken from it.
        query = dict(filters or {})
        query |= {"limit": str(limit)} if limit is not None else {}
        query |= {"sort": sort} if sort else {}
        query |= {"marker": marker} if marker else {}
        return self.connection.request("GET", IMAGES, query=query).json()


def image_path(image_id: str) -> str:
    return f"{IMAGES}/{quote(image_id, safe='')}"


def _tag_path(image_id: str, tag: str) -> str:
    return f"{image_path(image_id)}/tags/{quote(tag, safe='')}"


def pointer(name: str) -> str:
    """The JSON pointer (RFC 6901 §3) of the property ``name``."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def next_marker(link: object) -> str | None:
    """The marker in a list's ``next`` link; None if there is no next page."""
    if not isinstance(link, str):
        return None
    return parse_qs(urlsplit(link).query).get("marker", [None])[-1]


def _not_found(error: Error, image_id: str) -> Error:
    """ImageNotFound in place of what another server, or another text, calls it."""
    return ImageNotFound(image_id=image_id) if type(error) is NotFound else error
