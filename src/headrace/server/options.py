"""What an operator may choose about the embedded server."""

from dataclasses import dataclass, field

from headrace.server.transfers import TransferOptions


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve; times in seconds.

    ``port`` 0 picks a free one.  With ``unix_socket``, a path, it listens there and at no address;
    the socket's mode is 0660: its user and group may connect.  ``threads`` is how many requests a
    worker handles at a time, ``max_connections`` how many connections it has at most.
    ``drain_timeout`` is how long transfers in flight may go on after SIGTERM, ``stall_timeout`` for
    how long a peer may move no byte (or less than its least, of a download), ``keepalive`` how long
    a connection may wait for its next request.  A worker whose main thread shows no life for
    ``heartbeat`` is replaced; transfers have threads of their own and may take for ever.  So is one
    that has answered ``max_requests`` (0: any number) and up to a tenth more, by chance.
    ``metrics_address``, host and port, is where it listens for who asks for the metrics alone.
    ``transfers`` is how downloads are treated that wait for their clients.
    """

    host: str = "127.0.0.1"
    port: int = 9292
    unix_socket: str | None = None
    workers: int = 1
    threads: int = 64
    drain_timeout: float = 60.0
    stall_timeout: float = 60.0
    keepalive: int = 75
    heartbeat: int = 30
    backlog: int = 2048
    access_log: bool = True
    max_connections: int = 16384
    max_requests: int = 0
    metrics_address: tuple[str, int] | None = None
    transfers: TransferOptions = field(default_factory=TransferOptions)
