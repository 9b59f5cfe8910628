"""Imports: who may have which data brought into which stores.  service/jobs.py brings it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

from headrace import errors, log
from headrace.db import images as rows
from headrace.db import imports
from headrace.db.engine import Database
from headrace.db.quotas import Demand
from headrace.model import NEW_IMAGE_TASK, Image, Status, Task
from headrace.service import policy, workers
from headrace.service.context import Context
from headrace.service.copies import Job, progress
from headrace.service.images import Clock, afresh
from headrace.service.jobs import (
    COPY_IMAGE,
    GLANCE_DIRECT,
    GLANCE_DOWNLOAD,
    WEB_DOWNLOAD,
    Jobs,
)
from headrace.service.quota import UNLIMITED, Quota, Room
from headrace.service.regions import Regions, RemoteImage
from headrace.stores.origin import Origins
from headrace.stores.registry import Registry


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What a caller asks for; ``stores`` None: not said.  ``given`` is the request as it was."""

    method: str
    uri: str | None = None
    remote: RemoteImage | None = None
    stores: tuple[str, ...] | None = None
    all_stores: bool = False
    all_must_succeed: bool = True
    given: object = None


class Imports:
    """The imports of images of one database by ``methods``."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        jobs: Jobs,
        origins: Origins,
        regions: Regions,
        methods: Sequence[str],
        clock: Clock,
        quota: Quota | None = None,
    ) -> None:
        self._quota = quota
        self._database = database
        self._registry = registry
        self._jobs = jobs
        self._origins = origins
        self._regions = regions
        self.methods = tuple(methods)
        self._clock = clock

    def begin(self, context: Context, image_id: str, request: ImportRequest) -> None:
        """Have an image's data brought in behind the answer.

        Raises BadRequest (method, stores, region), InvalidLocation, TooLarge (what is asked for,
        QuotaExceeded), ImageNotFound, Forbidden, Conflict (status, formats, unknown store),
        ImageBusy.
        """
        self._require_method(request.method)
        job = afresh(lambda: self._begin(context, image_id, request))
        if job is not None:
            self._jobs.add(job)

    def _begin(self, context: Context, image_id: str, request: ImportRequest) -> Job | None:
        image = rows.show(self._database, image_id, context.viewer)
        copying = request.method == COPY_IMAGE
        policy.require_of(context, "copy_image" if copying else "modify_image", image)
        _require_status(image, request.method)
        if not image.disk_format or not image.container_format:
            raise errors.Conflict(reason=f"disk_format and container_format of image {image.id}")
        source = None
        if request.method == WEB_DOWNLOAD:
            self._origins.check(request.uri or "")
        elif request.remote is not None:
            source = self._regions.source(context, request.remote)
        stores = self._stores(request)
        if copying:
            stores = self._without_copies(image, stores, request.all_stores)
            if not stores:
                return None
        told = {
            "image_id": image.id,
            "import_req": _told(request),
            "backend": stores if self._registry.several else [None],
        }
        task = self._task(context, image, told)
        status = image.status if copying else Status.IMPORTING
        demand = self._demand(image, request.method, len(stores))
        shown, worker = self._shown(stores), workers.identity()
        reserved = imports.begin(
            self._database, image, task, worker, status, shown, demand, stores=stores
        )
        return Job(
            image.id,
            task.id,
            request.method,
            tuple(stores),
            request.all_must_succeed,
            request.uri or "",
            source,
            context.roles,
            self._room(demand, image, task, reserved, len(stores)),
        )

    def create(self, context: Context, image: Image, uri: str, told: object) -> Task:
        """Record a new image and have its data fetched from ``uri`` behind the answer.

        ``uri`` has been checked; ``told`` is what the task says of its input.  There is no image
        in the end if that fails.  Raises ImageExists, TooLarge, QuotaExceeded.
        """
        stores = [self._registry.default.id]
        image = replace(image, status=Status.IMPORTING)
        task = replace(self._task(context, image, told), type=NEW_IMAGE_TASK)
        demand = None if self._quota is None else self._quota.fetched(image, 1, new=True)
        shown, worker = self._shown(stores), workers.identity()
        reserved = imports.create(self._database, image, task, worker, shown, demand, stores=stores)
        room = self._room(demand, image, task, reserved, 1)
        job = Job(
            image.id,
            task.id,
            WEB_DOWNLOAD,
            tuple(stores),
            uri=uri,
            roles=context.roles,
            room=room,
        )
        self._jobs.add(job)
        return task

    def check_uri(self, uri: str) -> None:
        """Raises InvalidLocation for an address that nothing is fetched from; BadRequest where
        nothing is fetched from any.
        """
        self._require_method(WEB_DOWNLOAD)
        self._origins.check(uri)

    def _require_method(self, method: str) -> None:
        if method not in self.methods:
            raise errors.BadRequest(reason=f"import method {method} is not enabled")

    def _task(self, context: Context, image: Image, told: object) -> Task:
        now = self._clock()
        return Task(
            id=str(uuid.uuid4()),
            owner=context.project_id or image.owner or "",
            image_id=image.id,
            request_id=log.request_id.get()[:64],
            user_id=context.user_id,
            input=told,
            created_at=now,
            updated_at=now,
        )

    def _shown(self, stores: Sequence[str]) -> dict[str, str]:
        return progress(stores, ()) if self._registry.several else {}

    def _demand(self, image: Image, method: str, copies: int) -> Demand | None:
        """What an import takes of the project's quota, as far as that is known beforehand."""
        if self._quota is None:
            return None
        if method in (WEB_DOWNLOAD, GLANCE_DOWNLOAD):
            return self._quota.fetched(image, copies)
        coming = method == COPY_IMAGE  # data comes already for one that is staged
        return self._quota.data(image, image.size or 0, copies=copies, coming=coming)

    def _room(
        self, demand: Demand | None, image: Image, task: Task, reserved: int, copies: int
    ) -> Room:
        if self._quota is None:
            return UNLIMITED
        return self._quota.room(demand, image.id, task.id, reserved, copies)

    def _stores(self, request: ImportRequest) -> list[str]:
        """The ids of the stores to write to; raises Conflict.

        Where there is but one, what is said of stores does not matter: openstackclient always says
        that not all must succeed, where Glance answers 400, which it does not tell its user.
        """
        registry = self._registry
        if not registry.several:
            return [registry.default.id]
        writable = {store.id: store.writable for store in registry.all()}
        if request.all_stores:
            return [store_id for store_id, may in writable.items() if may]
        chosen = list(dict.fromkeys(request.stores or [registry.default.id]))
        for store_id in chosen:
            if store_id not in writable:
                raise errors.Conflict(reason=f"there is no store {store_id}")
            if not writable[store_id]:
                raise errors.Conflict(reason=f"store {store_id} takes no data")
        return chosen

    def _without_copies(self, image: Image, stores: list[str], all_stores: bool) -> list[str]:
        """The stores that have no data of the image; raises BadRequest for one that was named."""
        if not self._registry.several:
            raise errors.BadRequest(reason="there is only one store")
        found = [self._registry.find(each) for each in image.locations]
        have = {store.id for store in found if store is not None}
        named = [each for each in stores if each in have]
        if named and not all_stores:
            raise errors.BadRequest(reason=f"image {image.id} is in store {named[0]} already")
        return [each for each in stores if each not in have]


def _told(request: ImportRequest) -> object:
    """The request as whoever sees the image may know it: an address may hold a secret.

    Neither user and password nor what signs an address is put on record (OSSA-2014-004).
    """
    given = request.given
    if not isinstance(given, dict):
        return given
    method = {"name": request.method}
    if request.method == WEB_DOWNLOAD and request.uri is not None:
        method["uri"] = without_secrets(request.uri)
    elif (remote := request.remote) is not None:
        method |= {
            "glance_region": remote.region,
            "glance_image_id": remote.image_id,
            "glance_service_interface": remote.interface,
        }
    return {**given, "method": method}


def without_secrets(uri: str) -> str:
    """An address, which has passed the filter, as it may be put on record."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _require_status(image: Image, method: str) -> None:
    expected = {GLANCE_DIRECT: Status.UPLOADING, COPY_IMAGE: Status.ACTIVE}.get(
        method, Status.QUEUED
    )
    if image.status is not expected:
        raise errors.StatusConflict(image_id=image.id, status=image.status, expected=expected)
