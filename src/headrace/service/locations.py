"""Locations that callers name: data that stays where it is, for an image to be served from.

Who may name what (the contract of the Image API, and OSSA-2014-041, 2015-002, 2016-006 behind it):
http and https addresses that pass the filter, where there is a store for them; files below the
directories that the operator lists, for administrators; of an image that waits for its data, what
lies under its own name in a store where instances are cloned, as Nova's snapshots do; nothing else.
Why an address was refused, or what was found there, is never told.
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from headrace import errors
from headrace.db import images as rows
from headrace.db import locations, uploads
from headrace.db.engine import Database
from headrace.model import Image, Location, Status, Viewer
from headrace.service import formats, policy, workers
from headrace.service.context import Context
from headrace.service.hashing import Stopped, hash_data
from headrace.service.images import ChangeOp, Clock, Images, afresh
from headrace.service.landing import UploadRules
from headrace.service.quota import Quota
from headrace.stores.base import Cloning, Data, Store
from headrace.stores.registry import Registry
from headrace.transfer.extent import Extent

_log = logging.getLogger(__name__)

_LONGEST_URL = 255
_HASHES_AT_A_TIME = 2

# How far a store's clock may be behind ours.
_SKEW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Hashes:
    """What a caller says the data's hashes are, in lower-case hex."""

    os_hash_algo: str
    os_hash_value: str
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A location as a caller names it."""

    url: str
    metadata: dict[str, object]
    hashes: Hashes | None = None


@dataclass(frozen=True, slots=True)
class LocationChange:
    """One step of an update of locations.

    ADD has one in ``named``; REPLACE has all of them; REMOVE has none.  ``position`` is where,
    None for the end.
    """

    op: ChangeOp
    named: tuple[Named, ...] = ()
    position: int | None = None


@dataclass(frozen=True, slots=True)
class LocationRules:
    """What locations must keep to: how many an image may have (negative: any number), whether
    their data is hashed, and how often that is tried again."""

    quota: int
    hashing: bool
    retries: int


class Locations:
    """The locations of the images of one database."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        images: Images,
        rules: LocationRules,
        upload_rules: UploadRules,
        clock: Clock,
        quota: Quota | None = None,
    ) -> None:
        self._quota = quota
        self._database = database
        self._registry = registry
        self._images = images
        self._rules = rules
        self._upload_rules = upload_rules
        self._clock = clock
        self._active: set[str] = set()
        self._turns = threading.BoundedSemaphore(_HASHES_AT_A_TIME)

    def show(self, context: Context, image_id: str) -> Sequence[Location]:
        """Where the image's data lies; raises ImageNotFound, Forbidden."""
        image = rows.show(self._database, image_id, context.viewer)
        policy.require_of(context, "fetch_image_location", image)
        return self._registry.ordered(image.locations)

    def add(self, context: Context, image_id: str, named: Named) -> None:
        """Give a queued image its data by naming its place; it is hashed in the background.

        With hashes to compare with, the image becomes active when they are found right, otherwise
        at once.  Raises ImageNotFound, Forbidden, StatusConflict, InvalidLocation, FormatsNotSet,
        FormatMismatch, UnsafeImage, ImageTooLarge, QuotaExceeded.
        """
        afresh(lambda: self._add(context, image_id, named))

    def _add(self, context: Context, image_id: str, named: Named) -> None:
        image = self._changeable(context, image_id, "add_image_location")
        _require(image, Status.QUEUED)
        by_service = context.is_admin or "service" in context.roles
        location = self._checked(context, image, named, snapshots=by_service)
        after = self._filled(image, location, None if self._rules.hashing else named.hashes)
        upload_id, worker = str(uuid.uuid4()), workers.identity()
        if not self._rules.hashing:
            self._save(image, after)
            return
        if named.hashes is None:
            self._save(image, after, upload_id, worker)
            self._begin(upload_id, lambda: self._hash_behind(after, location, upload_id))
            return
        now, status = self._clock(), Status.IMPORTING
        demand = None if self._quota is None else self._quota.data(image, after.size)
        # What lies in a store under the image's own name is in no record before it is hashed: it
        # goes with a process that dies meanwhile, or would stay when its image is deleted.
        store = self._registry.for_location(location)
        stores = (store.id,) if store.writable else ()
        uploads.claim(self._database, image, upload_id, worker, now, status, demand, stores=stores)
        expected = named.hashes
        self._begin(upload_id, lambda: self._hash_before(after, location, upload_id, expected))

    def update(self, context: Context, image_id: str, changes: Sequence[LocationChange]) -> Image:
        """Apply ``changes`` in order and save them at once, or nothing at all.

        A queued image becomes active with its first location.  What is removed is removed from its
        store.  Raises as ``add``, and LastLocation, Conflict (hashes), QuotaExceeded, BadRequest.
        """
        gone = afresh(lambda: self._update(context, image_id, changes))
        if gone:
            self._images.delete_data(image_id, gone)
        return self._images.show(context, image_id)

    def _update(
        self, context: Context, image_id: str, changes: Sequence[LocationChange]
    ) -> list[Location]:
        before = self._changeable(context, image_id, "set_image_location")
        after = before
        for change in changes:
            if change.op is ChangeOp.REMOVE:
                after = self._without(context, after, change.position)
            elif change.op is ChangeOp.REPLACE:
                after = self._replaced(context, after, change.named)
            else:
                after = self._with(context, after, change.named[0], change.position)
        if after.locations == before.locations:
            return []
        self._save(before, replace(after, updated_at=self._clock()))
        kept = {each.url for each in after.locations}
        return [each for each in before.locations if each.url not in kept]

    def _save(
        self, before: Image, after: Image, upload_id: str | None = None, worker: str = ""
    ) -> None:
        """Save the locations of ``after``, if the project may have more where they are more."""
        more = len(after.locations) - len(before.locations)
        demand = None
        if self._quota is not None and more > 0:
            demand = self._quota.data(after, after.size, copies=more, coming=False)
        locations.save(self._database, before, after, upload_id, worker, demand)

    def active(self) -> list[str]:
        """The leases of the hashing that goes on in this process."""
        return list(self._active)

    def resume(self, image_id: str) -> None:
        """Hash an image's data that a process left unhashed when it died."""
        try:
            image = rows.show(self._database, image_id, _EVERYBODY.viewer)
        except errors.ImageNotFound:
            return
        unhashed = image.locations and not image.os_hash_value
        if not unhashed or image.status not in (Status.ACTIVE, Status.DEACTIVATED):
            return
        upload_id = str(uuid.uuid4())
        try:
            locations.save(self._database, image, image, upload_id, workers.identity())
        except (errors.Conflict, errors.ImageNotFound):
            return  # somebody else is at it
        location = image.locations[0]
        self._begin(upload_id, lambda: self._hash_behind(image, location, upload_id))

    # --- what may be named

    def _changeable(self, context: Context, image_id: str, rule: str) -> Image:
        image = rows.show(self._database, image_id, context.viewer)
        policy.require_of(context, rule, image)
        if not policy.shows_locations(context, image):
            return replace(image, locations=())
        return image

    def _checked(
        self, context: Context, image: Image, named: Named, *, snapshots: bool
    ) -> Location:
        """The location that a caller names, also by ``snapshots``; raises InvalidLocation."""
        store = self._registry.find(Location(named.url))
        if store is None or len(named.url) > _LONGEST_URL:
            raise errors.InvalidLocation()
        if not all(isinstance(each, (str, list, dict)) for each in named.metadata.values()):
            raise errors.InvalidLocation()
        if not (snapshots and _is_snapshot(image, store, named.url)):
            if not (context.is_admin or self._registry.public(store)):
                raise errors.InvalidLocation()
            store.check(named.url)
        return self._registry.mended(Location(named.url, named.metadata), store)

    def _open(self, location: Location) -> Data:
        """The data at a location that has been checked; raises InvalidLocation without it."""
        try:
            data = self._registry.for_location(location).open(location.url)
        except errors.Error as error:
            _log.info("a location was refused: %s", error)
            raise errors.InvalidLocation() from None
        if data.length > 0:
            return data
        data.close()
        raise errors.InvalidLocation()

    def _filled(self, image: Image, location: Location, hashes: Hashes | None) -> Image:
        """The queued image with its first location, active."""
        if not image.disk_format or not image.container_format:
            raise errors.FormatsNotSet(image_id=image.id)
        rules = self._upload_rules
        data = self._open(location)
        try:
            if data.length > rules.size_cap:
                raise errors.ImageTooLarge(cap=rules.size_cap)
            virtual_size = None
            if isinstance(data, Extent):  # an origin's data cannot be sought in
                virtual_size = formats.inspect(
                    data.fd,
                    data.length,
                    image.container_format,
                    image.disk_format,
                    require_match=rules.require_format_match,
                    vmdk_allowed_types=rules.vmdk_allowed_types,
                    gpt_safety_nonfatal=rules.gpt_safety_nonfatal,
                )
            size = data.length
        finally:
            data.close()
        return replace(
            image,
            status=Status.ACTIVE,
            size=size,
            virtual_size=virtual_size,
            checksum=hashes.checksum if hashes else None,
            os_hash_algo=hashes.os_hash_algo if hashes else None,
            os_hash_value=hashes.os_hash_value if hashes else None,
            locations=(location,),
            updated_at=self._clock(),
        )

    def _with(self, context: Context, image: Image, named: Named, position: int | None) -> Image:
        if position is not None and position > len(image.locations):
            raise errors.BadRequest(reason="there is no such position among the locations")
        wanted = len(image.locations) + 1
        if 0 <= self._rules.quota < wanted:
            raise errors.QuotaExceeded(
                quota="image_location_quota", limit=self._rules.quota, wanted=wanted
            )
        location = self._checked(context, image, named, snapshots=True)
        if any(each.url == location.url for each in image.locations):
            raise errors.BadRequest(reason="the image has this location already")
        if image.status is Status.QUEUED:
            self._check_hashes(named.hashes)
            return self._filled(image, location, named.hashes)
        _require(image, Status.ACTIVE)
        if named.hashes is not None:
            raise errors.Conflict(reason="the hashes of an image with data are known")
        data = self._open(location)
        data.close()
        if data.length != image.size:
            raise errors.InvalidLocation()
        return replace(image, locations=(*image.locations, location))

    def _replaced(self, context: Context, image: Image, named: tuple[Named, ...]) -> Image:
        """Other metadata for the same locations, or the first ones."""
        if not named:
            raise errors.LastLocation(image_id=image.id)
        if not image.locations:
            for each in named:
                image = self._with(context, image, each, None)
            return image
        _require(image, Status.ACTIVE)
        wanted = {each.url: each for each in named}
        if len(wanted) != len(named) or wanted.keys() != {each.shown for each in image.locations}:
            raise errors.BadRequest(reason="other locations cannot take the place of these")
        return replace(
            image,
            locations=tuple(
                self._registry.mended(Location(each.url, wanted[each.shown].metadata))
                for each in image.locations
            ),
        )

    def _without(self, context: Context, image: Image, position: int | None) -> Image:
        policy.require_of(context, "delete_image_location", image)
        _require(image, Status.ACTIVE)
        shown = list(self._registry.ordered(image.locations))
        index = len(shown) - 1 if position is None else position
        if not 0 <= index < len(shown):
            raise errors.BadRequest(reason="there is no such position among the locations")
        if len(shown) == 1:
            raise errors.LastLocation(image_id=image.id)
        gone = shown[index].url
        return replace(image, locations=tuple(x for x in image.locations if x.url != gone))

    def _check_hashes(self, hashes: Hashes | None) -> None:
        """The hash that is taken on trust must be of the service's own kind."""
        if hashes and hashes.os_hash_algo != self._upload_rules.hashing_algorithm:
            raise errors.Conflict(reason="os_hash_algo is not the service's hashing_algorithm")

    # --- hashing in the background

    def _begin(self, upload_id: str, work: Callable[[], None]) -> None:
        self._active.add(upload_id)

        def run() -> None:
            try:
                with self._turns:
                    work()
            except errors.Error as error:
                _log.warning("the data of a location was not hashed: %s", error)
            except Exception:
                _log.exception("the data of a location was not hashed")
            finally:
                self._active.discard(upload_id)

        threading.Thread(target=run, name="hashing", daemon=True).start()

    def _hash_behind(self, image: Image, location: Location, upload_id: str) -> None:
        """Hash the data of an image that is active already."""
        rules = self._upload_rules
        names = {rules.hashing_algorithm} | ({"md5"} if rules.legacy_checksum else set())
        digests = self._digests(image, location, names)
        found: dict[str, str] = {}
        if digests:
            found["os_hash_algo"] = rules.hashing_algorithm
            found["os_hash_value"] = digests[rules.hashing_algorithm]
            if rules.legacy_checksum:
                found["checksum"] = digests["md5"]
        locations.hashed(self._database, image.id, upload_id, found, self._clock())

    def _hash_before(
        self, image: Image, location: Location, upload_id: str, expected: Hashes
    ) -> None:
        """Hash the data, and make the image active if it is what it is said to be."""
        digests = self._digests(image, location, {expected.os_hash_algo})
        if digests.get(expected.os_hash_algo) != expected.os_hash_value:
            _log.warning("image %s is queued again: its data is not what it should be", image.id)
            discard = self._discarder(location)
            uploads.release(self._database, image.id, upload_id, self._clock(), discard=discard)
            return
        uploads.activate(
            self._database,
            image.id,
            upload_id,
            location=location,
            size=image.size or 0,
            virtual_size=image.virtual_size,
            checksum=None,
            os_hash_algo=expected.os_hash_algo,
            os_hash_value=expected.os_hash_value,
            now=self._clock(),
            status=Status.IMPORTING,
        )

    def _discarder(self, location: Location) -> Callable[[], None]:
        """A function that removes what lies in a store of ours, and nothing anywhere else."""
        store = self._registry.for_location(location)

        def remove() -> None:
            if store.writable:
                with contextlib.suppress(errors.NotFound):
                    store.delete(location.url)

        return remove

    def _digests(self, image: Image, location: Location, names: set[str]) -> dict[str, str]:
        """The data's digests by algorithm; none when it cannot be read, or is not needed."""
        for attempt in range(self._rules.retries + 1):
            time.sleep(2**attempt - 1)
            try:
                data = self._registry.for_location(location).open(location.url)
                if data.length != image.size:
                    data.close()
                    raise errors.StoreCorrupt(image_id=image.id, reason="its size has changed")
                return hash_data(data, names, lambda: self._is_there(image.id))
            except Stopped:
                return {}
            except errors.Error as error:
                _log.warning("hashing image %s, attempt %d: %s", image.id, attempt + 1, error)
        return {}

    def _is_there(self, image_id: str) -> bool:
        try:
            rows.show_for_download(self._database, image_id, _EVERYBODY.viewer)
        except errors.ImageNotFound:
            return False
        return True


_EVERYBODY = Context(Viewer(is_admin=True))


def _is_snapshot(image: Image, store: Store, url: str) -> bool:
    """Whether a location is the place that a store where instances are cloned has for the image.

    Nova has the snapshot of an instance cloned to there, and tells (direct_snapshot).  While the
    image is queued nobody else's data can be there, unless they were there before it: callers may
    choose the id of an image, also that of one in a service beside us that shares the store.  They
    are raw: what an instance has written is not to be taken for a format that refers to other
    files, and cannot be inspected here.
    """
    waits = image.status is Status.QUEUED and image.disk_format == "raw"
    if not (waits and isinstance(store, Cloning) and store.url(image.id) == url):
        return False
    try:
        return store.made(url) > image.created_at - _SKEW
    except errors.NotFound:
        return False


def _require(image: Image, status: Status) -> None:
    if image.status is not status:
        raise errors.StatusConflict(image_id=image.id, status=image.status, expected=status)
