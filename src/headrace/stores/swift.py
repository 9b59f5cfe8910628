"""The Swift store: an object per image, ``<container>/<image id>``.

What an image is made of lies beside it, ``<image id>/<upload>/<number>`` (stores.swift_upload);
what a Glance put as one object, or as a large one, is read and removed as well.

Locations are ``swift+config://<reference>/<container>/<image id>``, which name no host and hold no
key.  Those that a Glance wrote with both (``swift+http://<user>:<key>@…``) are found, too, if they
are of an address that is configured: no key goes anywhere else.
"""

import hmac
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from urllib.parse import unquote, urlsplit

from headrace import errors
from headrace.model import IMAGE_ID, MIB
from headrace.stores.origin import Fetched
from headrace.stores.remote import Later, Remote, Turns
from headrace.stores.swift_account import Access, Account, Reference
from headrace.stores.swift_place import UPLOAD, Containers, Place
from headrace.stores.swift_upload import MOST_SEGMENTS, SwiftUpload
from headrace.stores.window import AdoptedWindow, WindowWriter, new_window

_SCHEMES = {"swift": "https://", "swift+https": "https://", "swift+http": "http://"}
_CONFIGURED = "swift+config"
_SEGMENT = re.compile(r"[0-9a-fA-F-]{36}/([0-9a-f]{32})/[0-9]{8}")
_LEFT = re.compile(r"[0-9a-fA-F-]{36}(/.*|-[0-9]{5,})", re.DOTALL)  # ours; chunks of a Glance
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/[0-9]{1,19}")
_URL_LIFE = 60  # seconds; it is used at once
_SWEEP_AGAIN = 3600.0  # seconds: for a sweep all names of a container are listed


class SwiftStore:
    """Objects of the accounts that ``references`` name; see ``stores.base.Store``.

    Images are put by the reference ``default``, through windows in the directory ``windows``.
    ``segment`` is the size of segments in bytes, ``named`` how many Swift lets a manifest name;
    ``large`` is only told.  A read that breaks is resumed ``retries`` times; ``most`` images are
    open at a time in this process, OriginsBusy is raised for more.  The segments of an upload are
    left behind when for ``forgotten`` none has come.  ``passing_key`` is the account's, by which
    URLs are signed that a server in front may fetch from; without one there are none.
    """

    kind = "swift"
    writable = True
    local = False

    def __init__(
        self,
        id: str,
        references: Mapping[str, Reference],
        default: str,
        access: Access,
        containers: Containers,
        windows: str,
        *,
        segment: int = 200 * MIB,
        large: int = 5120 * MIB,
        named: int = 1000,
        retries: int = 0,
        most: int = 16,
        forgotten: timedelta = timedelta(days=1),
        passing_key: str | None = None,
    ) -> None:
        self._id = id
        self._access = access
        self._references = references
        self._default = default
        self._containers = containers
        self._windows = windows
        self._segment = segment
        self._large = large
        self._named = named
        self._retries = retries
        self._turns = Turns(most)
        self._forgotten = forgotten
        self._passing_key = passing_key
        self._next_sweep = 0.0
        self._lock = threading.Lock()
        self._accounts: dict[Reference, Account] = {}
        self._own = self._account(references[default])

    @property
    def id(self) -> str:
        return self._id

    @property
    def properties(self) -> dict[str, object]:
        # In MiB, as they are configured; the names are Glance's.
        return {
            "container": self._containers.name,
            "large_object_size": self._large // MIB,
            "large_object_chunk_size": self._segment // MIB,
        }

    def url(self, image_id: str) -> str:
        return f"{_CONFIGURED}://{self._default}/{self._place(image_id).container}/{image_id}"

    def holds(self, url: str) -> bool:
        try:
            self._located(url)
        except (errors.NotFound, errors.StoreNotFound):
            return False
        return True

    def check(self, url: str) -> None:
        # It would be read by our credentials: only the store itself says what is an image.
        raise errors.InvalidLocation()

    def metadata(self, url: str) -> dict[str, object]:
        return {}

    def create(self, image_id: str, size: int | None) -> WindowWriter:
        parts = self._begin(image_id, size)
        return WindowWriter(parts, new_window(self._windows))

    def adopt(self, image_id: str, fd: int) -> WindowWriter:
        """Put a file from where it is."""
        parts = self._begin(image_id, os.fstat(fd).st_size)
        return AdoptedWindow(parts, os.dup(fd))

    def open(self, url: str) -> Remote:
        place = self._located(url)
        return self._turns.open(lambda: self._open(place))

    def delete(self, url: str) -> None:
        place = self._located(url)
        removed = place.remove()
        # What uploads left behind, and deletions: nobody writes data of an image that is removed.
        named = (str(each["name"]) for each in place.account.names(place.container, place.name))
        place.remove_all([place.beside(name) for name in named if _LEFT.fullmatch(name)])
        if not removed:
            raise errors.NotFound()

    def held(self) -> Iterator[str]:
        for container in self._all_containers():
            for each in self._own.names(container, delimiter="/"):
                if IMAGE_ID.fullmatch(name := str(each.get("name", ""))):
                    yield name

    def sweep(self) -> int:
        with self._lock:
            now = time.monotonic()
            if now < self._next_sweep:
                return 0
            self._next_sweep = now + _SWEEP_AGAIN
        before = (datetime.now(UTC) - self._forgotten).replace(tzinfo=None)
        return sum(
            self._sweep(Place(self._own, container, image_id), list(objects), before)
            for container in self._all_containers()
            for image_id, objects in groupby(self._own.names(container), _image)
        )

    def _account(self, reference: Reference) -> Account:
        with self._lock:
            if reference not in self._accounts:
                self._accounts[reference] = Account(f"store {self._id}", reference, self._access)
            return self._accounts[reference]

    def _place(self, image_id: str) -> Place:
        """Where an image's data lies; nothing but an image id ever becomes an object's name."""
        if not IMAGE_ID.fullmatch(image_id):
            raise errors.BadRequest(reason="not an image id")
        return Place(self._own, self._containers.of(image_id), image_id)

    def _begin(self, image_id: str, size: int | None) -> SwiftUpload:
        place = self._place(image_id)
        if size is not None and size > MOST_SEGMENTS * self._segment:
            raise errors.StoreFull()
        if place.exists():
            raise errors.DataExists(image_id=image_id)
        create = self._containers.create
        return SwiftUpload(place, self.url(image_id), self._segment, self._named, create)

    def _located(self, url: str) -> Place:
        """The object that a location URL means.

        Raises NotFound for what cannot be an image's, StoreNotFound for another account or
        container: its data may exist.
        """
        scheme, _, rest = url.partition("://")
        authority, container, name = ["", "", *rest.rsplit("/", 2)][-3:]
        if not (scheme in (_CONFIGURED, *_SCHEMES) and authority and IMAGE_ID.fullmatch(name)):
            raise errors.NotFound()
        reference = self._reference(scheme, authority)
        if reference is None or not self._containers.has(container):
            raise errors.StoreNotFound(store=self._id)
        return Place(self._account(reference), container, name)

    def _reference(self, scheme: str, authority: str) -> Reference | None:
        """Who logs in for a location: whom it names, at an address that is configured.

        A key that it holds is used only where its user is none of those who are configured, whose
        keys may have been changed since.
        """
        if scheme == _CONFIGURED:
            return self._references.get(authority)
        named, _, address = authority.rpartition("@")
        wanted = (_SCHEMES[scheme] + address).rstrip("/")
        there = [each for each in self._references.values() if each.address.rstrip("/") == wanted]
        user, _, key = map(unquote, named.rpartition(":"))
        for each in there:
            if each.user == user:
                return each
        if not (there and user):
            return None
        return replace(there[0], user=user, key=key, application_credential_id=None)

    def _open(self, place: Place) -> Remote:
        if self._passing_key is not None and place.account is self._own:
            return self._passed_by(place, self._passing_key)
        fetched = self._get(place, {})
        response = fetched.response
        if response.length is None:
            fetched.close()
            raise errors.ServiceUnavailable(reason=f"store {self._id} does not say how large it is")
        etag = response.getheader("Etag")
        return Remote(
            fetched,
            response.length,
            lambda offset, length: self._part(place, etag, offset, length),
            self._retries,
        )

    def _all_containers(self) -> Iterable[str]:
        if not self._containers.seed:
            return [self._containers.name]
        return filter(self._containers.has, self._own.containers(self._containers.name))

    def _passed_by(self, place: Place, key: str) -> Remote:
        """An object that is only looked at, since a server in front may fetch it."""
        head = place.head()
        if head is None:
            raise errors.NotFound()
        etag = head.get("Etag")
        return Remote(
            Later(lambda: self._get(place, {})),
            int(head.get("Content-Length", -1)),
            lambda offset, length: Later(lambda: self._part(place, etag, offset, length)),
            self._retries,
            lambda: _signed(place, key),
        )

    def _get(self, place: Place, headers: Mapping[str, str]) -> Fetched:
        """An answer with data; raises NotFound, ServiceUnavailable."""
        fetched = place.account.fetch("GET", place.path, headers=headers)
        status = fetched.response.status
        if status == (206 if headers else 200):
            return fetched
        fetched.close()
        if status == 404:
            raise errors.NotFound()
        raise place.account.refused(status)

    def _part(self, place: Place, etag: str | None, offset: int, length: int) -> Fetched:
        """Bytes of the object, if it is still the one that was opened."""
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        if etag:
            headers["If-Match"] = etag
        fetched = self._get(place, headers)
        said = _CONTENT_RANGE.fullmatch(fetched.response.getheader("Content-Range") or "")
        if said and (int(said[1]), int(said[2])) == (offset, offset + length - 1):
            return fetched
        fetched.close()
        raise errors.ServiceUnavailable(reason=f"store {self._id} sends another range")

    def _sweep(self, place: Place, objects: list[dict[str, Any]], before: datetime) -> int:
        """Remove the uploads of an image that were left behind; how many."""
        uploads: dict[str, list[dict[str, Any]]] = {}
        for each in objects:
            if found := _SEGMENT.fullmatch(each["name"]):
                uploads.setdefault(found[1], []).append(each)
        listed = objects[0]["name"] == place.name
        if len(uploads) <= listed:
            return 0  # the one that the image is made of
        head = place.head()
        if head is None and listed:
            return 0  # Swift says so, too, of what lies on servers that are away
        made = None if head is None else head.get(UPLOAD)
        removed = 0
        for upload, segments in uploads.items():
            newest = max(datetime.fromisoformat(each["last_modified"]) for each in segments)
            if newest < before and upload != made:
                place.remove_all([place.beside(each["name"]) for each in segments])
                removed += 1
        return removed


def _signed(place: Place, key: str) -> str:
    """A URL at which anybody may GET the object, or a range of it, for a minute."""
    where = urlsplit(place.account.url() + place.path)
    expires = int(time.time()) + _URL_LIFE
    text = f"GET\n{expires}\n{unquote(where.path)}"
    signature = hmac.new(key.encode(), text.encode(), "sha256").hexdigest()
    query = f"temp_url_sig={signature}&temp_url_expires={expires}&inline"
    return f"{where.scheme}://{where.netloc}{where.path}?{query}"


def _image(listed: Mapping[str, Any]) -> str:
    """The id of the image that an object is, or is a segment of; something else of others."""
    return str(listed["name"])[:36]
