"""What goes wrong on the way to a server: a relay that cuts, refuses, alters and stands still."""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_HEAD = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")
_BLOCK = 65536
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Fault:
    """What happens to the next ``times`` requests of ``method`` whose target has ``part`` in it.

    ``status`` is answered without asking anybody; ``cut_request`` and ``cut_answer`` are after how
    many bytes of a body the connection is reset; ``flip`` is which byte of the request's body
    becomes another; with ``stall`` nothing comes back until the other end gives up; with
    ``unasked`` the body is waited for, and nobody says so.
    """

    method: str
    part: str = ""
    times: int = 1
    status: int | None = None
    cut_request: int | None = None
    cut_answer: int | None = None
    flip: int | None = None
    stall: bool = False
    unasked: bool = False


@dataclass
class Meddler:
    """A relay to ``port``; ``asked`` are the requests that came: method, target, head."""

    port: int
    here: int = 0
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.here}"

    def count(self, method: str, part: str = "") -> int:
        """How many requests of a method came for a target with ``part`` in it."""
        return sum(each[0] == method and part in each[1] for each in self.asked)

    def serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near:
            head, rest = _head(near)
            fault = self._choose(head)
            if fault.stall:
                self.stalled.set()
                near.recv(_BLOCK)
                while near.recv(_BLOCK):
                    pass
            elif fault.status is not None:
                line = f"HTTP/1.1 {fault.status} Meddled\r\nContent-Length: 0\r\n\r\n"
                near.sendall(line.encode())
            else:
                with socket.create_connection(("127.0.0.1", self.port)) as far:
                    far.sendall(head)
                    _carry(near, far, rest, fault)

    def _choose(self, head: bytes) -> Fault:
        found = _HEAD.match(head)
        method, target = (found[1].decode(), found[2].decode()) if found else ("", "")
        with self._lock:
            self.asked.append((method, target, head.decode("latin-1")))
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.part in target:
                    fault.times -= 1
                    return fault
        return Fault(method)


def _head(sock: socket.socket, data: bytes = b"") -> tuple[bytes, bytes]:
    """The head of a request or an answer, and some of what follows it."""
    while b"\r\n\r\n" not in data:
        block = sock.recv(_BLOCK)
        if not block:
            raise OSError("no head")
        data += block
    head, end, rest = data.partition(b"\r\n\r\n")
    return head + end, rest


def _carry(near: socket.socket, far: socket.socket, rest: bytes, fault: Fault) -> None:
    back = threading.Thread(target=_back, args=(far, near, fault))
    back.start()
    with contextlib.suppress(OSError):
        passed = 0
        while block := rest or near.recv(_BLOCK):
            rest = b""
            if fault.flip is not None and passed <= fault.flip < passed + len(block):
                at = fault.flip - passed
                block = block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]
            if fault.cut_request is not None and passed + len(block) >= fault.cut_request:
                far.sendall(block[: fault.cut_request - passed])
                _reset(near)
                break
            far.sendall(block)
            passed += len(block)
    with contextlib.suppress(OSError):
        far.shutdown(socket.SHUT_RDWR)
    back.join()


def _back(far: socket.socket, near: socket.socket, fault: Fault) -> None:
    with contextlib.suppress(OSError):
        head, body = _head(far)
        if head.startswith(b"HTTP/1.1 100"):
            if not fault.unasked:
                near.sendall(head)
            head, body = _head(far, body)
        cut = fault.cut_answer
        left = 1 << 62 if cut is None else cut
        if left:
            near.sendall(head)
        while left and (body := body or far.recv(_BLOCK)):
            near.sendall(body[:left])
            left -= len(body[:left])
            body = b""
        if not left:
            _reset(near)
    with contextlib.suppress(OSError):
        near.shutdown(socket.SHUT_RDWR)


def _reset(sock: socket.socket) -> None:
    """End a connection at once; what is under way is lost."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.shutdown(socket.SHUT_RDWR)  # another thread may wait for something of it
        sock.close()


@contextlib.contextmanager
def meddling(port: int) -> Iterator[Meddler]:
    """A relay on the loopback to what listens at ``port``."""
    meddler = Meddler(port)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = listener.accept()[0]
                threading.Thread(target=meddler.serve, args=[near], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        meddler.here = listener.getsockname()[1]
        threading.Thread(target=accept, args=[listener], daemon=True).start()
        yield meddler
        listener.shutdown(socket.SHUT_RDWR)
