"""A peer that speaks raw HTTP, to do what a well-behaved server would not.

A script is a list of functions, one per connection, each of which gets the Wire of its connection.
"""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

GUARD = 30.0  # seconds; a hang guard


@dataclass
class Request:
    """A request's head as it came."""

    line: str
    headers: dict[str, str]


class Wire:
    """One connection of a client, byte by byte."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(GUARD)
        self._ahead = b""

    def head(self) -> Request:
        """The next request's head; EOFError if the client has closed."""
        while b"\r\n\r\n" not in self._ahead:
            data = self.sock.recv(1)
            if not data:
                raise EOFError
            self._ahead += data
        text, _, self._ahead = self._ahead.partition(b"\r\n\r\n")
        line, *rest = text.decode("latin-1").split("\r\n")
        return Request(line, {k.lower(): v for k, v in (one.split(": ", 1) for one in rest)})

    def take(self, size: int) -> bytes:
        """``size`` bytes, or fewer if the client closes before."""
        data = b""
        while len(data) < size and (block := self.sock.recv(size - len(data))):
            data += block
        return data

    def line(self) -> bytes:
        found = b""
        while not found.endswith(b"\r\n"):
            data = self.take(1)
            if not data:
                raise EOFError
            found += data
        return found[:-2]

    def chunks(self) -> list[bytes]:
        """The chunks of a chunked body, the last, empty one included; strict about the framing."""
        found = []
        while True:
            size = int(self.line(), 16)
            found.append(self.take(size))
            assert self.line() == b""
            if not size:
                return found

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(
        self, status: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        fields = {"Content-Length": str(len(body))} | dict(headers or {})
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def answer_json(self, value: object, status: str = "200 OK") -> None:
        body = json.dumps(value).encode()
        self.answer(status, body, {"Content-Type": "application/json"})

    def reset(self) -> None:
        """Cut the connection as a crash would: by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Step = Callable[[Wire], None]


@dataclass
class Peer:
    """A listening peer; ``connections`` counts who came, ``faults`` holds what a step raised."""

    url: str
    connections: int = 0
    faults: list[BaseException] = field(default_factory=list)


@contextlib.contextmanager
def peer(*steps: Step) -> Iterator[Peer]:
    """Serve one connection after another, by one step each; a connection too many is refused."""
    listener = socket.create_server(("127.0.0.1", 0))
    found = Peer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    listener.settimeout(0.05)
    done = threading.Event()

    def serve() -> None:
        with contextlib.closing(listener):
            for step in steps:
                sock = _accept(listener, done)
                if sock is None:
                    return
                found.connections += 1
                try:
                    with sock:
                        step(Wire(sock))
                except BaseException as fault:
                    found.faults.append(fault)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join(GUARD)
    assert not found.faults, found.faults


def _accept(listener: socket.socket, done: threading.Event) -> socket.socket | None:
    while not done.is_set():
        with contextlib.suppress(TimeoutError):
            return listener.accept()[0]
    return None
