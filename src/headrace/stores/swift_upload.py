"""An upload into a Swift: segments, and at last the object that is made of them.

The object is a static large object, which names its segments with sizes and MD5s: Swift looks
whether they are what was put before there is such an object, and reads them whatever its listings
say at the time.  A Glance writes dynamic ones, whose segments are found by listing them; it reads
and deletes both.  Only where there are more segments than a manifest may name, it is a dynamic one
here, too.
"""

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from urllib.parse import unquote

from headrace import errors
from headrace.stores import wire
from headrace.stores.swift_account import Answer
from headrace.stores.swift_place import UPLOAD, Place
from headrace.stores.wire import Switch
from headrace.transfer.extent import Extent

_log = logging.getLogger(__name__)

MOST_SEGMENTS = 10_000
"""Of an object: a listing of more has several pages, and then a dynamic one has no size."""

_PAUSES = (0.0, 0.25, 1.0)  # seconds before each try
_FULL = frozenset({413, 507})  # a quota is used up; a disk is


class SwiftUpload:
    """See ``stores.window.Parts``; ``place`` is to become the object, whose location is ``url``.

    ``segment`` is the size of parts in bytes, ``named`` how many a manifest may name; ``create``
    makes a container that is missing.
    """

    def __init__(self, place: Place, url: str, segment: int, named: int, create: bool) -> None:
        self._place = place
        self._url = url
        self._segment = segment
        self._named = named
        self._create = create
        self._id = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._switch = Switch()
        self._begun: set[int] = set()
        self._parts: dict[int, tuple[str, int]] = {}  # MD5 and size
        self._made = False

    def size_of(self, number: int) -> int:
        if number >= MOST_SEGMENTS:
            raise errors.StoreFull()
        return self._segment

    def put(self, number: int, fd: int, offset: int, length: int, last: bool) -> None:
        if not length:
            return  # an empty object has no segments
        with self._lock:
            self._begun.add(number)
        # The only digest that Swift knows.
        digest = wire.digest("md5", fd, offset, length)
        failure: errors.Error = errors.StoreUnwritable()
        for tries, pause in enumerate(_PAUSES):
            if tries:
                _log.warning(
                    "part %d of image %s goes again: %s", number, self._place.name, failure
                )
            time.sleep(pause)
            try:
                self._put(self._part(number), fd, offset, length, digest)
            except (errors.ServiceUnavailable, errors.TransferError) as error:
                failure = error
            else:
                self._parts[number] = digest, length
                return
            if self._switch.off:
                break
        raise failure

    def complete(self, size: int) -> str:
        parts = sorted(self._parts.items())
        if sum(length for _, (_, length) in parts) != size:
            raise errors.StoreUnwritable()  # a defect of ours, which must not become an image
        headers = {"If-None-Match": "*", UPLOAD: self._id}
        query, body = {}, b""
        if len(parts) > self._named:
            headers["X-Object-Manifest"] = self._part(0).path[1:].rpartition("/")[0] + "/"
        elif parts:
            query = {"multipart-manifest": "put"}
            body = json.dumps(
                [
                    {"path": unquote(self._part(number).path), "etag": etag, "size_bytes": length}
                    for number, (etag, length) in parts
                ]
            ).encode()
        self._made = True  # or may be, until all is known
        answer = self._ask_to_make(query, headers, body)
        # Swift looks whether there is an object and then puts one, not in one step: who put it last
        # is who made it.  And an answer that did not come may have been a good one.
        if (answer is None or answer.status in (201, 412)) and self._place.upload() == self._id:
            return self._url
        if answer is None:
            raise errors.StoreUnwritable()
        if answer.status in (201, 412):
            raise errors.DataExists(image_id=self._place.name)
        raise self._refused(answer.status)

    def retract(self) -> None:
        if self._made and self._place.upload() == self._id:
            self._place.remove()
        self._made = False

    def stop(self) -> None:
        self._switch.turn_off()

    def abort(self) -> None:
        self.retract()
        self._place.remove_all([self._part(number) for number in sorted(self._begun)])

    def _part(self, number: int) -> Place:
        return self._place.beside(f"{self._place.name}/{self._id}/{number:08d}")

    def _put(self, part: Place, fd: int, offset: int, length: int, digest: str) -> None:
        """Put a part.  Raises StoreFull; StoreUnwritable, ServiceUnavailable and TransferError,
        after which it may be tried again."""
        answer = self._send(part, fd, offset, length, digest)
        if answer.status == 404 and self._create:
            self._create_container()
            answer = self._send(part, fd, offset, length, digest)
        if answer.status != 201:
            raise self._refused(answer.status)
        if answer.headers.get("Etag", "").strip('"') != digest:
            raise errors.TransferError(reason="the store has not got what was sent")

    def _send(self, part: Place, fd: int, offset: int, length: int, digest: str) -> Answer:
        with contextlib.closing(Extent(os.dup(fd), 0, offset + length)) as extent:
            extent.narrow(offset, length)
            return part.account.ask(
                "PUT",
                part.path,
                headers={"Etag": digest},
                body=extent,
                watched=self._switch.through,
            )

    def _ask_to_make(
        self, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> Answer | None:
        """The answer to the request for the object; None when there was none."""
        account, path = self._place.account, self._place.path
        try:
            answer = account.ask("PUT", path, query=query, headers=headers, body=body)
            if answer.status == 404 and self._create:  # of an empty image, the first thing there
                self._create_container()
                answer = account.ask("PUT", path, query=query, headers=headers, body=body)
        except errors.ServiceUnavailable as error:
            _log.warning("image %s: %s", self._place.name, error)
            return None
        return answer

    def _create_container(self) -> None:
        container = self._place.beside("").path.rstrip("/")
        status = self._place.account.ask("PUT", container).status
        if status not in (201, 202):
            raise self._refused(status)

    def _refused(self, status: int) -> errors.Error:
        """The error for an answer to what writes."""
        if status in _FULL:
            return errors.StoreFull()
        return errors.StoreUnwritable.because(self._place.account.refused(status))
