"""Copies of an image's data on their way into the stores: what of an import there is so far."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from headrace import errors
from headrace.db import imports, uploads
from headrace.db.engine import Database
from headrace.model import MIB, Location
from headrace.service.images import Clock
from headrace.service.landing import Landed
from headrace.service.plugins import Staged
from headrace.service.quota import UNLIMITED, Room
from headrace.service.regions import Found, RemoteSource
from headrace.stores.base import Data, Store, Writer
from headrace.stores.registry import Registry
from headrace.transfer.extent import Extent

_log = logging.getLogger(__name__)

IMPORTING_TO, FAILED_IMPORT = "os_glance_importing_to_stores", "os_glance_failed_import"

_LOOK_AGAIN = 5.0  # seconds between two looks at whether the work is still wanted
_TELL_AGAIN = 60.0
_LONGEST_MESSAGE = 1000  # characters


@dataclass(frozen=True, slots=True)
class Job:
    """One import: ``stores`` in their order; with ``all_must_succeed`` to all of them or none.

    ``roles`` are those of who asked, in lower case; ``room`` is for the data once, and reserved for
    each of the stores.
    """

    image_id: str
    task_id: str
    method: str
    stores: tuple[str, ...]
    all_must_succeed: bool = True
    uri: str = ""
    source: RemoteSource | None = None
    roles: frozenset[str] = frozenset()
    room: Room = UNLIMITED


class Observed(Protocol):
    """A job as those see it who watch the service: how many bytes of the image there are."""

    landed: int

    def expect(self, size: int | None) -> None:
        """Take note of how many there will be."""
        ...


class Watch:
    """Told how many bytes of a job are there: tells its task, and whether to go on."""

    def __init__(
        self, database: Database, job: Job, clock: Clock, stopping: Callable[[], bool]
    ) -> None:
        self.observed: Observed | None = None
        self._stopping = stopping
        self._stopped = False
        self._database = database
        self._job = job
        self._room = job.room
        self._clock = clock
        self._look = time.monotonic() + _LOOK_AGAIN
        self._tell = time.monotonic() + _TELL_AGAIN

    def expect(self, size: int | None) -> None:
        """Take note of how many bytes there will be; raises QuotaExceeded."""
        self._room.begin(size)
        if self.observed is not None:
            self.observed.expect(size)

    def settle(self) -> None:
        """Take note that there will be no more than there are, for which all stores have room."""
        self._room = UNLIMITED

    def stop(self) -> None:
        """Have whoever goes on with the job end."""
        self._stopped = True

    def check(self) -> None:
        """Raises ServiceStops when nothing is to go on."""
        if self._stopped or self._stopping():
            raise errors.ServiceStops()

    def __call__(self, total: int) -> None:
        """Raises ImageGone when nobody wants the bytes any more, ServiceStops, QuotaExceeded."""
        self.check()
        if total > self._room.bound:
            self._room.grow(total)
        if self.observed is not None:
            self.observed.landed = max(self.observed.landed, total)
        now = time.monotonic()
        if now < self._look:
            return
        self._look = now + _LOOK_AGAIN
        message = None
        if now >= self._tell:
            self._tell = now + _TELL_AGAIN
            message = f"Copied {total // MIB} MiB"
        job, clock = self._job, self._clock
        if not imports.report(self._database, job.image_id, job.task_id, message, clock()):
            raise errors.ImageGone(image_id=job.image_id)


class Copies:
    """What a job has written so far: which stores have it, what of that is on record."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        job: Job,
        clock: Clock,
        watch: Watch,
        task_life: timedelta,
    ) -> None:
        self._database = database
        self._registry = registry
        self._job = job
        self._clock = clock
        self._task_life = task_life
        self._lock = threading.RLock()  # several stores may be written at a time
        self._writers: list[tuple[Store, Writer, str]] = []
        self._unrecorded: list[Location] = []
        self._importing = list(job.stores)
        self._failed: list[str] = []
        self._failure: errors.Error | None = None
        self._recorded = False
        self.landed: Landed | None = None
        self.ready: Staged | None = None
        self.taken: Found | None = None
        self.watch = watch

    @property
    def first(self) -> Writer | None:
        """The writer that has the data since it came in."""
        return self._writers[0][1] if self._writers else None

    def data(self, size: int) -> Data:
        """The ``size`` bytes that came in, from where they are."""
        store, writer, url = self._writers[0]
        return store.open(url) if writer.lost else Extent(os.dup(writer.sink.fd), 0, size)

    @contextlib.contextmanager
    def of(self, store_id: str) -> Iterator[None]:
        """The attempt at one store, whose failure may be borne."""
        try:
            yield
        except (
            errors.StoreFull,
            errors.ServiceUnavailable,
            errors.DataExists,
            errors.TransferError,
        ) as error:
            with self._lock:
                self._importing.remove(store_id)
                self._failed.append(store_id)
            if self._job.all_must_succeed or self._is_source(error):
                raise
            _log.warning("image %s, store %s: %s", self._job.image_id, store_id, error)
            self._failure = error
            return
        with self._lock:
            self._importing.remove(store_id)
            if not self._job.all_must_succeed and self._importing:
                self._record(None)

    def _is_source(self, error: errors.Error) -> bool:
        """Whether it is no store that failed: the data would not come for the next one either."""
        of_source = type(error) is errors.ServiceUnavailable or isinstance(
            error, errors.TransferError
        )
        return of_source and self.landed is None

    def add(self, store: Store, writer: Writer) -> None:
        """Take note of data that is all there, and publish it."""
        try:
            url = writer.commit()
            location = self._registry.place(store, url)
        except BaseException:
            writer.abort()
            raise
        self.watch.settle()
        with self._lock:
            self._writers.append((store, writer, url))
            self._unrecorded.append(location)

    def finish(self) -> str:
        """Record what there is, and the import's end; where that is.

        Raises why there is nothing.
        """
        if not self._writers:
            raise self._failure or errors.Error()
        now = self._clock()
        there = ", ".join(store.id for store, _, _ in self._writers)
        missing = f", not to {', '.join(self._failed)}" if self._failed else ""
        ending = imports.Ending(f"Copied to {there}{missing}", now + self._task_life)
        self._record(ending)
        return there

    def _record(self, ending: imports.Ending | None) -> None:
        if ending is None and not self._unrecorded:
            return
        found: dict[str, object] | None = None
        properties = self._properties()
        if self.landed is not None and not self._recorded:
            taken = self.taken.formats if self.taken else {}
            found = {**taken, **_columns(self.landed, self.ready)}
        imports.record(
            self._database,
            self._job.image_id,
            self._job.task_id,
            locations=self._unrecorded,
            found=found,
            properties=properties,
            ending=ending,
            now=self._clock(),
        )
        self._recorded = True
        self._unrecorded = []

    def _properties(self) -> dict[str, str]:
        properties: dict[str, str] = {}
        if self.ready is not None and not self._recorded:  # once: they may be changed then
            properties |= self.ready.properties
        if self.taken is not None and not self._recorded:
            properties = {**self.taken.properties, **properties}
        if self._registry.several:
            properties |= progress(self._importing, self._failed)
        return properties

    def give_up(self, failure: BaseException) -> None:
        """Withdraw what is not on record; end the job as one that failed."""
        job, now = self._job, self._clock()
        message = _message(failure)
        try:
            properties = {}
            if self._registry.several:
                failed = [*self._failed, *self._importing] if job.all_must_succeed else self._failed
                properties = progress((), failed)
            uploads.release(
                self._database,
                job.image_id,
                job.task_id,
                now,
                discard=lambda: self._retract([]),
                message=message,
                properties=properties,
                task_life=self._task_life,
            )
            uploads.tidy(self._database, job.image_id, self._retract)
        except errors.Error as error:
            # Its lease is no longer renewed, so the housekeeping ends it later.
            _log.error("image %s stays in importing for now: %s", job.image_id, error)

    def _retract(self, live: Sequence[Location]) -> None:
        for store, writer, _ in self._writers:
            if not any(store.holds(each.url) for each in live):
                writer.retract()

    def close(self) -> None:
        for _, writer, _ in self._writers:
            writer.abort()


def progress(importing: Sequence[str], failed: Sequence[str]) -> dict[str, str]:
    """What an image's properties say of an import to several stores."""
    return {IMPORTING_TO: ",".join(importing), FAILED_IMPORT: ",".join(failed)}


def _message(failure: BaseException) -> str:
    """What a task says of it: bounded, since it may quote another region's service, and without
    characters that a column of MySQL's utf8 does not take.
    """
    text = str(failure) if isinstance(failure, errors.Error) else type(failure).__name__
    return "".join(each if each < "\U00010000" else "?" for each in text[:_LONGEST_MESSAGE])


def _columns(landed: Landed, ready: Staged | None) -> dict[str, object]:
    """What an image's record says of its data: of its formats, if plugins have made them."""
    made = {}
    if ready is not None:
        image = ready.image
        made = {"disk_format": image.disk_format, "container_format": image.container_format}
    return {
        **made,
        "size": landed.size,
        "virtual_size": landed.virtual_size,
        "checksum": landed.checksum,
        "os_hash_algo": landed.os_hash_algo,
        "os_hash_value": landed.os_hash_value,
    }
