"""What projects may have, and the room that an upload has in that.

Bytes are reserved before they are read: as many as are announced or, of a body of unknown length, a
chunk and then another as they come; near a limit, what each system call brings, as it comes.  What
is reserved becomes an image's data, or is free again, in the same transaction that says so of the
image.  Quotas are of the image's project, whoever acts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from headrace import errors
from headrace.db import quotas, uploads
from headrace.db.engine import Database
from headrace.db.quotas import Demand, Limits
from headrace.model import MIB, Image, Resource
from headrace.service.context import Context

_IN_BYTES = (Resource.SIZE, Resource.STAGE)
_ANY_NUMBER = 1 << 63

# Of a body of unknown length so many bytes are reserved at a time, and the next before the last of
# these have come: earlier by what one system call brings, so that none come unreserved.
_CHUNK, _AHEAD = 64 * MIB, 8 * MIB


@dataclass(frozen=True, slots=True)
class ProjectLimits:
    """What each project may have, and what some may instead: bytes, images; negative: any number.

    Images without an owner are those of a project "".
    """

    all: Limits
    projects: Mapping[str, Limits]

    def of(self, owner: str | None) -> Limits:
        """What is limited for a project."""
        found = {**self.all, **self.projects.get(owner or "", {})}
        return {resource: limit for resource, limit in found.items() if limit >= 0}


def _as_many(least: int, spare: int) -> int:
    return _ANY_NUMBER


class Room:
    """How many bytes an upload may bring: ``take(least, spare)`` reserves more, and says how many.

    ``bound`` is their number above which ``grow`` is to be called: a comparison, where a call for
    each system call would be dear.
    """

    def __init__(
        self, take: Callable[[int, int], int] = _as_many, bound: int = _ANY_NUMBER
    ) -> None:
        self._take = take
        self.bound = bound

    def begin(self, length: int | None) -> None:
        """Have room for a body that is about to be read; raises as ``grow``."""
        if self.bound == _ANY_NUMBER:
            return
        if length is None:
            self.grow(1)
        elif length > self.bound:
            self.bound = self._reserve(length, 0)

    def grow(self, total: int) -> None:
        """Have room for ``total`` bytes and some more.

        Raises QuotaExceeded, ImageGone, StatusConflict (the upload was taken back).
        """
        self.bound = _bound(self._reserve(total, _CHUNK), total + _CHUNK)

    def _reserve(self, least: int, spare: int) -> int:
        try:
            return self._take(least, spare)
        except errors.QuotaExceeded:
            self.bound = 0  # nothing is reserved any more, for other threads of an import neither
            raise


UNLIMITED = Room()


class Quota:
    """The quotas of the projects of one database; ``limits`` says what a project may have."""

    def __init__(self, database: Database, limits: Callable[[str | None], Limits]) -> None:
        self._database = database
        self.limits = limits

    def image(self, owner: str | None) -> Demand | None:
        """What a new image of a project takes; None where that is not limited."""
        return self._demand(owner, {Resource.COUNT: 1})

    def data(
        self, image: Image, size: int | None, *, copies: int = 1, coming: bool = True
    ) -> Demand | None:
        """What copies of an image's data take, of ``size`` bytes each, None: that is to be seen.

        ``coming``: the image is not among those that data comes for yet, but will be.
        """
        takes = {Resource.SIZE: copies * (1 if size is None else size)}
        if coming:
            takes[Resource.UPLOADING] = 1
        return self._demand(image.owner, takes, Resource.SIZE if size is None else None)

    def staged(self, image: Image, size: int | None) -> Demand | None:
        """What data takes that is staged, of ``size`` bytes, None: that is to be seen."""
        takes = {Resource.STAGE: 1 if size is None else size, Resource.UPLOADING: 1}
        return self._demand(image.owner, takes, Resource.STAGE if size is None else None)

    def fetched(self, image: Image, copies: int, *, new: bool = False) -> Demand | None:
        """What an import takes of data that nobody has asked yet how large it is.

        ``new``: the image is not on record yet.
        """
        takes = {Resource.SIZE: copies, Resource.UPLOADING: 1}
        if new:
            takes[Resource.COUNT] = 1
        return self._demand(image.owner, takes)

    def limits_data(self, image: Image) -> bool:
        """Whether the image's project may have only so much data."""
        return Resource.SIZE in self.limits(image.owner)

    def room(
        self, demand: Demand | None, image_id: str, upload_id: str, reserved: int, copies: int = 1
    ) -> Room:
        """The room of an upload that has ``reserved`` so many bytes for all its copies."""
        if demand is None:
            return UNLIMITED
        limited = demand.limits.keys() & demand.takes
        resource = next((each for each in _IN_BYTES if each in limited), None)
        if resource is None:
            return UNLIMITED

        def take(least: int, spare: int) -> int:
            more = replace(
                demand, takes={resource: copies * least}, spare={resource: copies * spare}
            )
            return uploads.extend(self._database, image_id, upload_id, more) // copies

        granted = reserved // copies
        return Room(take, _bound(granted, _CHUNK) if demand.spare else granted)

    def usage(self, context: Context) -> dict[Resource, tuple[int, int]]:
        """What the caller's project may have (-1: any number) and uses: bytes, images."""
        limits = self.limits(context.project_id)
        used = quotas.usage(self._database, context.project_id)
        return {each: (limits.get(each, -1), used[each]) for each in Resource}

    def _demand(
        self, owner: str | None, takes: Mapping[Resource, int], unknown: Resource | None = None
    ) -> Demand | None:
        limits = self.limits(owner)
        if not limits.keys() & takes:
            return None
        return Demand(owner, limits, takes, {} if unknown is None else {unknown: _CHUNK})


def _bound(granted: int, wanted: int) -> int:
    """Where to ask for more: at the very end where little is left, of which each has but little."""
    return granted - _AHEAD if granted >= wanted else granted
