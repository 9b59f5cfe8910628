"""The S3 store: one object per image, in one bucket of any service that speaks S3.

An object appears whole, by one request: a PUT of what is small, the completion of what was uploaded
in parts.  Both are sent with ``If-None-Match: *``, so that they replace nothing; a service that
does not know that is asked before whether the name is free.  Each carries a token of the upload's
own as metadata, by which it is known again: after an answer that was lost, or said something else
than what was done, the object itself tells whether it is there.

Locations are Glance's: ``s3://HOST[:PORT]/BUCKET/KEY``, ``s3+https`` with TLS.  Old ones have keys
of access in front of the host, which are of no use here and never told.
"""

import contextlib
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from threading import Lock
from typing import NoReturn
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from headrace import errors
from headrace.model import IMAGE_ID, MIB
from headrace.stores.bucket import TOKEN, Bucket, Piece, Reply
from headrace.stores.origin import Fetched
from headrace.stores.remote import Later, Remote, Turns
from headrace.stores.window import AdoptedWindow, WindowWriter, new_window
from headrace.stores.wire import Switch

_log = logging.getLogger(__name__)

MOST_PARTS = 10_000
_LARGEST_PART = 5 << 30
_GROWTH = 1000  # parts of unknown data after which they are twice as large: 10 TB from 10 MB on
_SCHEMES = frozenset({"s3", "s3+http", "s3+https"})
_RETRIES = 5
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_SWEEPS = 24  # in the time after which an upload is a leftover; each asks what there is
_URL_LIFE = 60  # seconds; it is used at once
_FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "EntityTooLarge", "StorageFull"})
_EXISTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class ObjectParts:
    """An object on its way into a bucket; see ``stores.window.Parts``.

    ``size`` is how many bytes it will have (None: unknown), of which those of more than ``large``
    go in parts of ``chunk`` bytes and, since there may be so many only, more.
    """

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        url: str,
        size: int | None,
        *,
        large: int,
        chunk: int,
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._url = url
        self._chunk = chunk
        self._even = None
        if size is not None and size < min(large, _LARGEST_PART):
            self._even = max(size, 1)
        elif size is not None:
            self._even = max(chunk, -(-size // MOST_PARTS))
        self._token = str(uuid.uuid4())
        self._switch = Switch()
        self._starting = Lock()
        self._upload: str | None = None
        self._tags: dict[int, str] = {}
        self._visible = False  # or may be

    def size_of(self, number: int) -> int:
        if self._even is not None:
            return self._even
        return min(self._chunk << number // _GROWTH, _LARGEST_PART)

    def put(self, number: int, fd: int, offset: int, length: int, last: bool) -> None:
        piece = Piece(fd, offset, length)
        if last and number == 0:
            self._publish(length, partial(self._put_whole, piece))
            return
        query = {"partNumber": str(number + 1), "uploadId": self._begun()}
        reply = self._bucket.ask("PUT", self._key, query, body=piece, switch=self._switch)
        if not reply.fine:
            raise self._refusal(reply)
        self._tags[number] = reply.headers.get("ETag", "")

    def complete(self, size: int) -> str:
        if self._upload is not None:
            self._publish(size, self._put_together)
        return self._url

    def retract(self) -> None:
        found = self._bucket.head(self._key)
        if found is not None and found.token == self._token:
            reply = self._bucket.ask("DELETE", self._key)
            if not reply.fine:
                raise self._refusal(reply)
        self._visible = False

    def stop(self) -> None:
        self._switch.turn_off()

    def abort(self) -> None:
        upload, self._upload = self._upload, None
        try:
            if upload is not None:
                self._bucket.ask("DELETE", self._key, {"uploadId": upload})
        finally:
            if self._visible:
                self.retract()

    def _begun(self) -> str:
        """The upload's id, once it has begun."""
        with self._starting:
            if self._upload is None:
                ask = partial(
                    self._bucket.ask, "POST", self._key, {"uploads": ""}, self._headers(),
                    switch=self._switch,
                )  # fmt: skip
                reply = self._in_bucket(ask)
                upload = reply.document.findtext("UploadId")
                if not reply.fine or not upload:
                    raise self._refusal(reply)
                self._upload = upload
            return self._upload

    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/octet-stream", TOKEN: self._token}

    def _put_whole(self, piece: Piece, condition: dict[str, str]) -> Reply:
        headers = {**self._headers(), **condition}
        return self._in_bucket(
            lambda: self._bucket.ask("PUT", self._key, {}, headers, piece, switch=self._switch)
        )

    def _put_together(self, condition: dict[str, str]) -> Reply:
        parts = "".join(
            f"<Part><PartNumber>{number + 1}</PartNumber><ETag>{escape(tag)}</ETag></Part>"
            for number, tag in sorted(self._tags.items())
        )
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        query = {"uploadId": self._upload or ""}
        return self._bucket.ask("POST", self._key, query, condition, document)

    def _publish(self, size: int, ask: Callable[[dict[str, str]], Reply]) -> None:
        """Make the object visible, or raise; only the object itself is believed."""
        if self._bucket.head(self._key) is not None:
            raise errors.DataExists(image_id=self._key)
        failure: errors.Error | None = None
        self._visible = True
        try:
            reply = ask({"If-None-Match": "*"})
            if reply.code == "NotImplemented":  # an engine without conditions
                reply = ask({})
            if not reply.fine:
                failure = self._refusal(reply)
        except errors.ServiceUnavailable as error:
            failure = error
        found = self._bucket.head(self._key)
        if found is not None and found.token != self._token:
            # Swift looks whether there is one when a request begins, and not again at its end.
            raise errors.DataExists(image_id=self._key)
        if found is not None and found.size == size:
            if failure is not None:
                _log.warning("image %s is in its store whole, though: %s", self._key, failure)
            return
        raise failure or errors.StoreUnwritable()

    def _in_bucket(self, ask: Callable[[], Reply]) -> Reply:
        """The answer, once there is a bucket."""
        reply = ask()
        if self._bucket.is_to_be_made(reply):
            self._bucket.make()
            reply = ask()
        return reply

    def _refusal(self, reply: Reply) -> errors.Error:
        if reply.code in _EXISTS:
            return errors.DataExists(image_id=self._key)
        if reply.code in _FULL:
            return errors.StoreFull()
        return errors.StoreUnwritable.because(self._bucket.refusal(reply))


class S3Store:
    """The objects of one bucket; see ``stores.base.Store``.

    ``host`` is the service's, with a port and a scheme if need be (http otherwise).  Of ``large``
    bytes on an image is uploaded in parts of ``chunk`` bytes, ``streams`` at a time, through a
    window in the directory ``windows``.  ``creates`` makes a bucket that is missing.  ``most`` are
    open at a time in this process; OriginsBusy is raised for more.  ``passes_by`` hands out URLs
    that a server in front may fetch from.  An upload that got no part for ``left`` is nobody's any
    more.  Lists come in pages of ``page``.
    """

    kind = "s3"
    local = False
    writable = True

    def __init__(
        self,
        id: str,
        host: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        *,
        windows: str,
        region: str = "",
        style: str = "auto",
        creates: bool = False,
        large: int = 100 * MIB,
        chunk: int = 10 * MIB,
        streams: int = 10,
        cafile: str | None = None,
        stall: float = 60.0,
        pause: float = 0.2,
        most: int = 16,
        passes_by: bool = False,
        left: timedelta = timedelta(days=1),
        page: int = 1000,
    ) -> None:
        scheme, _, host = host.rpartition("://")
        host = host.rstrip("/")
        scheme = scheme.lower() or "http"
        if scheme not in ("http", "https") or not _HOST.fullmatch(host):
            raise errors.ConfigurationError(reason=f"store {id!r}: s3_store_host is no host")
        if not _BUCKET.fullmatch(bucket):
            raise errors.ConfigurationError(reason=f"store {id!r}: s3_store_bucket is no bucket")
        self._id = id
        self._bucket = Bucket(
            id, f"{scheme}://{host}", bucket, access_key, secret_key,
            region=region, style=style, creates=creates, cafile=cafile, stall=stall, pause=pause,
        )  # fmt: skip
        self._place = f"{host}/{bucket}"
        self._prefix = f"{'s3+https' if scheme == 'https' else 's3'}://{self._place}/"
        self._windows = windows
        self._large = large
        self._chunk = chunk
        self._streams = streams
        self._turns = Turns(most)
        self._passes_by = passes_by
        self._left = left.total_seconds()
        self._swept: float | None = None
        self._page = str(page)

    @property
    def id(self) -> str:
        return self._id

    @property
    def origin(self) -> str:
        """The scheme and host of what is ``presigned``."""
        return self._bucket.origin

    @property
    def properties(self) -> dict[str, object]:
        return {
            "s3_store_large_object_size": self._large,
            "s3_store_large_object_chunk_size": self._chunk,
            "s3_store_thread_pools": self._streams,
        }

    def url(self, image_id: str) -> str:
        if not IMAGE_ID.fullmatch(image_id):
            raise errors.BadRequest(reason="not an image id")
        return f"{self._prefix}{image_id}"

    def holds(self, url: str) -> bool:
        return self._key(url) is not None

    def metadata(self, url: str) -> dict[str, object]:
        return {}

    def check(self, url: str) -> NoReturn:
        # Another image's object, fetched with the service's own keys.
        raise errors.InvalidLocation()

    def create(self, image_id: str, size: int | None) -> WindowWriter:
        parts = self._parts(image_id, size)
        return WindowWriter(parts, new_window(self._windows), streams=self._streams)

    def adopt(self, image_id: str, fd: int) -> WindowWriter:
        parts = self._parts(image_id, os.fstat(fd).st_size)
        return AdoptedWindow(parts, os.dup(fd), streams=self._streams)

    def open(self, url: str) -> Remote:
        key = self._located(url)
        return self._turns.open(lambda: self._remote(url, key))

    def presigned(self, url: str) -> str | None:
        """A URL from which a server in front may fetch a location's data, or any range of them.

        It is plain but for its query.  None where it may not.
        """
        if not self._passes_by:
            return None
        key = self._located(url)
        query = {"response-content-type": "application/octet-stream"}
        return self._bucket.presigned(key, query, _URL_LIFE)

    def delete(self, url: str) -> None:
        key = self._located(url)
        if self._bucket.head(key) is None:
            raise errors.NotFound()
        reply = self._bucket.ask("DELETE", key)
        if reply.code == "AccessDenied":
            raise errors.Forbidden(reason=f"store {self._id} may not be written")
        if not reply.fine and reply.code != "NoSuchKey":
            raise self._bucket.refusal(reply)

    def held(self) -> Iterator[str]:
        query = {"list-type": "2", "max-keys": self._page}
        for page in self._pages("", query, {"continuation-token": "ContinuationToken"}):
            for key in page.document.iterfind("Contents/Key"):
                if key.text and IMAGE_ID.fullmatch(key.text):
                    yield key.text

    def sweep(self) -> int:
        markers = {"key-marker": "KeyMarker", "upload-id-marker": "UploadIdMarker"}
        if self._swept is not None and time.monotonic() - self._swept < self._left / _SWEEPS:
            return 0
        forgotten = sum(
            self._forget(upload)
            for page in self._pages("", {"uploads": "", "max-uploads": self._page}, markers)
            for upload in page.document.iterfind("Upload")
        )
        self._swept = time.monotonic()
        return forgotten

    def _key(self, url: str) -> str | None:
        """The object's name that a location of this store has, whatever keys are in front."""
        scheme, separator, rest = url.partition("://")
        if scheme not in _SCHEMES or not separator:
            return None
        place, _, key = rest.rpartition("/")
        return key if place.rpartition("@")[2] == self._place and IMAGE_ID.fullmatch(key) else None

    def _located(self, url: str) -> str:
        """The same; raises NotFound for what is no image's, StoreNotFound for another bucket."""
        key = self._key(url)
        if key is not None:
            return key
        scheme, _, rest = url.partition("://")
        if scheme in _SCHEMES and IMAGE_ID.fullmatch(rest.rpartition("/")[2]):
            raise errors.StoreNotFound(store=self._id)
        raise errors.NotFound()

    def _parts(self, image_id: str, size: int | None) -> ObjectParts:
        """Raises DataExists, StoreFull, ServiceUnavailable."""
        url = self.url(image_id)
        if size is not None and size > MOST_PARTS * _LARGEST_PART:
            raise errors.StoreFull()
        if self._bucket.head(image_id) is not None:
            raise errors.DataExists(image_id=image_id)
        return ObjectParts(
            self._bucket, image_id, url, size,
            large=self._large, chunk=self._chunk,
        )  # fmt: skip

    def _remote(self, url: str, key: str) -> Remote:
        if self._passes_by:
            found = self._bucket.head(key)
            if found is None:
                raise errors.NotFound()
            tag = found.tag
            return Remote(
                Later(partial(self._bucket.get, key, tag=tag)),
                found.size,
                lambda offset, length: Later(partial(self._part, key, tag, offset, length)),
                _RETRIES,
                partial(self.presigned, url),
            )
        fetched = self._bucket.get(key)
        try:
            if fetched.length is None:
                raise errors.ServiceUnavailable(reason=f"store {self._id} tells no size")
            tag = fetched.response.headers.get("ETag")
            return Remote(fetched, fetched.length, partial(self._part, key, tag), _RETRIES)
        except BaseException:
            fetched.close()
            raise

    def _part(self, key: str, tag: str | None, offset: int, length: int) -> Fetched:
        last = offset + length - 1
        fetched = self._bucket.get(key, f"bytes={offset}-{last}", tag)
        said = fetched.response.headers.get("Content-Range", "")
        if not said.startswith(f"bytes {offset}-{last}/") or fetched.length != length:
            fetched.close()
            raise errors.ServiceUnavailable(reason=f"store {self._id} sends another range")
        return fetched

    def _pages(self, key: str, query: dict[str, str], markers: dict[str, str]) -> Iterator[Reply]:
        """A list, page by page; none of what is not there (yet).

        ``markers`` are the words that ask for the page that begins where the last one says.
        Raises ServiceUnavailable.
        """
        query = dict(query)
        while True:
            reply = self._bucket.ask("GET", key, query)
            if reply.code == "NoSuchUpload" or self._bucket.is_to_be_made(reply):
                return
            if not reply.fine:
                raise self._bucket.refusal(reply)
            yield reply
            document = reply.document
            if document.findtext("IsTruncated") != "true":
                return
            following = {
                word: document.findtext(f"Next{name}", "") for word, name in markers.items()
            }
            if not any(following.values()):
                raise self._bucket.refusal(reply)
            query |= following

    def _forget(self, upload: Element) -> bool:
        """Abort an upload unless somebody may still be at it; whether it was."""
        key, upload_id = upload.findtext("Key", ""), upload.findtext("UploadId", "")
        if not IMAGE_ID.fullmatch(key):
            return False
        times = [upload.findtext("Initiated", "")]
        date = None
        query = {"uploadId": upload_id}
        parts = {**query, "max-parts": self._page}
        for page in self._pages(key, parts, {"part-number-marker": "PartNumberMarker"}):
            date = page.headers.get("Date")  # of the clock that wrote the others
            times += [each.text or "" for each in page.document.iterfind("Part/LastModified")]
        if date is None:
            return False  # it has ended by now
        idle = parsedate_to_datetime(date) - max(map(_time, times))
        if idle.total_seconds() < self._left:
            return False
        return self._bucket.ask("DELETE", key, query).fine


def _time(text: str) -> datetime:
    """As S3 writes it, ISO 8601 in UTC; what is no time is in the future, where nothing is old."""
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text)
    return datetime.max.replace(tzinfo=UTC)
