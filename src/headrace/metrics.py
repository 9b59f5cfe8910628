"""What is counted of a service, for Prometheus: by all its processes, and beyond their lives.

The counters lie in files of one directory, by way of prometheus_client's multi-process mode.  A
process has a slot there while it lives, and its slot's files; the next process with that slot goes
on with them, so that workers that come and go leave no more files than there were at once.  What is
true at the moment only (gauges) is asked of the processes that live, see ``api.processes``.
"""

import contextlib
import fcntl
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

_SOON = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5, 10)
_REQUEST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of the text format, which every Prometheus reads."""

_PRIVATE_MODE = 0o700
_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client looks for its directory

Gauge = Callable[[], float]


class Metrics:
    """Everything that is counted; safe to use from many threads, and after a fork.

    Without a ``directory`` they are those of this process alone.  Raises OSError when the directory
    cannot be made or written to.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.directory = directory
        self.gauges: dict[str, tuple[str, Gauge]] = {}
        self.shared: dict[str, tuple[str, Gauge]] = {}
        self._registry = CollectorRegistry()
        self._slot: Slot | None = None
        values.ValueClass = values.MutexValue
        if directory is not None:
            os.makedirs(directory, mode=_PRIVATE_MODE, exist_ok=True)
            self._slot = Slot(directory)
            os.environ[_MULTIPROCESS] = directory
            values.ValueClass = cast(Any, values.MultiProcessValue)(self._slot.number)
        self.requests = self._histogram(
            "headrace_request_seconds",
            "Time until a request was answered, or its answer's data began; with its own data.",
            ("method", "route", "status"),
            _REQUEST,
        )
        self.errors = self._counter(
            "headrace_errors", "Requests answered with an error, by its code.", ("code",)
        )
        self.transfers = self._counter(
            "headrace_transfers",
            "Transfers that are over; result 'left': to a server that does not say how it went. "
            "The way of an import is its method.",
            ("direction", "way", "result"),
        )
        self.bytes = self._counter(
            "headrace_transfer_bytes", "Bytes of image data moved.", ("direction", "way")
        )
        self.fallbacks = self._counter(
            "headrace_fallbacks", "Transfers copied that 'way' would have moved.", ("way", "reason")
        )
        self.queue = self._histogram(
            "headrace_queue_seconds", "How long a request waited for a thread.", (), _SOON
        )
        self.loop = self._histogram(
            "headrace_loop_seconds",
            "How long a download waited for others in the transfer loop: the longest of a second.",
            (),
            _SOON,
        )
        self.cold = self._counter(
            "headrace_cold_reads", "Times that a download waited for what was not in memory.", ()
        )
        self.audit_lost = self._counter(
            "headrace_audit_lost", "Events that the audit log could not take.", ()
        )

        self.cache_lookups = self._counter(
            "headrace_cache_lookups",
            "Downloads from remote stores, by what the cache had of them: all, what is landing, "
            "nothing; or it could not take them.",
            ("result",),
        )
        self.cache_fills = self._counter(
            "headrace_cache_fills", "Fills of the cache that are over.", ("result",)
        )
        self.cache_bytes = self._counter(
            "headrace_cache_fetched_bytes", "Bytes fetched from remote stores by fills.", ()
        )

    def watch(self, name: str, help: str, gauge: Gauge) -> None:
        """Have ``gauge()`` asked for a value whenever the metrics are."""
        self.gauges[name] = help, gauge

    def watch_shared(self, name: str, help: str, gauge: Gauge) -> None:
        """The same of what all processes share: only the one that is asked says it."""
        self.shared[name] = help, gauge

    @property
    def slot(self) -> int:
        """This process's number among those of the directory; 0 without one."""
        return self._slot.number() if self._slot else 0

    def exposition(self, live: Iterable[Metric]) -> bytes:
        """All metrics in Prometheus' text format, ``live`` beside those that are counted."""
        return generate_latest(_Scrape(self._collected(), live))

    def _collected(self) -> Iterable[Metric]:
        if self.directory is None:
            return self._registry.collect()
        collect: Any = MultiProcessCollector  # without annotations
        collected: Iterable[Metric] = collect(None, self.directory).collect()
        return collected

    def _counter(self, name: str, help: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, help, labels, registry=self._registry)

    def _histogram(
        self, name: str, help: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(name, help, labels, buckets=buckets, registry=self._registry)


class _Scrape:
    """What one question is answered with."""

    def __init__(self, *parts: Iterable[Metric]) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        return chain(*self._parts)


class Slot:
    """The number that a process has in a directory, and no other that lives.

    It is a lock on a file, which the kernel lets go of with the process.  A child gets one of its
    own as it is forked.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._lock = -1
        self._number = [0]
        self.number: Callable[[], int] = partial(itemgetter(0), self._number)
        """The number; asked at every count, so without a Python function."""
        self.take()
        slot = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _take_another(slot()))

    def take(self) -> None:
        """The lowest that is free; whoever finds nobody else begins to count anew."""
        if self._lock >= 0:
            os.close(self._lock)  # a parent's, who keeps it
        with self._alone():
            free, taken = self._find()
            if not taken:
                for pattern in ("*.db", "*.sock"):
                    for left in self._directory.glob(pattern):
                        left.unlink()
            number = next(number for number in count() if number not in taken)
            self._lock = free.pop(number, -1)
            if self._lock < 0:
                self._lock = self._open(number)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            for other in free.values():
                os.close(other)
        self._number[0] = number

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process looks for a slot."""
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _find(self) -> tuple[dict[int, int], set[int]]:
        """The slots that nobody has, with their locks, held now; and those that somebody has."""
        free, taken = {}, set()
        for path in self._directory.glob("*.slot"):
            number = int(path.stem)
            fd = self._open(number)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free[number] = fd
            except BlockingIOError:
                os.close(fd)
                taken.add(number)
        return free, taken

    def _open(self, number: int) -> int:
        return os.open(self._directory / f"{number}.slot", os.O_RDWR | os.O_CREAT, 0o600)


def _take_another(slot: Slot | None) -> None:
    if slot is not None:
        slot.take()
