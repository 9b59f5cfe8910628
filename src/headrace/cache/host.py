"""The images that a compute host keeps of an image service, for all processes that fetch them.

One downloads an image, the others wait for it.  It comes over as many connections as it takes, goes
on where a killed one was, and is nobody's before its hash is the one that the service has on
record.  What was fetched once can be had without the service.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from headrace import errors
from headrace.cache.conversions import Conversions, Convert, entry_id
from headrace.cache.directory import Directory, Entry
from headrace.cache.filling import Fill, Outcome
from headrace.cache.records import Record, Records
from headrace.client import download
from headrace.client.connection import Connection
from headrace.client.partial import Expected
from headrace.model import Status, is_image_id
from headrace.transfer.digest import Follower
from headrace.transfer.engine import Progress
from headrace.transfer.extent import Extent
from headrace.transfer.growing import WHOLE, Growing, Standing

_STARTS = 3
_LOOK = 0.05  # seconds between two looks at what another process does
DEAD_FOR = 86400.0
"""Seconds after which nobody is expected to go on with a fetch that broke off."""


class Found(StrEnum):
    """How an image came to be in the cache."""

    HIT = "hit"
    WAITED = "waited"  # another process fetched it meanwhile
    FETCHED = "fetched"


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that is in the cache, and will be at least until ``extent`` is closed.

    ``resumed`` are the bytes that an earlier fetch had left; ``verified`` is the algorithm of its
    hash, None if it has none.
    """

    record: Record
    extent: Extent
    found: Found
    path: str
    resumed: int = 0

    @property
    def verified(self) -> str | None:
        return Expected.of(self.record.image).algorithm


@dataclass(frozen=True, slots=True)
class Listed:
    """An image in the cache; ``used`` is when it was last, in seconds since the epoch."""

    entry_id: str
    record: Record
    used: float


class HostCache:
    """The cache in the directory ``path``, of at most ``max_size`` bytes of image data.

    It is made so that only its user may enter it, since who may have an image is decided when it is
    fetched; where others may write, ConfigurationError is raised.  ``stall`` is for how many
    seconds another process may bring nothing of an image that one waits for.
    """

    def __init__(self, path: str | os.PathLike[str], max_size: int, stall: float = 60.0) -> None:
        path = os.path.abspath(path)
        with contextlib.suppress(OSError):  # Directory says what is wrong
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mkdir(path, 0o700)
        _expect_own(path)
        self._directory = Directory(path, max_size)
        self._records = Records(os.path.join(path, "records"))
        self._conversions = Conversions(self._directory, self._records)
        self._stall = stall
        self.path = path
        self.max_size = max_size

    @contextlib.contextmanager
    def fetched(
        self,
        connection: Connection,
        image: Mapping[str, object],
        *,
        unverified: bool = False,
        progress: Progress | None = None,
    ) -> Iterator[Kept]:
        """The data of ``image``, the service's record, which is fetched unless it is there.

        ``unverified`` takes an image of which the service has no hash.  ``progress`` is told of the
        bytes there so far, whoever brings them.  Raises ClientError for what cannot be kept,
        DataCorrupt, and what the service answers.
        """
        size = _expect(image, unverified=unverified)
        if size > self.max_size:
            raise errors.ClientError(
                reason=f"the image has {size} bytes, more than all of the cache: {self.max_size}"
            )
        kept = self._have(connection, Record.of(image, size), progress or (lambda _: None))
        with contextlib.closing(kept.extent):
            yield kept

    @contextlib.contextmanager
    def held(self, image_id: str) -> Iterator[Kept | None]:
        """The data of an image that is in the cache, without asking anybody; None if it is not."""
        record = self._records.read(image_id) if is_image_id(image_id) else None
        if record is not None and record.converted_to is not None:
            record = None  # the id is an entry's, and no image's
        extent = None if record is None else self._open(image_id, record)
        if record is None or extent is None:
            yield None
            return
        with contextlib.closing(extent):
            yield self._kept(record, extent, Found.HIT)

    @contextlib.contextmanager
    def converted(self, kept: Kept, format: str, convert: Convert) -> Iterator[Kept]:
        """An image that is kept, in a format: as it was made of it once, or is now.

        Raises ClientError when there is no room, and what ``convert`` does.
        """
        found = Found.HIT
        for _ in range(_STARTS):
            there = self._conversions.open(kept.record.image, format)
            if there is not None:
                record, extent = there
                with contextlib.closing(extent):
                    path = self._path(entry_id(str(record.image["id"]), format))
                    yield Kept(record, extent, found, path)
                return
            try:
                made = self._conversions.make(kept.record.image, kept.extent, format, convert)
            except errors.StoreFull as error:
                raise self._no_room("the disk in another format") from error
            if not made:
                yield kept
                return
            found = Found.FETCHED
        raise self._no_room("the disk in another format")  # others remove it as soon as it is there

    def list(self) -> list[Listed]:
        """What is there, whole; what was used last comes first."""
        entries = sorted(self._directory.cached(), key=lambda each: -each.last_accessed)
        return [
            Listed(each.image_id, record, each.last_accessed)
            for each in entries
            if (record := self._records.read(each.image_id)) is not None
        ]

    def used(self) -> int:
        """How many bytes lie there, whole or not."""
        return self._directory.used()

    def delete(self, image_id: str) -> bool:
        """Remove an image; whether it was there.  Files that it was delivered to stay."""
        there = self._directory.delete(image_id)
        for each in self.list():
            if str(each.record.image["id"]) == image_id:  # in another format
                there = self._directory.delete(each.entry_id) or there
        self._tidy()
        return there

    def prune(self, dead_for: float = DEAD_FOR) -> tuple[int, int]:
        """Make it fit ``max_size``, and remove what is of no use; images and bytes removed.

        What a fetch left that broke off is gone on with for ``dead_for`` seconds.
        """
        before = self.used()
        removed, _ = self._directory.prune()
        removed += self._sweep(dead_for)
        return removed, max(before - self.used(), 0)

    def _have(self, connection: Connection, record: Record, progress: Progress) -> Kept:
        image_id = str(record.image["id"])
        known = self._records.read(image_id)
        if known is not None and not known.is_of(record.image):
            self._directory.delete(image_id)  # it is of what the image was before
        found, resumed, starts = Found.HIT, 0, 0
        while True:
            extent = self._open(image_id, record)
            if extent is not None:
                return self._kept(record, extent, found, resumed)
            entry = self._begin(image_id, record)
            if entry is None:
                self._wait(image_id, record, progress)
                found, resumed = Found.WAITED, 0
                continue
            found, resumed, starts = Found.FETCHED, entry.landed, starts + 1
            failure = self._fill(connection, entry, record, progress)
            again = isinstance(failure, errors.NoRanges)
            # What was there may be the wrong part: a power cut damages what was not synced.
            again = again or (isinstance(failure, errors.DataCorrupt) and resumed > 0)
            if failure is not None and not (again and starts < _STARTS):
                raise failure
            if starts > _STARTS:  # others remove it as soon as it is there
                raise self._no_room(f"{record.size} bytes")

    def _open(self, image_id: str, record: Record) -> Extent | None:
        """The data, whole and as it was verified; what is not is removed."""
        extent = self._directory.open(image_id, record.size)
        if extent is None:
            return None
        try:
            known = self._records.read(image_id)
            mtime_ns = os.fstat(extent.fileno()).st_mtime_ns
            if known is not None and known.is_of(record.image) and known.mtime_ns == mtime_ns:
                return extent
            if self._is_right(extent, record):
                self._note(image_id, record, mtime_ns)
                return extent
        except BaseException:
            extent.close()
            raise
        extent.close()
        self._directory.delete(image_id)
        return None

    def _is_right(self, extent: Extent, record: Record) -> bool:
        """Whether the data is the image's: somebody may have written to it, by a link of it."""
        expected = Expected.of(record.image)
        if expected.algorithm is None:
            return False
        follower = Follower(extent.fileno(), [expected.algorithm])
        try:
            return follower.finish(record.size)[expected.algorithm] == expected.digest
        finally:
            follower.stop()

    def _begin(self, image_id: str, record: Record) -> Entry | None:
        """The image's entry to be filled; None when somebody else has it."""
        try:
            entry = self._directory.begin(image_id, record.size)
        except errors.StoreFull as error:
            raise self._no_room(f"{record.size} bytes") from error
        if entry is not None:
            try:
                whole = entry.landed == record.size  # of a dead filler, who had not verified it
                self._note(image_id, record, os.fstat(entry.fd).st_mtime_ns if whole else None)
            except BaseException:
                entry.leave()
                raise
        return entry

    def _fill(
        self, connection: Connection, entry: Entry, record: Record, progress: Progress
    ) -> errors.Error | None:
        """Bring the data; why it did not come."""
        image_id, fd = entry.image_id, entry.fd

        def advance(landed: int) -> None:
            if landed == record.size:  # nobody writes to it any more
                self._note(image_id, record, os.fstat(fd).st_mtime_ns)
            progress(landed)

        expected = Expected.of(record.image)
        fill = Fill(
            entry,
            expected,
            partial(download.arriving, connection, expected),
            checksum=str(record.image["checksum"]) if record.image.get("checksum") else None,
            progress=advance,
            keep=True,
        )
        outcome = fill.run()
        if outcome is Outcome.WHOLE:
            self._sweep(DEAD_FOR)
            return None
        if outcome is Outcome.REMOVED:
            return errors.ClientError(reason="the image was removed from the cache meanwhile")
        if isinstance(fill.failure, errors.StoreFull):
            return self._no_room(f"{record.size} bytes")
        return fill.failure or errors.ClientError(reason="the image could not be fetched")

    def _wait(self, image_id: str, record: Record, progress: Progress) -> None:
        """Wait while another process brings the image."""
        fd = self._directory.follow(image_id)
        if fd is None:
            time.sleep(_LOOK)
            return
        alone: list[bool] = []
        growing = Growing(fd, record.size, stall=self._stall, revive=lambda: alone.append(True))
        try:
            while not alone and (landed := growing.look()) != WHOLE:
                progress(landed)
                time.sleep(_LOOK)
        except errors.FillFailed as error:
            if Standing.of(os.fstat(fd).st_mode) is Standing.UNDER_WAY:
                raise errors.ClientError(
                    reason=f"another process fetches the image, and {error.fields['reason']}"
                ) from error
        finally:
            growing.close()
        time.sleep(_LOOK)  # it gets its name

    def _kept(self, record: Record, extent: Extent, found: Found, resumed: int = 0) -> Kept:
        return Kept(record, extent, found, self._path(str(record.image["id"])), resumed)

    def _path(self, entry_id: str) -> str:
        return os.path.join(self.path, entry_id)

    def _note(self, image_id: str, record: Record, mtime_ns: int | None) -> None:
        self._records.write(
            image_id, Record(record.image, record.size, mtime_ns, record.converted_to)
        )

    def _sweep(self, dead_for: float) -> int:
        """Remove what killed processes left; how many images that were."""
        removed = self._directory.clean(dead_for)
        self._conversions.clean()
        self._tidy()
        return removed

    def _tidy(self) -> None:
        """Forget what is not there any more."""
        self._records.keep(self._there)

    def _there(self) -> set[str]:
        """The entries that are there, whole or not."""
        # In this order, or what is published between the two would be in neither.
        names = set(os.listdir(os.path.join(self.path, "incomplete")))
        return names | {each.image_id for each in self._directory.cached()}

    def _no_room(self, what: str) -> errors.ClientError:
        return errors.ClientError(
            reason=f"there is no room for {what} in {self.path}: the disk is full, or so much of "
            f"its {self.max_size} bytes is in use"
        )


def _expect_own(path: str) -> None:
    """Raises ConfigurationError for a directory in which others could lay an image."""
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise errors.ConfigurationError(
                reason=f"cache directory {path}: others than this user may write there"
            )


def _expect(image: Mapping[str, object], *, unverified: bool) -> int:
    """The size of an image that can be kept; raises ClientError for one that cannot."""
    status, size = image.get("status"), image.get("size")
    if not is_image_id(str(image.get("id"))):
        raise errors.ClientError(reason="the service calls an image what is no image id")
    if status != Status.ACTIVE:
        raise errors.ClientError(reason=f"the image is {status}, and not to be used")
    if not isinstance(size, int):
        raise errors.ClientError(reason="the image has no data")
    if Expected.of(image).algorithm is None and not unverified:
        raise errors.ClientError(
            reason="the service has no hash of this image; --unverified takes it all the same"
        )
    return size
