"""The embedded server: gunicorn set up in code, with our worker."""

import errno
import logging
import math
import os
import re
import resource
import select
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, NoReturn, Protocol

from gunicorn import systemd
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger as GunicornLogger

from headrace.errors import ConfigurationError, Error
from headrace.metrics import Metrics
from headrace.server.master import Master
from headrace.server.options import ServeOptions
from headrace.server.response import line_of
from headrace.server.worker import CUT_GRACE, Worker

DESCRIPTORS_A_THREAD = 8
"""Descriptors that a request under way may need beside its socket: files, pipes, the database."""

SPARE_DESCRIPTORS = 64

_REFUSAL, _QUOTED = "Invalid request from ip=", re.compile(r"b?['\"].*", re.DOTALL)
LONGEST_MESSAGE = 1000
"""Characters of one message of gunicorn's in the log."""

UNIX_SOCKET_MODE = 0o660

_PID = struct.Struct("i")

log = logging.getLogger("headrace.server")
access_log = logging.getLogger("headrace.access")


class Application(Protocol):
    """A WSGI application with a life of its own in every process that serves it."""

    @property
    def metrics(self) -> Metrics:
        """Where what is counted goes."""
        ...

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any], /
    ) -> Iterable[bytes]: ...

    def start(self) -> None:
        """Begin to serve in this process; called after the fork, before the first request."""

    def jobs(self) -> int:
        """How much goes on in this process behind answers that were given."""
        ...

    def stop_jobs(self) -> None:
        """Give that up, so that there is soon nothing of it; called when the service stops."""

    def close(self) -> None:
        """End in this process; called after the last request."""


def print_listening(url: str) -> None:
    """Tell whoever started the server that it answers."""
    print(f"Headrace listening on {url}", flush=True)


Load = Callable[[], Application]
Renew = Callable[[], tuple[ServeOptions, Load]]


def serve(
    options: ServeOptions,
    load: Load,
    on_listening: Callable[[str], None] = print_listening,
    renew: Renew | None = None,
) -> NoReturn:
    """Serve the application that ``load`` builds until SIGTERM, SIGINT or SIGQUIT.

    On SIGHUP new workers take the place of those there are, which finish what they began, however
    long it takes; by what ``renew`` gives then, if it does not raise.  The address stays.

    ``load`` runs in the worker when there is one, so that only one process holds the libraries; or
    once before several are forked, which then share them, so it must leave no connection and no
    thread behind.  ``on_listening(url)`` is called once, in the first worker that answers.

    Ends by SystemExit, in the workers too: 0 after a signal, whether or not transfers had to be cut
    short at the end of ``drain_timeout``; 4 when the application did not start in a worker, which
    has then said why.  Raises ConfigurationError when the address cannot be listened on, and what
    ``load`` raises before a fork.
    """
    _raise_descriptor_limit()
    Host(options, load, on_listening, _listen(options), renew).run()
    raise SystemExit(0)


class Host(BaseApplication):  # type: ignore[misc]
    """Settings and application, as gunicorn wants to be given them."""

    def __init__(
        self,
        options: ServeOptions,
        load: Load,
        on_listening: Callable[[str], None],
        listener: int | None,
        renew: Renew | None,
    ) -> None:
        self.options = options
        self._load = load
        self._renew = renew
        self._on_listening = on_listening
        self._listener = listener
        # Holds one byte: the worker that gets it is the first to answer.
        self._first, token = os.pipe()
        os.set_blocking(self._first, False)
        os.write(token, b"1")
        os.close(token)
        # Holds something from when the service stops.
        self._stopping, self._stop = os.pipe()
        # Holds the process ids of the workers that want to be replaced.
        self._retiring, self._retire = os.pipe()
        os.set_blocking(self._retiring, False)
        self.for_metrics = _listen_for_metrics(options)
        super().__init__()

    def run(self) -> None:
        Master(self).run()

    def reload(self) -> None:
        """Take over the settings as they are now; those in force stay if they cannot be used."""
        if self._renew is not None:
            try:
                options, load = self._renew()
                loaded = None
                if options.workers > 1:  # which share it, forked afterwards
                    loaded = load()
                else:  # it loads it itself; did that fail there, gunicorn would end the service
                    _try(load)
                if options.metrics_address != self.options.metrics_address:
                    self.for_metrics = _listen_for_metrics(options)
            except Error as error:
                log.error("the settings stay as they were: %s", error)
                return
            self.options, self._load, self.callable = options, load, loaded
        super().reload()

    def retire(self) -> None:
        """In a worker: ask to be replaced."""
        os.write(self._retire, _PID.pack(os.getpid()))

    def retiring(self) -> list[int]:
        """The workers that have asked since the last time."""
        try:
            data = os.read(self._retiring, _PID.size * 1024)
        except BlockingIOError:
            return []
        return [pid for (pid,) in _PID.iter_unpack(data)]

    def tell_stopping(self) -> None:
        """Have the workers know that the service stops."""
        os.write(self._stop, b"1")

    @property
    def stopping(self) -> bool:
        poll = select.poll()
        poll.register(self._stopping, select.POLLIN)
        return bool(poll.poll(0))

    def load_config(self) -> None:
        for name, value in self._settings().items():
            self.cfg.set(name, value)

    def _settings(self) -> dict[str, Any]:
        options = self.options
        return {
            "bind": [] if self._listener is None else [f"fd://{self._listener}"],
            "backlog": options.backlog,
            "workers": options.workers,
            "threads": options.threads,
            "worker_class": Worker,
            "worker_connections": max(_connections(options), options.threads + 1),
            "preload_app": options.workers > 1,
            "timeout": options.heartbeat,
            # The workers keep the drain time-out themselves; this is when they are killed.
            "graceful_timeout": math.ceil(options.drain_timeout + CUT_GRACE) + 2,
            "keepalive": options.keepalive,
            "http_protocols": "h1",
            "http_parser": "python",
            # As Glance's max_header_line: tokens can be longer than gunicorn's 8190 bytes.
            "limit_request_line": 8190,
            "limit_request_field_size": 16384,
            # No peer is a proxy whose word counts, whatever FORWARDED_ALLOW_IPS of the environment
            # says.  gunicorn would let a loopback peer set SCRIPT_NAME, so what is routed, and the
            # scheme; and every peer of a UNIX socket, hence the last two.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "logger_class": Logger,
            "accesslog": "-" if options.access_log else None,
            "proc_name": "headrace",
            "control_socket_disable": True,
        }

    def load(self) -> Application:
        return self._load()

    def announce(self, listener: Any) -> None:
        """A worker answers at ``listener``."""
        try:
            first = os.read(self._first, 1)
        except BlockingIOError:
            return
        if first:
            self._on_listening(_url(self.options, listener.getsockname()))


class Logger(GunicornLogger):  # type: ignore[misc]
    """gunicorn's messages and the access log, as lines of Headrace's own log."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log = logging.getLogger("headrace.gunicorn")
        # Its informative messages are about its processes: for whoever debugs them.
        debugging = logging.getLogger("headrace").isEnabledFor(logging.DEBUG)
        self.error_log.setLevel(logging.NOTSET if debugging else logging.WARNING)
        self.access_log_wanted = bool(cfg.accesslog)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        # It repeats what it refuses: that may be a token, and a peer could fill the disk with four
        # times what it sends.
        if msg.startswith(_REFUSAL):
            msg = _QUOTED.sub("…", msg)
        super().warning(msg[:LONGEST_MESSAGE], *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        # Of a request's target the path is enough.
        super().exception(msg, *(str(each).partition("?")[0] for each in args), **kwargs)

    def access(self, resp: Any, request: Any, environ: dict[str, Any], took: timedelta) -> None:
        self.answered(line_of(request, environ, resp), resp.sent, took)

    def answered(self, line: str, sent: int, took: timedelta) -> None:
        """A request's line (response.line_of), the body bytes sent, and microseconds."""
        if self.access_log_wanted:
            access_log.info("%s %d %dus", line, sent, took // timedelta(microseconds=1))


def _try(load: Load) -> None:
    """Load the application in a child; ConfigurationError if that fails."""
    reasons, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            load()
            os._exit(0)
        except BaseException as error:
            os.write(told, str(error).encode()[:4096])  # what a pipe takes at once
            os._exit(1)
    os.close(told)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reasons, "rb") as file:
        reason = file.read().decode(errors="replace")
    if status:
        raise ConfigurationError(reason or "the application does not load")


def _listen(options: ServeOptions) -> int | None:
    """A listening socket's descriptor; None when systemd hands one over.

    Our own, since gunicorn would retry for five seconds and then name no reason.
    """
    if systemd.listen_fds(unset_environment=False):
        return None
    where = options.unix_socket or (options.host, options.port)
    return _listener(where, options.backlog).detach()


def _listen_for_metrics(options: ServeOptions) -> socket.socket | None:
    where = options.metrics_address
    return None if where is None else _listener(where, options.backlog)


def _listener(where: tuple[str, int] | str, backlog: int) -> socket.socket:
    """A socket that listens at host and port, or at the path of a Unix socket."""
    try:
        family, address = _resolved(where)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _bind(sock, address)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return sock
    except OSError as error:
        shown = where if isinstance(where, str) else "{} port {}".format(*where)
        raise ConfigurationError(
            reason=f"cannot listen on {shown}: {error.strerror or error}"
        ) from error


def _resolved(where: tuple[str, int] | str) -> tuple[int, tuple[Any, ...] | str]:
    if isinstance(where, str):
        return socket.AF_UNIX, where
    found = socket.getaddrinfo(*where, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return family, address


def _bind(sock: socket.socket, address: tuple[Any, ...] | str) -> None:
    """Bind; a Unix socket takes the place of one that a dead server left."""
    if not isinstance(address, str):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return
    os.makedirs(os.path.dirname(os.path.abspath(address)), mode=0o750, exist_ok=True)
    if _is_abandoned(address):
        os.unlink(address)
    before = os.umask(0o777 & ~UNIX_SOCKET_MODE)  # never wider, not for a moment
    try:
        sock.bind(address)
    finally:
        os.umask(before)


def _is_abandoned(path: str) -> bool:
    """Whether a socket lies at ``path`` that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            return probe.connect_ex(path) == errno.ECONNREFUSED
    except FileNotFoundError:
        return False


def _url(options: ServeOptions, address: tuple[Any, ...] | str) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    name = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{name}:{address[1]}"


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _connections(options: ServeOptions) -> int:
    """How many connections a worker takes: a waiting one, or a download, needs a socket only."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return options.max_connections
    kept = DESCRIPTORS_A_THREAD * options.threads + SPARE_DESCRIPTORS
    return min(options.max_connections, soft - kept)
