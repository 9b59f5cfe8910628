"""The transfer loop: downloads that wait for their clients, in a few threads for all of them.

A loop's thread watches its sockets by epoll and gives each that has room a turn, of so many bytes
at most, so that a fast client holds up nobody; a slow one costs no thread.  Nothing in it waits
for a disk: what is not in memory is read in by helper threads, while the others go on.
"""

import contextlib
import heapq
import itertools
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Protocol

from headrace.errors import Error, PeerGone, PeerStalled, PeerTooSlow, TransferError
from headrace.metrics import Metrics
from headrace.server.growths import Growths
from headrace.transfer.outgoing import Outgoing

_SWEEP = 1.0  # seconds between two looks at who is too slow
_EVENTS = 256  # taken at a time
_GONE = select.EPOLLHUP | select.EPOLLERR

_log = logging.getLogger(__name__)

Done = Callable[["Sending"], None]


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How the loop treats downloads; sizes in bytes, rates in bytes a second, 0: no limit.

    ``turn`` is the most one download moves before the next has its turn.  ``unsent`` is how much of
    a download may wait in the kernel without being on the wire: without a limit, thousands of slow
    clients fill the memory that TCP may have.  A peer that takes less than ``minimum_rate`` over
    the stall time-out is given up.  ``read_ahead`` is how much of a file that is not in memory is
    read in at a time, by ``readers`` threads; of a file of at least ``drop_behind`` bytes it leaves
    memory again behind a download that is alone with it (0: of none).  ``rate`` is the most for
    each download, ``total_rate`` for all of a worker.
    """

    threads: int = 2
    turn: int = 2 << 20
    unsent: int = 128 << 10
    minimum_rate: int = 1024
    read_ahead: int = 8 << 20
    readers: int = 4
    drop_behind: int = 0
    rate: int = 0
    total_rate: int = 0


class Connected(Protocol):
    """The connection that a body is sent on."""

    @property
    def sock(self) -> socket.socket: ...


@dataclass(slots=True, eq=False)
class Sending:
    """One body on its way; ``error`` is why it did not arrive.

    ``log`` writes the request's line, given the bytes sent; ``where`` is the request in words, and
    ``keep`` whether the connection could take another.  ``alone()`` is whether nothing else is sent
    from the file.
    """

    conn: Connected
    outgoing: Outgoing
    keep: bool
    log: Callable[[int], None]
    alone: Callable[[], bool]
    where: str
    request_id: str
    error: Error | None = None
    started: float = field(default_factory=time.monotonic)
    # What the loop knows of it.
    window_end: float = 0.0
    delivered: int = 0
    checked: int = 0
    paced: int = 0
    reading: bool = False
    pausing: bool = False
    gone: bool = False


class _Bucket:
    """Shares out a rate, in bytes a second, among all loops: who has moved some waits for them."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0

    def take(self, moved: int, now: float) -> float:
        """When the next may be moved by whom has moved so many."""
        with self._lock:
            self._free = max(self._free, now) + moved / self._rate
            return self._free


class TransferLoops:
    """Several loops, each new download going to the one with the fewest.

    ``window`` is over how many seconds a peer has to have the minimum rate; ``done`` is told of
    each download that has ended, in a loop's thread.
    """

    def __init__(
        self, options: TransferOptions, window: float, done: Done, metrics: Metrics
    ) -> None:
        self._readers = ThreadPoolExecutor(options.readers, thread_name_prefix="read-ahead")
        bucket = _Bucket(options.total_rate) if options.total_rate else None
        self._loops = [
            _Loop(options, window, done, metrics, self._readers, bucket)
            for _ in range(options.threads)
        ]

    def start(self) -> None:
        for loop in self._loops:
            loop.start()

    def take(self, sending: Sending) -> None:
        """Have a download sent on; its socket must not block."""
        min(self._loops, key=lambda loop: loop.load).take(sending)

    def stop(self) -> None:
        """End the threads, when no download is under way."""
        self._readers.shutdown()  # first: they wake the loops
        for loop in self._loops:
            loop.stop()


class _Loop(threading.Thread):
    """One thread with its epoll."""

    def __init__(
        self,
        options: TransferOptions,
        window: float,
        done: Done,
        metrics: Metrics,
        readers: ThreadPoolExecutor,
        bucket: _Bucket | None,
    ) -> None:
        super().__init__(name="transfers", daemon=True)
        self._options = options
        self._window = window
        self._done = done
        self._metrics = metrics
        self._readers = readers
        self._bucket = bucket
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._going: dict[int, Sending] = {}
        self._waiting: list[tuple[float, int, Sending]] = []
        self._number = itertools.count()
        self._growths: Growths[Sending] = Growths()
        self._paced = bool(options.rate or bucket)
        self._stopping = False
        self._longest = 0.0  # of a second: how long one waited for others
        self._next_sweep = self._due = time.monotonic() + _SWEEP
        # Each counted in one thread only: no update is lost.
        self._taken = self._ended = 0

    # --- from other threads

    @property
    def load(self) -> int:
        """How many downloads are under way."""
        return self._taken - self._ended

    def take(self, sending: Sending) -> None:
        self._taken += 1
        self._call(lambda: self._begin(sending))

    def stop(self) -> None:
        self._stopping = True
        self._call(lambda: None)
        self.join()
        self._poll.close()
        os.close(self._wake)

    def _call(self, function: Callable[[], None]) -> None:
        """Have something done in the loop's thread."""
        self._calls.put(function)
        os.eventfd_write(self._wake, 1)

    # --- the loop

    def run(self) -> None:
        poll, going, turn = self._poll.poll, self._going, self._turn
        while not self._stopping:
            # What is due is seldom due: no call for it between turns.
            now = time.monotonic()
            if now >= self._due:
                self._do_what_is_due(now)
            ready = poll(max(self._due - now, 0.0), _EVENTS)
            began = time.monotonic()
            for fd, events in ready:
                if fd == self._wake:
                    self._answer_calls()
                elif (sending := going.get(fd)) is None:
                    continue
                elif sending.reading or events & _GONE:
                    self._leave(sending)
                else:
                    turn(sending)
            self._longest = max(self._longest, time.monotonic() - began)

    def _do_what_is_due(self, now: float) -> None:
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP
            self._sweep(now)
            if self._going:
                self._metrics.loop.observe(self._longest)
            self._longest = 0.0
        self._resume(now)
        if now >= self._growths.due:
            self._go_on(now)
        paced = self._waiting[0][0] if self._waiting else math.inf
        self._due = min(self._next_sweep, self._growths.due, paced)

    def _answer_calls(self) -> None:
        os.eventfd_read(self._wake)
        with contextlib.suppress(Empty):
            while True:
                self._calls.get_nowait()()

    def _begin(self, sending: Sending) -> None:
        fd = sending.conn.sock.fileno()
        sending.window_end = time.monotonic() + self._window
        sending.checked = sending.outgoing.offset
        self._going[fd] = sending
        self._poll.register(fd, select.EPOLLOUT)

    def _turn(self, sending: Sending) -> None:
        outgoing = sending.outgoing
        if sending.checked <= outgoing.offset < outgoing.reach and self._is_cold(sending):
            return
        try:
            moved = outgoing.turn(self._options.turn)
        except Error as error:
            self._end(sending, error)
            return
        except Exception as error:  # a defect, which must not end all the others
            _log.exception("%s: the transfer loop met what it does not know", sending.where)
            self._end(sending, TransferError(reason=repr(error), moved=outgoing.extent.sent))
            return
        if not outgoing.left:
            self._end(sending, None)
            return
        if self._paced:
            self._pace(sending, moved)
        if outgoing.offset == outgoing.reach and not sending.pausing:
            self._await_growth(sending)

    def _end(self, sending: Sending, error: Error | None) -> None:
        """It is over, well or not."""
        fd = sending.conn.sock.fileno()
        del self._going[fd]
        with contextlib.suppress(OSError):
            self._poll.unregister(fd)
        self._ended += 1
        sending.error = error
        sending.outgoing.finish()
        if self._options.drop_behind and self._drops(sending):
            sending.outgoing.drop_behind()
        sending.outgoing.extent.close()
        self._done(sending)

    def _leave(self, sending: Sending) -> None:
        """The peer is gone: its reader, if it has one, must come back first."""
        if sending.reading:
            sending.gone = True
            with contextlib.suppress(OSError):  # or epoll would tell of it again and again
                self._poll.unregister(sending.conn.sock.fileno())
            return
        self._end(sending, PeerGone(moved=sending.outgoing.extent.sent))

    # --- what is not in memory

    def _is_cold(self, sending: Sending) -> bool:
        """Have what comes next read in, if that is needed; asked once for every ``read_ahead``."""
        length = self._options.read_ahead
        if sending.outgoing.cold(length):
            self._metrics.cold.inc()
        elif not (self._options.drop_behind and self._drops(sending)):
            sending.checked = min(sending.outgoing.offset + length, sending.outgoing.reach)
            return False
        sending.reading = True
        self._poll.modify(sending.conn.sock.fileno(), 0)
        self._readers.submit(self._read_in, sending)
        return True

    def _read_in(self, sending: Sending) -> None:
        """In a helper thread: wait for the disk, drop what is done with, give the download back."""
        with contextlib.suppress(OSError):  # sending will meet it, too
            if sending.outgoing.cold(self._options.read_ahead):
                sending.outgoing.read_in(self._options.read_ahead)
            if self._options.drop_behind and self._drops(sending):
                sending.outgoing.drop_behind()
        self._call(lambda: self._is_read(sending))

    def _is_read(self, sending: Sending) -> None:
        sending.reading = False
        checked = sending.outgoing.offset + self._options.read_ahead
        sending.checked = min(checked, sending.outgoing.reach)
        sending.window_end = time.monotonic() + self._window  # the disk was slow, not it
        if sending.gone:
            self._leave(sending)
        else:
            self._poll.modify(sending.conn.sock.fileno(), select.EPOLLOUT)

    def _drops(self, sending: Sending) -> bool:
        """Whether what it had read in is to leave memory behind it."""
        least = self._options.drop_behind
        if sending.outgoing.fetched is None or not sending.alone():
            return False
        return os.fstat(sending.outgoing.extent.fd).st_size >= least

    # --- what has not landed yet

    def _await_growth(self, sending: Sending) -> None:
        """Have it wait until its file has more for it."""
        sending.pausing = True
        self._poll.modify(sending.conn.sock.fileno(), 0)
        self._growths.add(sending, time.monotonic())
        self._due = min(self._due, self._growths.due)

    def _go_on(self, now: float) -> None:
        """Look at the files that grow, and give a turn to those for whom there is more."""
        for sending, error in self._growths.look(now):
            if error is not None:
                self._end(sending, error)
                continue
            fd = sending.conn.sock.fileno()
            sending.pausing = False
            self._turn(sending)  # without asking whether its socket has room: it waited for us
            if self._going.get(fd) is sending and not (sending.pausing or sending.reading):
                self._poll.modify(fd, select.EPOLLOUT)

    # --- pace

    def _pace(self, sending: Sending, moved: int) -> None:
        """Have it wait until it may go on."""
        now = time.monotonic()
        due = now
        if self._options.rate:
            sending.paced += moved
            due = max(due, sending.started + sending.paced / self._options.rate)
        if self._bucket is not None:
            due = max(due, self._bucket.take(moved, now))
        if due <= now:
            return
        sending.pausing = True
        self._poll.modify(sending.conn.sock.fileno(), 0)
        heapq.heappush(self._waiting, (due, next(self._number), sending))
        self._due = min(self._due, due)

    def _resume(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            _, _, sending = heapq.heappop(self._waiting)
            fd = sending.conn.sock.fileno()
            if self._going.get(fd) is sending:
                sending.pausing = False
                self._poll.modify(fd, select.EPOLLOUT)

    # --- who is too slow

    def _sweep(self, now: float) -> None:
        """Give up peers that took less than they had to, or nothing while they could."""
        least = 0 if self._paced else self._options.minimum_rate * self._window
        for sending in list(self._going.values()):
            if sending.reading or sending.pausing:
                sending.window_end = now + self._window  # it waits for us
            if now < sending.window_end:
                continue
            delivered = sending.outgoing.delivered()
            if (taken := delivered - sending.delivered) < least or not taken:
                self._end(sending, self._too_slow(taken, sending.outgoing.extent.sent))
                continue
            sending.delivered = delivered
            sending.window_end = now + self._window

    def _too_slow(self, taken: int, moved: int) -> PeerStalled:
        if not taken:
            return PeerStalled(seconds=self._window, moved=moved)
        return PeerTooSlow(rate=self._options.minimum_rate, seconds=self._window, moved=moved)
