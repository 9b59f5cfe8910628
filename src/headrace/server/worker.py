"""The worker process: gunicorn's threaded worker, with bytes moved by the transfer engine.

What differs from gunicorn's own:

- an Extent as body is begun by the request's thread and finished by the transfer loop, so that slow
  clients hold no thread; a request body can be spliced;
- ``Expect: 100-continue`` is answered by the first read of the body;
- an answer is not lost behind a body that was refused: the connection lingers, in its own thread;
- a connection gets a thread when it has said what it wants (a whole head), not before;
- on SIGTERM it first stops listening, then lets transfers and imports finish: for the drain
  time-out when the service stops, without a limit when this worker alone is replaced.

HTTP/1 without TLS only.
"""

import errno
import math
import os
import random
import selectors
import socket
import time
from collections.abc import Iterable
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from http import HTTPStatus
from itertools import count
from logging import getLogger
from typing import Any, Protocol, cast

from gunicorn import util
from gunicorn.errors import AppImportError
from gunicorn.http import wsgi
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import ThreadWorker

from headrace.errors import Error, PeerGone, PeerStalled, TransferError
from headrace.log import request_id
from headrace.metrics import Metrics
from headrace.server.body import RequestBody
from headrace.server.connection import LINGER, Connection, rushing, writable_within
from headrace.server.head import complete_head
from headrace.server.options import ServeOptions
from headrace.server.response import Response, line_of
from headrace.server.transfers import Sending, TransferLoops
from headrace.transfer.outgoing import Outgoing
from headrace.transfer.shared import Descriptors

STOPPING_LINGER = 2.0
"""Seconds which a stopping worker spends on connections that are merely open."""

CROWDED_LINGER = 0.5
"""Seconds which a worker spends on such connections while more threads are busy than not."""

CROWDED_RECORD = 1.0
"""Seconds in which a request's record must be there while more threads are busy than not."""

LOITER = 0.002
"""Seconds for which a thread that has answered waits for the next request itself."""

TELL = 10.0
"""Seconds between two lines of the log about what a stopping worker waits for."""

EAGER = 0.005
"""Seconds within which a client that is fast has room for more."""

RUSH_RATE = 16 << 20
"""Bytes a second that a client takes who is served by its request's thread to the end."""

RUSH_TURNS = 4
"""Turns that such a client is given at a time."""

CUT_GRACE = 3.0
"""Seconds given to requests whose connection was cut, to clean up behind themselves."""

# Nobody waits any more, or gave up while waiting.
_NOBODY = (errno.EAGAIN, errno.ECONNABORTED)

# The listening socket itself is no more.  Everything else passes: descriptors or memory run out, a
# firewall or the network has something against this one connection (accept(2), error handling).
_NOT_LISTENING = (errno.EBADF, errno.EINVAL)

log = getLogger("headrace.server")


class Host(Protocol):
    """What a worker asks of the application object that gunicorn carries around."""

    options: ServeOptions

    @property
    def stopping(self) -> bool:
        """Whether the service stops, and not this worker alone."""
        ...

    @property
    def for_metrics(self) -> socket.socket | None:
        """Where to listen for who asks for the metrics alone."""
        ...

    def announce(self, listener: Any) -> None: ...

    def retire(self) -> None:
        """Have another worker take the place of this one."""
        ...


class Worker(ThreadWorker):  # type: ignore[misc]
    """One process of the embedded server."""

    alive: bool
    sockets: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.host = cast(Host, self.app)
        self.options = self.host.options
        self._busy: set[Connection] = set()
        self._sending: set[Sending] = set()
        self._descriptors = Descriptors()
        self._stop_by = math.inf
        self._notified = float("-inf")
        self._requests = count(1)
        most = self.options.max_requests
        self._last_request = most + random.randrange(most // 10 + 1)  # not all workers at once

    def load_wsgi(self) -> None:
        try:
            super().load_wsgi()
            self.wsgi.start()
            self.metrics = cast(Metrics, self.wsgi.metrics)
        except Error as error:
            # gunicorn's word for "say this, and do not try again with another worker".
            raise AppImportError(str(error)) from error

    # --- the main thread: accepting, dispatching, stopping

    def run(self) -> None:
        """Serve until told to stop, then stop listening, then finish what is going on."""
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        options = self.options
        self._loops = TransferLoops(
            options.transfers, options.stall_timeout, self._sent_by_loop, self.metrics
        )
        self._loops.start()
        self._show()
        if self.host.for_metrics is not None:
            self.sockets = [*self.sockets, self.host.for_metrics]
        self.set_accept_enabled(True)
        self.host.announce(self.sockets[0])
        while self.alive and self.is_parent_alive():
            self.notify()
            self.set_accept_enabled(self.nr_conns < self.worker_connections)
            self.wait_for_and_dispatch_events(timeout=1.0)
            self.murder_keepalived()
            self.murder_pending()
        self.alive = False
        self._stop_listening()
        self._drain()
        self.murder_keepalived(force=True)
        self.wsgi.close()
        if left := len(self._in_flight()) + self.wsgi.jobs():
            # The interpreter would wait for their threads for ever, or for a disk that is gone.
            log.error("leaving %d requests and imports that do not end", left)
            os._exit(0)
        self._loops.stop()
        self.tpool.shutdown(wait=False)
        self.poller.close()
        self.method_queue.close()

    def _show(self) -> None:
        """Have the metrics show what goes on."""
        watch = self.metrics.watch
        watch("headrace_connections", "Connections open.", lambda: self.nr_conns)
        watch(
            "headrace_requests_in_progress",
            "Requests that have a thread, or wait for one.",
            lambda: len(self._busy),
        )
        watch(
            "headrace_loop_downloads",
            "Downloads in the hands of the transfer loop.",
            lambda: len(self._sending),
        )

    def accept(self, listener: Any) -> bool:
        """Take one waiting connection, if any; it gets a thread once it has something to say."""
        try:
            sock, peer = listener.accept()
        except OSError as error:
            if error.errno in _NOT_LISTENING:
                raise
            if error.errno not in _NOBODY:
                log.error("cannot accept a connection: %s", error.strerror)
                time.sleep(0.05)  # it may stay waiting: do not spin on it
            return False
        self.nr_conns += 1
        options = self.options
        stall, unsent = options.stall_timeout, options.transfers.unsent
        conn = Connection(self.cfg, sock, peer, listener.getsockname(), stall, unsent)
        conn.for_metrics = listener is self.host.for_metrics
        conn.timeout = time.monotonic() + stall
        self.pending_conns.append(conn)
        self.poller.register(
            sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn)
        )
        return True

    def on_pending_socket_readable(self, conn: Connection, client: Any) -> None:
        began = conn.head_due is not None
        if conn.receive_head():
            self.poller.unregister(client)
            self.pending_conns.remove(conn)
            self._start(conn)
        elif not began and conn.head_due is not None:
            self.pending_conns.remove(conn)  # what is due later comes later
            conn.timeout = conn.head_due
            self.pending_conns.append(conn)

    def _await_head(self, conn: Connection) -> None:
        """Look again at a connection when more of its head is there."""
        conn.sock.setblocking(False)
        conn.timeout = conn.head_due or time.monotonic() + self.options.stall_timeout
        self.pending_conns.append(conn)
        self.poller.register(
            conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn)
        )

    def murder_pending(self) -> None:
        """Close connections that never spoke; a thread tells the others what they were too slow
        for."""
        now = time.monotonic()
        while self.pending_conns and self.pending_conns[0].timeout <= now:
            conn = self.pending_conns.popleft()
            self.poller.unregister(conn.sock)
            if conn.head_due is None:
                self.nr_conns -= 1
                conn.close()
            else:
                self._start(conn)

    def enqueue_req(self, conn: Connection) -> None:
        """Serve a kept connection that speaks again, or of which part of the next head is here."""
        if conn.receive_head():
            self._start(conn)
        else:
            self._await_head(conn)

    def _start(self, conn: Connection) -> None:
        self._busy.add(conn)
        conn.queued = time.monotonic()
        super().enqueue_req(conn)

    def finish_request(self, conn: Connection, future: Any) -> None:
        self._busy.discard(conn)
        failed = future.cancelled() or future.exception() is not None
        sending = None if failed else future.result()
        if isinstance(sending, Sending):
            self._sending.add(sending)
            self._loops.take(sending)
        else:
            super().finish_request(conn, future)

    def _sent_by_loop(self, sending: Sending) -> None:
        """In the loop's thread: a body has been sent, or cannot be."""
        self.method_queue.defer(self._finish_sending, sending)

    def _finish_sending(self, sending: Sending) -> None:
        self._sending.discard(sending)
        conn = cast(Connection, sending.conn)
        sent = sending.outgoing.extent.sent
        request_id.set(sending.request_id)
        if sending.error is not None:
            self._cut_short(sending.where, conn, sent, sending.error)
        sending.log(sent)
        request_id.set("-")
        keep = sending.keep and sending.error is None and self.alive
        if sending.error is None and not keep and conn.unread():
            self._busy.add(conn)
            lingering = self.tpool.submit(conn.linger, self._patience())
            lingering.add_done_callback(
                lambda done: self.method_queue.defer(self.finish_request, conn, done)
            )
            return
        over: Future[bool] = Future()
        over.set_result(keep)
        super().finish_request(conn, over)

    def notify(self) -> None:
        """Show the master that the main thread turns; once a second, since it costs 0.1 ms."""
        now = time.monotonic()
        if now - self._notified >= 1.0:
            self._notified = now
            super().notify()
            if self.host.stopping:
                self.alive = False  # the signal may have come before this process could take it

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGINT, SIGQUIT: stop without waiting for transfers in flight."""
        self._stop_by = 0.0
        self.alive = False
        self.method_queue.defer(lambda: None)

    def _stop_listening(self) -> None:
        """Close the listening sockets, so that new clients are refused at once instead of hanging.

        Who already waits to be accepted is served.
        """
        for listener in self.sockets:
            while self.nr_conns < self.worker_connections and self.accept(listener):
                pass
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()

    def _drain(self) -> None:
        now = time.monotonic()
        self._cap_keepalive(now + STOPPING_LINGER)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, now + STOPPING_LINGER)
        tell = now
        while (self.nr_conns > 0 or self.wsgi.jobs()) and time.monotonic() < self._stop_by:
            if self._stop_by == math.inf and self._service_stops():
                self._stop_by = time.monotonic() + self.options.drain_timeout
            if time.monotonic() >= tell and self._in_flight():
                log.info("stopping: %d requests in flight", len(self._in_flight()))
                tell = time.monotonic() + TELL
            elif time.monotonic() >= tell and self.wsgi.jobs():
                log.info("stopping: %d imports and fills go on", self.wsgi.jobs())
                tell = time.monotonic() + TELL
            self._turn()
        if cut := self._in_flight():
            log.warning("stopping: cut %d requests short", len(cut))
            for conn in cut:
                conn.cut()
        if jobs := self.wsgi.jobs():
            log.warning("stopping: gave %d imports and fills up", jobs)
        self.wsgi.stop_jobs()  # and what the requests yet begin
        deadline = time.monotonic() + CUT_GRACE
        while (self._in_flight() or self.wsgi.jobs()) and time.monotonic() < deadline:
            self._turn()

    def _service_stops(self) -> bool:
        """Whether there will be nobody to serve: a worker that is only replaced has time."""
        return self.host.stopping or os.getppid() != self.ppid

    def _in_flight(self) -> list[Connection]:
        """The connections whose requests are not over."""
        return [*self._busy, *(cast(Connection, each.conn) for each in self._sending)]

    def _turn(self) -> None:
        self.notify()
        self.wait_for_and_dispatch_events(timeout=0.2)
        self.murder_keepalived()
        self.murder_pending()

    # --- a request's thread

    def handle(self, conn: Connection) -> Any:
        """Serve the requests of a connection that come at once; whether it can take another.

        A client that asks one thing after the other is answered by one thread: to hand its
        connection to the main thread and back costs as much as a small request itself.
        """
        self.metrics.queue.observe(time.monotonic() - conn.queued)
        again = self._handle_one(conn)
        while (
            again is True
            and self.alive
            and not self._crowded()
            and conn.speaks_within(LOITER)
            and conn.receive_head()
        ):
            again = self._handle_one(conn)
        if again is False and (not conn.settled or conn.unread()):
            conn.linger(self._patience())
        return again

    def _patience(self) -> float:
        """For how long a thread may wait until a client has stopped sending what nobody wants."""
        if not self.alive:
            return STOPPING_LINGER
        # Else who is refused, and goes on sending, could hold them all.
        return LINGER if self._has_room() else CROWDED_LINGER

    def _record_patience(self) -> float:
        """For how long a thread may wait for a record: half of them for no longer than a moment."""
        return self.options.stall_timeout if self._has_room() else CROWDED_RECORD

    def _handle_one(self, conn: Connection) -> Any:
        request_id.set("-")  # the thread's last request has left its own
        return super().handle(conn)

    def _crowded(self) -> bool:
        """Whether connections may be waiting for a thread."""
        return len(self._busy) > self.options.threads

    def _has_room(self) -> bool:
        """Whether more threads are free than not."""
        return 2 * len(self._busy) <= self.options.threads

    def handle_request(self, request: Any, conn: Connection) -> bool | Sending:
        """Answer one request; whether the connection could take another, or what is left of it."""
        stall = self.options.stall_timeout
        conn.end_of_head()
        complete_head(request)
        body = RequestBody(request, conn.sock, stall, self._record_patience)
        request.body = body
        request._expected_100_continue = False  # create() would answer it now
        started = datetime.now()
        resp, environ = wsgi.create(
            request, conn.sock, conn.client, conn.server, self.cfg, Response, (stall,)
        )
        environ["wsgi.multithread"] = True
        environ["headrace.body"] = body
        if conn.for_metrics:
            environ["headrace.for_metrics"] = True
        if next(self._requests) == self._last_request:
            self.host.retire()
        full = len(self.keepalived_conns) >= self.max_keepalived
        if full or not self.alive or not self.options.keepalive:
            resp.force_close()
        outgoing = None
        try:
            outgoing = self._answer(environ, resp)
        except Exception as error:
            if resp.headers_sent:
                where = f"{request.method} {request.path}"
                self._cut_short(where, conn, resp.sent, error, told=request.body.failed)
            else:
                self.handle_error(request, conn.sock, conn.client, error)
            return False
        finally:
            conn.settled = body.finished
            if resp.headers_sent and outgoing is None:
                self.log.access(resp, request, environ, datetime.now() - started)
        if outgoing is None:
            return not resp.should_close()
        return self._hand_over(conn, outgoing, request, environ, resp, started)

    def _answer(self, environ: dict[str, Any], resp: Response) -> Outgoing | None:
        """Have the application answer; what is left of a file, if anything."""
        result: Iterable[bytes] = self.wsgi(environ, resp.start_response)
        left = None
        try:
            if isinstance(result, wsgi.FileWrapper):
                outgoing = resp.write_file(result, self.options.transfers.turn)
                if outgoing is not None and not self._rush(outgoing, resp):
                    left = outgoing
            else:
                for block in result:
                    resp.write(block)
            if left is None:
                resp.close()
            return left
        finally:
            if left is None and hasattr(result, "close"):
                result.close()

    def _rush(self, outgoing: Outgoing, resp: Response) -> bool:
        """Go on with a client that takes everything at once, while half of the threads are free;
        whether that was all.

        Such a client is done soon, and a call that blocks moves more at a time than one that does
        not: its bytes cost a fifth less than by the loop.
        """
        options = self.options.transfers
        most = RUSH_TURNS * options.turn
        if options.rate or options.total_rate or outgoing.growing or not self._has_room():
            return False
        if not self._is_eager(outgoing, resp):
            return False
        with rushing(resp.sock, self.options.stall_timeout, options.unsent):
            while outgoing.left and self._has_room() and not outgoing.cold(most):
                wanted, started = min(most, outgoing.left), time.monotonic()
                try:
                    moved = outgoing.turn(most)
                finally:
                    resp.sent = outgoing.extent.sent
                if moved < wanted or (time.monotonic() - started) * RUSH_RATE > moved:
                    break
        if outgoing.left:
            resp.sock.setblocking(False)
            return False
        outgoing.finish()
        return True

    def _is_eager(self, outgoing: Outgoing, resp: Response) -> bool:
        """Whether the client takes its first turn without much waiting in between."""
        turn = self.options.transfers.turn
        while outgoing.left and outgoing.extent.sent < turn:
            if not writable_within(resp.sock, EAGER) or outgoing.cold(turn):
                return False
            try:
                outgoing.turn(turn)
            finally:
                resp.sent = outgoing.extent.sent
        return True

    def _hand_over(
        self,
        conn: Connection,
        outgoing: Outgoing,
        request: Any,
        environ: dict[str, Any],
        resp: Response,
        started: datetime,
    ) -> Sending:
        """What the loop has to know; little, since there may be thousands of them."""
        self._descriptors.share(outgoing.extent)
        line = line_of(request, environ, resp)
        return Sending(
            conn=conn,
            outgoing=outgoing,
            keep=not resp.should_close(),
            log=lambda sent: self.log.answered(line, sent, datetime.now() - started),
            alone=lambda: self._descriptors.users(outgoing.extent) == 1,
            where=f"{request.method} {request.path}",
            request_id=request_id.get(),
        )

    def _cut_short(
        self, where: str, conn: Connection, sent: int, error: Exception, told: bool = False
    ) -> None:
        """An answer failed when part of it was on the wire: nothing may be added, only logged.

        ``told``: whoever read the request's body has said already that the client is gone.
        """
        where = f"{where}: answer cut short after {sent} bytes"
        if isinstance(error, PeerStalled | BlockingIOError):
            conn.reset()
        if isinstance(error, TransferError):
            log.warning("%s: %s", where, error)
        elif isinstance(error, ConnectionError) and told:
            log.debug("%s: %s", where, error.strerror)
        elif isinstance(error, OSError):
            log.warning("%s: %s", where, error.strerror)
        else:
            log.error(where, exc_info=error)

    def _keepalive_after(self, conn: Connection, keepalive: bool | Sending) -> bool | Sending:
        if isinstance(keepalive, Sending):
            return keepalive  # of a request that was read to its end
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except (Error, ParseException, OSError):
            # A body nobody wanted breaks off; its request has been answered.
            return False

    def handle_error(self, request: Any, client: Any, peer: Any, error: Exception) -> None:
        """Answer a request that was not understood, or whose application failed."""
        if isinstance(error, PeerGone):
            return
        if not isinstance(error, Error):
            super().handle_error(request, client, peer, error)
            return
        log.warning("request refused: %s", error)
        try:
            phrase = HTTPStatus(error.status).phrase
            util.write_error(client, error.status, phrase, str(error))
        except OSError:
            log.debug("the peer did not wait for the answer")
