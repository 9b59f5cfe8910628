"""What can be done with an image's record: create, show, list, update, delete, take out of use."""

import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from headrace import errors
from headrace.db import catalogue
from headrace.db import images as rows
from headrace.db.engine import Database
from headrace.model import Image, ImagePage, ImageQuery, Location, Status, Visibility
from headrace.service import policy
from headrace.service.context import Context
from headrace.service.protections import Act, Protections
from headrace.service.quota import Quota
from headrace.stores.base import Store
from headrace.stores.registry import Registry

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

Clock = Callable[[], datetime]
Check = Callable[[str, object], object]
"""(name, value) → the value in the property's type; raises InvalidProperty."""

BASE_ATTRIBUTES = frozenset(field.name for field in fields(Image)) - {"properties", "locations"}
READ_ONLY = frozenset(
    {
        "id", "status", "checksum", "size", "virtual_size", "created_at", "updated_at",
        "direct_url", "self", "file", "schema", "os_hash_algo", "os_hash_value", "stores",
    }
)  # fmt: skip
RESERVED = frozenset({"location", "locations", "deleted", "deleted_at"})
RESERVED_PREFIX = "os_glance"
_ATTEMPTS = 10
_MOST_CHANGES = 1000  # in one update; each is checked and applied on its own
FROZEN_WITH_DATA = frozenset({"container_format", "disk_format"})


class ChangeOp(StrEnum):
    """What a change does to a property; CREATE is an add that may not replace (API v2.0)."""

    ADD = "add"
    CREATE = "create"
    REPLACE = "replace"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of an update."""

    op: ChangeOp
    name: str
    value: object = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Most custom properties and tags of an image; negative: no limit."""

    properties: int
    tags: int


class Images:
    """The images of one database and its stores.

    ``delayed_delete`` leaves the data of deleted images to the housekeeping.  ``protections`` say
    who may do what to which custom property.  ``forget`` is told of images that are gone.
    """

    def __init__(
        self,
        database: Database,
        stores: Registry,
        staging: Store,
        check: Check,
        limits: Limits,
        clock: Clock,
        *,
        delayed_delete: bool = False,
        protections: Protections | None = None,
        quota: Quota | None = None,
        forget: Callable[[str], None] | None = None,
    ) -> None:
        self._quota = quota
        self._forget = forget
        self._database = database
        self._stores = stores
        self._staging = staging
        self._check = check
        self._limits = limits
        self._clock = clock
        self._delayed_delete = delayed_delete
        self._protections = protections
        self._left_behind: set[str] = set()

    def create(self, context: Context, values: Mapping[str, object]) -> Image:
        """Record a queued image from base attributes and custom properties.

        Raises as ``draft``, and ImageExists.
        """
        image = self.draft(context, values)
        if self._quota is None:
            rows.create(self._database, image)
        else:
            rows.create(self._database, image, self._quota.image(image.owner))
        return self._shown(context, image)

    def draft(self, context: Context, values: Mapping[str, object]) -> Image:
        """An image that the caller may create, not on record yet.

        Raises PropertyReadOnly, PropertyReserved, PropertyProtected, InvalidProperty, Forbidden
        (somebody else's owner), QuotaExceeded.
        """
        now = self._clock()
        blank = Image(
            id=str(uuid.uuid4()), owner=context.project_id, created_at=now, updated_at=now
        )
        self._check_property_quota(sum(name not in BASE_ATTRIBUTES for name in values))
        image = blank
        for name, value in values.items():
            if name != "id":
                _refuse_unwritable(name)
            image = _assign(image, name, self._check(name, value))
        policy.require(context, "add_image", image)
        policy.require_values(context, blank, image)
        self._check_tag_quota(image)
        for name in image.properties:
            self._require_property(context, Act.CREATE, name)
        return image

    def show(self, context: Context, image_id: str) -> Image:
        """The image, or ImageNotFound for one that the caller may not see."""
        image = self._look(context, image_id)
        policy.require_of(context, "get_image", image)
        return self._shown(context, image)

    def list(self, context: Context, query: ImageQuery) -> ImagePage:
        """One page of the images that the caller may see; raises MarkerNotFound, Forbidden.

        By a property that he may not read nothing is found, whatever its value: a list that told
        would give it away.
        """
        policy.require(context, "get_images")
        if not all(self._may_read(context, name) for name in query.properties):
            return ImagePage([], full=False)
        page = catalogue.list_page(self._database, query, context.viewer)
        images = page.images
        if context.rules is not None and "get_image" in context.rules:
            images = [image for image in images if policy.allows(context, "get_image", image)]
        return ImagePage(
            [self._shown(context, image) for image in images],
            page.full,
            page.images[-1].id if page.images else None,
        )

    def update(self, context: Context, image_id: str, changes: Sequence[Change]) -> Image:
        """Apply ``changes`` in order and save them at once, or nothing at all.

        Raises ImageNotFound, PropertyReadOnly, PropertyReserved, PropertyProtected,
        InvalidProperty, FormatFrozen, PropertyExists, PropertyMissing, Forbidden, QuotaExceeded,
        ImageBusy (its data is coming, and the new owner's is limited), InvalidPatch (too long).
        """
        if len(changes) > _MOST_CHANGES:
            raise errors.InvalidPatch(reason=f"more than {_MOST_CHANGES} operations")

        def apply(image: Image) -> Image:
            for change in changes:
                image = self._apply(context, image, change)
            return image

        return self._revise(context, image_id, "modify_image", apply)

    def add_tag(self, context: Context, image_id: str, tag: str) -> None:
        """Tag an image; raises ImageNotFound, Forbidden, InvalidProperty, QuotaExceeded."""
        self._check("tags", [tag])
        self._revise(
            context,
            image_id,
            "modify_image",
            lambda image: replace(image, tags=image.tags | {tag}),
        )

    def delete_tag(self, context: Context, image_id: str, tag: str) -> None:
        """Take a tag away; raises ImageNotFound, Forbidden, TagNotFound."""

        def without(image: Image) -> Image:
            if tag not in image.tags:
                raise errors.TagNotFound(image_id=image_id, tag=tag)
            return replace(image, tags=image.tags - {tag})

        self._revise(context, image_id, "modify_image", without)

    def deactivate(self, context: Context, image_id: str) -> None:
        """Take an active image out of use: its data is then for administrators alone.

        Harmless when that was done before.  Raises ImageNotFound, Forbidden, StatusForbids.
        """
        self._move(context, image_id, "deactivate", Status.ACTIVE, Status.DEACTIVATED)

    def reactivate(self, context: Context, image_id: str) -> None:
        """The contrary of ``deactivate``."""
        self._move(context, image_id, "reactivate", Status.DEACTIVATED, Status.ACTIVE)

    def _move(
        self, context: Context, image_id: str, rule: str, source: Status, target: Status
    ) -> None:
        def moved(image: Image) -> Image:
            if image.status not in (source, target):
                raise errors.StatusForbids(image_id=image_id, status=image.status, wanted=target)
            return replace(image, status=target)

        self._revise(context, image_id, rule, moved)

    def _revise(
        self, context: Context, image_id: str, rule: str, change: Callable[[Image], Image]
    ) -> Image:
        """Make an image what ``change`` makes of it, whatever others do to it meanwhile."""
        image = afresh(lambda: self._revise_once(context, image_id, rule, change))
        return self._shown(context, image)

    def _revise_once(
        self, context: Context, image_id: str, rule: str, change: Callable[[Image], Image]
    ) -> Image:
        before = self._look(context, image_id)
        policy.require_of(context, rule, before)
        after = change(before)
        # Under protections even what changes nothing is a change, or the time of the last one would
        # tell who writes what he may not read that he has guessed it.
        if after == before and self._protections is None:
            return before
        policy.require_values(context, before, after)
        more = bool(after.properties.keys() - before.properties.keys())
        retagged = after.tags != before.tags

        def check(stored: Image) -> None:
            if more:
                own = [name for name in stored.properties if not name.startswith(RESERVED_PREFIX)]
                self._check_property_quota(len(own))
            if retagged:
                self._check_tag_quota(stored)

        limits = None
        if self._quota is not None and after.owner != before.owner:
            limits = self._quota.limits(after.owner)
        after = replace(after, updated_at=self._clock())
        return rows.update(self._database, before, after, check, limits)

    def delete(self, context: Context, image_id: str) -> None:
        """Delete the image and its data; raises ImageNotFound, ImageProtected, DataInUse.

        The record goes first: a crash in between leaves data without a record, which the
        housekeeping removes, never a record without data.
        """
        image = afresh(lambda: self._delete_record(context, image_id))
        if self._forget is not None:
            self._forget(image.id)
        if image.status in (Status.UPLOADING, Status.IMPORTING):
            self._delete_staged(image.id)
        if image.locations and not self._delayed_delete:
            self.delete_data(image.id, image.locations)

    def _delete_staged(self, image_id: str) -> None:
        try:
            self._staging.delete(self._staging.url(image_id))
        except errors.NotFound:
            pass  # fetched from elsewhere, or staged by a Glance
        except errors.Error as error:
            _log.error("the staged data of image %s is still there: %s", image_id, error)

    def _delete_record(self, context: Context, image_id: str) -> Image:
        image = self._look(context, image_id)
        policy.require_of(context, "delete_image", image)
        if image.protected:
            raise errors.ImageProtected(image_id=image_id)
        self._stores.require_unused(image.locations)
        rows.delete(self._database, image, self._clock(), delayed=self._delayed_delete)
        return image

    def delete_data(self, image_id: str, locations: Collection[Location]) -> bool:
        """Remove data of an image that was given up, with the image or without it; whether it is
        all gone.

        What cannot be removed, or lies in a store that is not ours to ask, is logged once and
        stays on record, to be tried again.
        """
        for location in locations:
            try:
                self._stores.for_location(location).delete(location.url)
            except errors.NotFound:
                pass  # gone already: deleting is to have it gone
            except errors.Error as error:
                if image_id not in self._left_behind:
                    self._left_behind.add(image_id)
                    _log.error("deleted data of image %s is still there: %s", image_id, error)
                return False
        self._left_behind.discard(image_id)
        rows.data_deleted(self._database, image_id, [each.url for each in locations])
        return True

    def _look(self, context: Context, image_id: str) -> Image:
        return rows.show(self._database, image_id, context.viewer)

    def _shown(self, context: Context, image: Image) -> Image:
        """The image as this caller may see it."""
        if image.locations and not policy.shows_locations(context, image):
            image = replace(image, locations=())
        if self._protections is None or not image.properties:
            return image
        properties = image.properties.items()
        readable = {key: value for key, value in properties if self._may_read(context, key)}
        return replace(image, properties=readable)

    def _may_read(self, context: Context, name: str) -> bool:
        return self._protections is None or self._protections.allow(context, Act.READ, name)

    def _require_property(self, context: Context, act: Act, name: str) -> None:
        if self._protections is not None and not self._protections.allow(context, act, name):
            raise errors.PropertyProtected(name=name, act=act)

    def _apply(self, context: Context, image: Image, change: Change) -> Image:
        name = change.name
        _refuse_unwritable(name)
        if name in FROZEN_WITH_DATA and image.status not in (Status.QUEUED, Status.IMPORTING):
            raise errors.FormatFrozen(name=name)
        base = name in BASE_ATTRIBUTES
        readable = base or self._may_read(context, name)
        exists = base or (readable and name in image.properties)
        if change.op is ChangeOp.CREATE and exists:
            raise errors.PropertyExists(name=name)
        if change.op in (ChangeOp.REPLACE, ChangeOp.REMOVE) and not exists:
            raise errors.PropertyMissing(name=name)
        if not base:
            for act in _acts(change.op, exists, readable):
                self._require_property(context, act, name)
        if change.op is not ChangeOp.REMOVE:
            return _assign(image, name, self._check(name, change.value))
        if base:
            raise errors.Forbidden(reason=f"property {name} cannot be removed")
        left = {key: value for key, value in image.properties.items() if key != name}
        return replace(image, properties=left)

    def _check_property_quota(self, wanted: int) -> None:
        _within("image_property_quota", self._limits.properties, wanted)

    def _check_tag_quota(self, image: Image) -> None:
        _within("image_tag_quota", self._limits.tags, len(image.tags))


def afresh(act: Callable[[], _T]) -> _T:
    """``act``, which reads an image and writes it; again when it was changed in between."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return act()
        except errors.ImageChanged:
            continue
    return act()


def _within(quota: str, limit: int, wanted: int) -> None:
    if 0 <= limit < wanted:
        raise errors.QuotaExceeded(quota=quota, limit=limit, wanted=wanted)


def _refuse_unwritable(name: str) -> None:
    if name in READ_ONLY:
        raise errors.PropertyReadOnly(name=name)
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise errors.PropertyReserved(name=name)


def _acts(op: ChangeOp, exists: bool, readable: bool) -> tuple[Act, ...]:
    """What a change does to a custom property that the caller sees or not.

    What he may not read takes both rights to be set, or the answer would tell if it is there.
    """
    if op is ChangeOp.REMOVE:
        return (Act.DELETE,)
    if not readable:
        return (Act.CREATE, Act.UPDATE)
    return (Act.UPDATE,) if exists else (Act.CREATE,)


def _assign(image: Image, name: str, value: object) -> Image:
    if name == "tags" and isinstance(value, (list, tuple, set, frozenset)):
        return replace(image, tags=frozenset(value))
    if name == "visibility":
        return replace(image, visibility=Visibility(str(value)))
    if name in BASE_ATTRIBUTES:
        return replace(image, **{name: value})  # type: ignore[arg-type]
    return replace(image, properties={**image.properties, name: str(value)})
