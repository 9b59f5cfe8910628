"""What the server uses of gunicorn that is not part of gunicorn's documented interface.

A test compares it with the gunicorn installed.
"""

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.http import wsgi
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.message import Message, Request
from gunicorn.http.parser import Parser
from gunicorn.http.unreader import SocketUnreader, Unreader
from gunicorn.sock import BaseSocket
from gunicorn.workers.base import Worker as BaseWorker
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker

PRIVATE: dict[type, tuple[str, ...]] = {
    Arbiter: (
        "WORKERS",
        "app",
        "kill_worker",
        "manage_workers",
        "num_workers",
        "reload",
        "setup",
        "spawn_worker",
        "stop",
    ),
    BaseSocket: ("close", "sock"),
    BaseWorker: ("alive", "app", "cfg", "load_wsgi", "log", "notify", "ppid", "sockets", "wsgi"),
    Body: ("_read_reader", "failed", "reader"),
    ChunkedReader: ("read",),
    GunicornLogger: ("access", "error_log", "setup"),
    LengthReader: ("length", "read"),
    Message: (
        "_expected_100_continue",
        "body",
        "force_close",
        "headers",
        "parse_headers",
        "unreader",
        "version",
    ),
    Parser: ("finish_body", "unreader"),
    PollableMethodQueue: ("close", "defer", "fileno", "run_callbacks"),
    Request: ("uri",),
    SocketUnreader: ("chunk", "sock"),
    TConn: ("client", "data_ready", "init", "initialized", "parser", "server", "sock", "timeout"),
    ThreadWorker: (
        "_accepting",
        "_cap_keepalive",
        "_keepalive_after",
        "accept",
        "enqueue_req",
        "finish_request",
        "handle",
        "handle_error",
        "handle_quit",
        "handle_request",
        "is_parent_alive",
        "keepalived_conns",
        "max_keepalived",
        "method_queue",
        "murder_keepalived",
        "murder_pending",
        "nr_conns",
        "on_pending_socket_readable",
        "pending_conns",
        "poller",
        "set_accept_enabled",
        "tpool",
        "wait_for_and_dispatch_events",
        "worker_connections",
    ),
    Unreader: ("buf", "take_buffered", "unread"),
    wsgi.FileWrapper: ("filelike",),
    wsgi.Response: (
        "_omits_body",
        "default_headers",
        "headers",
        "headers_sent",
        "response_length",
        "sent",
        "should_close",
        "status",
        "version",
        "write_file",
    ),
}
