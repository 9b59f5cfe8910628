"""The work of imports, behind the answers: data fetched or taken from where it is staged, hashed,
inspected and written to the stores.

A job is its task's row and a lease that this process renews.  Whatever goes wrong, the image is
queued again (one that is being copied stays active), its lock is gone and the stores hold nothing
new; when the process dies, another one's housekeeping does that.
"""

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from headrace import errors
from headrace.db import images as rows
from headrace.db import imports, uploads
from headrace.db.engine import Database
from headrace.model import MIB, TASK_LIFE, Image, Location, Viewer
from headrace.service.images import Clock
from headrace.service.landing import Body, Landed, Landing, begin
from headrace.service.regions import Found, Regions, RemoteSource
from headrace.service.staging import Staging
from headrace.stores.base import Store, Writer
from headrace.stores.origin import Origins
from headrace.stores.registry import Registry
from headrace.stores.remote import Remote
from headrace.transfer.engine import Reader, Source, pump_all
from headrace.transfer.extent import Extent

_log = logging.getLogger(__name__)

GLANCE_DIRECT, WEB_DOWNLOAD, COPY_IMAGE = "glance-direct", "web-download", "copy-image"
GLANCE_DOWNLOAD = "glance-download"

IMPORTING_TO, FAILED_IMPORT = "os_glance_importing_to_stores", "os_glance_failed_import"

_LOOK_AGAIN = 5.0  # seconds between two looks at whether the work is still wanted
_TELL_AGAIN = 60.0
_LONGEST_MESSAGE = 1000  # characters
_EVERYBODY = Viewer(is_admin=True)


@dataclass(frozen=True, slots=True)
class Job:
    """One import: ``stores`` in their order; with ``all_must_succeed`` to all of them or none."""

    image_id: str
    task_id: str
    method: str
    stores: tuple[str, ...]
    all_must_succeed: bool = True
    uri: str = ""
    source: RemoteSource | None = None


class _Body:
    """A body whose bytes are ``source``; ``file`` may become the image's."""

    def __init__(self, source: Source, length: int | None, file: int | None = None) -> None:
        self._source = source
        self.length = length
        self.file = file

    def pieces(self) -> Iterator[Source]:
        yield self._source


class Jobs:
    """The imports of one process, ``most`` at a time; the others wait."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        staging: Staging,
        landing: Landing,
        origins: Origins,
        regions: Regions,
        clock: Clock,
        most: int,
    ) -> None:
        self._database = database
        self._registry = registry
        self._staging = staging
        self._landing = landing
        self._origins = origins
        self._regions = regions
        self._clock = clock
        self._most = most
        self._waiting: deque[Job] = deque()
        self._active: set[str] = set()
        self._threads = 0
        self._lock = threading.Lock()

    def add(self, job: Job) -> None:
        """Have a job done whose task is on record, with a lease of this process."""
        with self._lock:
            self._active.add(job.task_id)
            self._waiting.append(job)
            if self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._work, name="import", daemon=True).start()

    def active(self) -> list[str]:
        """The leases of the jobs of this process."""
        return list(self._active)

    def _next(self) -> Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                if imports.take(self._database, job.task_id, self._clock()):
                    self._do(job)
            except errors.Error as error:
                _log.warning("import of image %s failed: %s", job.image_id, error)
            except Exception:
                _log.exception("import of image %s failed", job.image_id)
            finally:
                self._active.discard(job.task_id)

    def _do(self, job: Job) -> None:
        copies = _Copies(self._database, self._registry, job, self._clock)
        try:
            image = rows.show(self._database, job.image_id, _EVERYBODY)
            bring = self._copy if job.method == COPY_IMAGE else self._import
            for store_id in job.stores:
                with copies.of(store_id):
                    bring(job, image, self._registry.chosen(store_id), copies)
            copies.finish()
            self._unstage(job)
        except BaseException as failure:
            self._unstage(job)  # before the image is queued, and other data may be staged
            copies.give_up(failure)
            raise
        finally:
            copies.close()

    def _unstage(self, job: Job) -> None:
        if job.method == GLANCE_DIRECT:
            self._staging.discard(job.image_id)

    def _import(self, job: Job, image: Image, store: Store, copies: "_Copies") -> None:
        """The data into one store: the first time from where it comes, then from there."""
        if copies.first is not None and copies.landed is not None:
            size = copies.landed.size
            with contextlib.closing(Extent(os.dup(copies.first.sink.fd), 0, size)) as extent:
                copies.add(store, _copied(store, image.id, extent, size, copies.watch))
            return
        if job.source is not None:
            self._take_over(job.source, image, store, copies)
            return
        with self._body(job) as body:
            self._landing.check_length(body.length, None)
            writer = begin(store, image.id, body, None)
            try:
                copies.landed = self._landing.land(image, writer, body, None, copies.watch)
            except BaseException:
                writer.abort()
                raise
            copies.add(store, writer)

    def _take_over(
        self, source: RemoteSource, image: Image, store: Store, copies: "_Copies"
    ) -> None:
        """The data of another region's image into a store, and what else is taken of it."""
        found = self._regions.look(source, image)
        self._landing.check_length(found.size, None)
        writer = store.create(image.id, found.size)
        try:
            copies.landed = self._landing.bring(
                replace(image, **found.formats),  # type: ignore[arg-type]
                writer,
                lambda landed: self._regions.fetch(source, found, writer.sink.fd, landed),
                copies.watch,
                found.expected,
            )
        except BaseException:
            writer.abort()
            raise
        copies.taken = found
        copies.add(store, writer)

    @contextlib.contextmanager
    def _body(self, job: Job) -> Iterator[Body]:
        if job.method == GLANCE_DIRECT:
            with contextlib.closing(self._staging.open(job.image_id)) as extent:
                yield _Body(extent, extent.length, extent.fd)
        else:
            with contextlib.closing(self._origins.download(job.uri)) as fetched:
                yield _Body(Reader(fetched, fetched.length), fetched.length)

    def _copy(self, job: Job, image: Image, store: Store, copies: "_Copies") -> None:
        """The data of an active image into one more store."""
        size = image.size or 0
        failure: errors.Error = errors.NotFound(f"the data of image {image.id} is nowhere")
        for location in self._registry.ordered(image.locations):
            try:
                data = self._registry.for_location(location).open(location.url)
            except errors.Error as error:
                failure = error
                continue
            with contextlib.closing(data):
                if data.length != size:
                    failure = errors.StoreCorrupt(
                        image_id=image.id, reason=f"{data.length} bytes instead of {size}"
                    )
                    continue
                source = Reader(_Remote(data), size) if isinstance(data, Remote) else data
                copies.add(store, _copied(store, image.id, source, size, copies.watch))
                return
        raise failure


class _Remote:
    """A Remote as a Readable."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def readinto(self, buffer: memoryview, /) -> int:
        data = self._remote.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _copied(store: Store, image_id: str, source: Source, size: int, watch: "_Watch") -> Writer:
    """A writer with all of ``source``; by copy_file_range or reflink where that can be."""
    writer = store.create(image_id, size)
    try:

        def landed(total: int) -> None:
            writer.advance(total)
            watch(total)

        pump_all([source], writer.sink, limit=size, progress=landed)
        return writer
    except BaseException:
        writer.abort()
        raise


class _Watch:
    """Told how many bytes of a job are there: tells its task, and whether to go on."""

    def __init__(self, database: Database, job: Job, clock: Clock) -> None:
        self._database = database
        self._job = job
        self._clock = clock
        self._look = time.monotonic() + _LOOK_AGAIN
        self._tell = time.monotonic() + _TELL_AGAIN

    def __call__(self, total: int) -> None:
        """Raises ImageGone when nobody wants the bytes any more."""
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


class _Copies:
    """What a job has written so far: which stores have it, what of that is on record."""

    def __init__(self, database: Database, registry: Registry, job: Job, clock: Clock) -> None:
        self._database = database
        self._registry = registry
        self._job = job
        self._clock = clock
        self._writers: list[tuple[Store, Writer]] = []
        self._unrecorded: list[Location] = []
        self._importing = list(job.stores)
        self._failed: list[str] = []
        self._failure: errors.Error | None = None
        self._recorded = False
        self.landed: Landed | None = None
        self.taken: Found | None = None
        self.watch = _Watch(database, job, clock)

    @property
    def first(self) -> Writer | None:
        """The writer that has the data since it came in."""
        return self._writers[0][1] if self._writers else None

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
            self._importing.remove(store_id)
            self._failed.append(store_id)
            if self._job.all_must_succeed or self._is_source(error):
                raise
            _log.warning("image %s, store %s: %s", self._job.image_id, store_id, error)
            self._failure = error
            return
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
            location = self._registry.place(store, writer.commit())
        except BaseException:
            writer.abort()
            raise
        self._writers.append((store, writer))
        self._unrecorded.append(location)

    def finish(self) -> None:
        """Record what there is, and the import's end; raises why there is nothing."""
        if not self._writers:
            raise self._failure or errors.Error()
        now = self._clock()
        there = ", ".join(store.id for store, _ in self._writers)
        missing = f", not to {', '.join(self._failed)}" if self._failed else ""
        ending = imports.Ending(f"Copied to {there}{missing}", now + TASK_LIFE)
        self._record(ending)

    def _record(self, ending: imports.Ending | None) -> None:
        if ending is None and not self._unrecorded:
            return
        found: dict[str, object] | None = None
        properties = self._properties()
        if self.landed is not None and not self._recorded:
            found = _columns(self.landed)
            if self.taken is not None:
                found |= self.taken.formats
                properties |= self.taken.properties
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
        if not self._registry.several:
            return {}
        return progress(self._importing, self._failed)

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
            )
            uploads.tidy(self._database, job.image_id, self._retract)
        except errors.Error as error:
            # Its lease is no longer renewed, so the housekeeping ends it later.
            _log.error("image %s stays in importing for now: %s", job.image_id, error)

    def _retract(self, live: Sequence[Location]) -> None:
        for store, writer in self._writers:
            if not any(store.holds(each.url) for each in live):
                writer.retract()

    def close(self) -> None:
        for _, writer in self._writers:
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


def _columns(landed: Landed) -> dict[str, object]:
    return {
        "size": landed.size,
        "virtual_size": landed.virtual_size,
        "checksum": landed.checksum,
        "os_hash_algo": landed.os_hash_algo,
        "os_hash_value": landed.os_hash_value,
    }
