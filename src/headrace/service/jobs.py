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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta

from headrace import errors
from headrace.db import images as rows
from headrace.db import imports
from headrace.db.engine import Database
from headrace.model import MIB, TASK_LIFE, Image, Viewer
from headrace.service import plugins
from headrace.service.copies import Copies, Job, Observed, Watch
from headrace.service.images import Clock
from headrace.service.landing import Body, Landed, Landing, Target, begin
from headrace.service.plugins import Plugin, Staged, Work
from headrace.service.regions import Regions, RemoteSource
from headrace.service.staging import Staging
from headrace.stores.base import Data, Store, Writer
from headrace.stores.origin import Fetched, Origins
from headrace.stores.registry import Registry
from headrace.stores.remote import Remote
from headrace.transfer.engine import FileSink, Reader, Source, pump_all
from headrace.transfer.extent import Extent

_log = logging.getLogger(__name__)

GLANCE_DIRECT, WEB_DOWNLOAD, COPY_IMAGE = "glance-direct", "web-download", "copy-image"
GLANCE_DOWNLOAD = "glance-download"

_EVERYBODY = Viewer(is_admin=True)
_STEP = 8 * MIB  # between two looks at whether a copy is still wanted


@dataclass(frozen=True, slots=True)
class JobRules:
    """How jobs are done: ``most`` at a time, the others waiting, each of which writes to ``stores``
    stores at a time; ``plugins`` in their order; tasks are kept for ``task_life`` after their end.
    """

    most: int
    stores: int = 1
    plugins: tuple[Plugin, ...] = ()
    task_life: timedelta = TASK_LIFE


Observe = Callable[[Image, str], AbstractContextManager[Observed]]
"""image, method: told of a job while it goes on."""


class _Body:
    """A body whose bytes are ``source``; ``file`` may become the image's."""

    def __init__(self, source: Source, length: int | None, file: int | None = None) -> None:
        self._source = source
        self.length = length
        self.file = file

    def pieces(self) -> Iterator[Source]:
        yield self._source


class Jobs:
    """The imports of one process."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        staging: Staging,
        landing: Landing,
        origins: Origins,
        regions: Regions,
        clock: Clock,
        rules: JobRules,
        observe: Observe,
    ) -> None:
        self._database = database
        self._registry = registry
        self._staging = staging
        self._landing = landing
        self._origins = origins
        self._regions = regions
        self._clock = clock
        self._rules = rules
        self._observe = observe
        self._waiting: deque[Job] = deque()
        self._active: set[str] = set()
        self._fetching: set[Fetched] = set()
        self._stopping = False
        self._threads = 0
        self._lock = threading.Lock()

    def add(self, job: Job) -> None:
        """Have a job done whose task is on record, with a lease of this process."""
        with self._lock:
            self._active.add(job.task_id)
            self._waiting.append(job)
            if self._threads < self._rules.most:
                self._threads += 1
                threading.Thread(target=self._work, name="import", daemon=True).start()

    def stop(self) -> None:
        """Give up what goes on and what waits, and whatever is added yet.

        It is undone by the threads that have it, soon; ``active`` tells when.
        """
        with self._lock:  # so that none of them is closed yet
            self._stopping = True
            for fetched in self._fetching:
                fetched.cut()

    def waiting(self) -> int:
        """How many jobs have not begun."""
        return len(self._waiting)

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
                    self._begin(job)
            except errors.Error as error:
                _log.warning("import of image %s failed: %s", job.image_id, error)
            except Exception:
                _log.exception("import of image %s failed", job.image_id)
            finally:
                self._active.discard(job.task_id)

    def _begin(self, job: Job) -> None:
        watch = Watch(self._database, job, self._clock, lambda: self._stopping)
        copies = Copies(
            self._database, self._registry, job, self._clock, watch, self._rules.task_life
        )
        try:
            watch.check()
            image = rows.show(self._database, job.image_id, _EVERYBODY)
            with self._observe(image, job.method) as watch.observed:
                self._do(job, image, copies)
            self._unstage(job)
        except BaseException as failure:
            self._unstage(job)  # before the image is queued, and other data may be staged
            copies.give_up(failure)
            raise
        finally:
            copies.close()

    def _do(self, job: Job, image: Image, copies: Copies) -> None:
        began = time.monotonic()
        with ExitStack() as files:
            if self._rules.plugins and job.method != COPY_IMAGE:
                copies.ready = self._prepare(job, image, copies, files)

            def attempt(store_id: str) -> None:
                store = self._registry.chosen(store_id)
                with copies.of(store_id):
                    if job.method == COPY_IMAGE:
                        self._copy(image, store, copies)
                    else:
                        self._import(job, image, store, copies)

            self._spread(attempt, job, copies)
        there = copies.finish()
        seconds = time.monotonic() - began
        _log.info("image %s by %s to %s in %.1f s", image.id, job.method, there, seconds)

    def _spread(self, attempt: Callable[[str], None], job: Job, copies: Copies) -> None:
        """Attempt all stores: one by one until the data is there, then several at a time."""
        left = deque(job.stores)
        while left and job.method != COPY_IMAGE and copies.first is None:
            attempt(left.popleft())
        with ThreadPoolExecutor(self._rules.stores, "import") as pool:
            going = [pool.submit(attempt, store_id) for store_id in left]
            try:
                for each in as_completed(going):
                    each.result()
            except BaseException:
                copies.watch.stop()  # what the others do is for nothing
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _prepare(self, job: Job, image: Image, copies: Copies, files: ExitStack) -> Staged:
        """The data and the image as the plugins have made them."""
        watch = copies.watch

        def new_file() -> int:
            return files.enter_context(self._staging.new_file())

        if job.method == GLANCE_DIRECT:
            extent = files.enter_context(contextlib.closing(self._staging.open(job.image_id)))
            staged = Staged(extent.fd, extent.length, image)
        elif job.source is not None:
            fd = new_file()
            landed = self._take_over(job.source, image, _File(fd), copies)
            taken = copies.taken.formats if copies.taken else {}
            staged = Staged(fd, landed.size, replace(image, **taken))  # type: ignore[arg-type]
        else:
            fd = new_file()
            with self._fetch(job) as body:
                self._landing.check_length(body.length, None)
                watch.expect(body.length)
                cap = self._landing.rules.size_cap
                moved = pump_all(body.pieces(), FileSink(fd), limit=cap, progress=watch)
            watch.check()
            watch.expect(None)  # what the plugins make of it
            staged = Staged(fd, moved.bytes, image)
        return plugins.run(self._rules.plugins, staged, Work(job.roles, new_file, watch))

    def _unstage(self, job: Job) -> None:
        if job.method == GLANCE_DIRECT:
            self._staging.discard(job.image_id)

    def _import(self, job: Job, image: Image, store: Store, copies: Copies) -> None:
        """The data into one store: the first time from where it comes, then from there."""
        if copies.first is not None and copies.landed is not None:
            size = copies.landed.size
            with contextlib.closing(copies.data(size)) as data:
                copies.add(store, _copied(store, image.id, data, size, copies.watch))
            return
        if copies.ready is not None:
            image = copies.ready.image
        elif job.source is not None:
            writer = store.create(image.id, None)
            try:
                copies.landed = self._take_over(job.source, image, writer, copies)
            except BaseException:
                writer.abort()
                raise
            copies.add(store, writer)
            return
        with self._body(job, copies.ready) as body:
            self._landing.check_length(body.length, None)
            copies.watch.expect(body.length)
            writer = begin(store, image.id, body, None)
            try:
                copies.landed = self._landing.land(image, writer, body, None, copies.watch)
                copies.watch.check()  # data without a length that was cut seems to be at its end
            except BaseException:
                writer.abort()
                raise
            copies.add(store, writer)

    def _take_over(
        self, source: RemoteSource, image: Image, target: Target, copies: Copies
    ) -> Landed:
        """The data of another region's image into ``target``, and what else is taken of it."""
        found = self._regions.look(source, image)
        self._landing.check_length(found.size, None)
        copies.watch.expect(found.size)
        landed = self._landing.bring(
            replace(image, **found.formats),  # type: ignore[arg-type]
            target,
            lambda progress: self._regions.fetch(source, found, target.sink.fd, progress),
            copies.watch,
            found.expected,
        )
        copies.taken = found
        return landed

    @contextlib.contextmanager
    def _body(self, job: Job, ready: Staged | None) -> Iterator[Body]:
        if ready is not None:
            with contextlib.closing(Extent(os.dup(ready.fd), 0, ready.size)) as extent:
                yield _Body(extent, extent.length, extent.fd)
        elif job.method == GLANCE_DIRECT:
            with contextlib.closing(self._staging.open(job.image_id)) as extent:
                yield _Body(extent, extent.length, extent.fd)
        else:
            with self._fetch(job) as body:
                yield body

    @contextlib.contextmanager
    def _fetch(self, job: Job) -> Iterator[Body]:
        with contextlib.closing(self._origins.download(job.uri)) as fetched:
            with self._lock:
                if self._stopping:
                    raise errors.ServiceStops()
                self._fetching.add(fetched)
            try:
                yield _Body(Reader(fetched, fetched.length), fetched.length)
            finally:
                with self._lock:
                    self._fetching.discard(fetched)

    def _copy(self, image: Image, store: Store, copies: Copies) -> None:
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
                copies.add(store, _copied(store, image.id, data, size, copies.watch))
                return
        raise failure


class _File:
    """A file that data lands in before it is for a store."""

    lost = range(0)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def sink(self) -> FileSink:
        return FileSink(self._fd)

    def follow(self, read: Callable[[], int]) -> None:
        """All stays."""

    def advance(self, total: int) -> None:
        """It need not be durable."""


def _copied(store: Store, image_id: str, data: Data, size: int, watch: Watch) -> Writer:
    """A writer with all of ``data``; by copy_file_range or reflink where that can be."""
    if isinstance(data, Extent) and not store.local:
        writer = store.adopt(image_id, data.fd)
        if writer is not None:
            return _followed(writer, size, watch)
    writer = store.create(image_id, size)
    try:

        def landed(total: int) -> None:
            writer.advance(total)
            watch(total)

        pieces = data.pieces() if isinstance(data, Remote) else [data]
        pump_all(pieces, writer.sink, limit=size, progress=landed)
        return writer
    except BaseException:
        writer.abort()
        raise


def _followed(writer: Writer, size: int, watch: Watch) -> Writer:
    """The writer, when what landed long ago has been brought to its store but for the end."""
    try:
        for total in (*range(0, size, _STEP), size):
            writer.advance(total)
            watch(total)
        return writer
    except BaseException:
        writer.abort()
        raise
