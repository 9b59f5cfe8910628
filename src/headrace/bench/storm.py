"""BOOT_STORM: many clients fetch one image at the same moment, each once, and nobody has it yet.

The cache of the service is emptied of the image first, where the caller may.  What the clients get
is dropped in the kernel, and many of them share a process, so that they cost little of a machine
that they share with the service.  Afterwards the same clients fetch the image again, for some
seconds: the rate of that is what the link and the service can do, and what the storm is held
against.
"""

import contextlib
import os
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection as Pipe

from headrace.bench import cpu
from headrace.bench.backend import Backend
from headrace.bench.children import Child, await_word, children
from headrace.bench.crowd import Crowd, Seen
from headrace.bench.image import Connect
from headrace.bench.outcome import Buffers, End, Outcome, Storm
from headrace.bench.run import FarEnd
from headrace.bench.spec import Spec
from headrace.bench.transfers import UNHURRIED, Subject, call_size
from headrace.bench.wire import PATIENCE
from headrace.client import Cache
from headrace.errors import ClientError, ConnectionFailed, Error

_MOST_PROCESSES = 8


class Storms:
    """An image service as the other end of storms.

    ``far`` watches the CPU of its machine and of the processes ``pids`` there, ``store`` that of
    the processes ``store_pids`` on the same machine, which keep the data.
    """

    def __init__(
        self,
        connect: Connect,
        far: FarEnd | None,
        pids: Sequence[int] = (),
        store: FarEnd | None = None,
        store_pids: Sequence[int] = (),
    ) -> None:
        self._connect = connect
        self._watchers = [(each, of) for each, of in ((far, pids), (store, store_pids)) if each]
        self._far = far
        self._store = store

    def measure(self, spec: Spec, subject: Subject) -> Outcome:
        """One storm of ``spec.streams`` clients, then ``spec.seconds`` of the same."""
        processes = min(max((os.cpu_count() or 1) // 2, 1), _MOST_PROCESSES, spec.streams)
        live = partial(_live, self._connect, spec, subject, processes)
        with self._connect(PATIENCE) as connection, children(processes, live) as crowds:
            warm = _empty(Cache(connection), subject.image_id or "")
            before = Backend.of(connection)
            connection.close()
            seen, usage, watched = self._storm(crowds)
            failure = next((each.failure for each in seen if each.failure), None)
            if not any(each.lasts for each in seen):
                raise ClientError(reason=f"no client got the image: {failure}")
            reads, read_bytes = before.since(connection, subject.size) if before else (None, None)
            again = _fetched(crowds, spec.seconds)
        storm = Storm(
            firsts=sorted(first for each in seen for first in each.firsts),
            lasts=sorted(last for each in seen for last in each.lasts),
            failure=failure,
            warm=warm,
            reads=reads,
            read_bytes=read_bytes,
            rate=sum(each.bytes for each in again) / max(each.seconds for each in again),
            store=watched.get(self._store),
        )
        return _outcome(spec, subject, seen, usage, watched.get(self._far), storm)

    def _storm(
        self, crowds: Sequence[Child]
    ) -> tuple[list[Seen], cpu.Usage, dict[FarEnd | None, cpu.Usage]]:
        """What all clients saw, and what was used here and by whom is watched."""
        meter = cpu.Meter([crowd.pid for crowd in crowds])
        for watcher, pids in self._watchers:
            watcher.watch(pids)
        meter.start()
        seen = _fetched(crowds, None)
        usage = meter.stop()
        return seen, usage, {watcher: watcher.watched() for watcher, _ in self._watchers}


def _fetched(crowds: Sequence[Child], seconds: float | None) -> list[Seen]:
    """Have all fetch the image, once or for so many seconds."""
    for crowd in crowds:
        crowd.go(seconds)
    found = []
    for crowd in crowds:
        seen = crowd.hear(None if seconds is None else seconds + UNHURRIED)
        assert isinstance(seen, Seen)
        found.append(seen)
    return found


def _empty(cache: Cache, image_id: str) -> str | None:
    """Have the image fetched from the store again; why it will not be."""
    try:
        cache.delete(image_id)
    except ConnectionFailed:
        raise
    except Error as error:
        return str(error)
    return None


def _outcome(
    spec: Spec,
    subject: Subject,
    seen: Sequence[Seen],
    usage: cpu.Usage,
    remote: cpu.Usage | None,
    storm: Storm,
) -> Outcome:
    first = seen[0].buffers
    return Outcome(
        spec=spec,
        bytes=sum(each.bytes for each in seen),
        transactions=len(storm.lasts),
        seconds=usage.seconds,
        mss=seen[0].mss,
        image_size=subject.size,
        local=End(
            usage=usage,
            buffers=Buffers(spec.local_buffer, (first[0], first[2]), (first[1], first[3])),
            congestion=seen[0].congestion,
            receive_size=call_size(spec),
            receive_calls=sum(each.calls for each in seen),
        ),
        remote=End(usage=remote),
        storm=storm,
    )


def _live(
    connect: Connect, spec: Spec, subject: Subject, processes: int, pipe: Pipe, number: int
) -> None:
    """A process with its share of the clients."""
    share = (spec.streams + number) // processes
    with contextlib.suppress(EOFError, BrokenPipeError), connect(UNHURRIED) as connection:
        try:
            crowd = Crowd(connection, spec, subject, share)
            pipe.send(None)
            while True:
                seconds = await_word(pipe)
                assert seconds is None or isinstance(seconds, float)
                pipe.send(crowd.fetch(seconds))
        except Error as error:
            pipe.send(str(error))
