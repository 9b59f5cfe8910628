"""A client that sends bytes as they are, and takes answers apart without mercy."""

import re
import select
import socket
import time
from collections.abc import Iterable
from typing import Self

from tests.deploy.wire import GUARD, Answer
from tests.faults.corpus import End, Pause, Send, Step

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) [\t\x20-\x7e]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t\x20-\x7e\x80-\xff]*)")
_SEGMENT = 65536


class Malformed(ValueError):
    """What was received is no HTTP/1 answer."""


class Exchange:
    """One connection; whatever arrives is read at once and kept in ``received``."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), GUARD)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._heads = False
        self.received = b""
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def play(self, steps: Iterable[Step]) -> None:
        """Send it all, as long as the server listens."""
        steps = list(steps)
        sent = b"".join(step.data for step in steps if isinstance(step, Send))
        self._heads = self._heads or b"HEAD " in sent
        for step in steps:
            if isinstance(step, Pause):
                self._listen(step.seconds)
            elif isinstance(step, End):
                self.finish()
            else:
                self._send(step)

    def finish(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.ended = True

    def answers(self) -> list[Answer]:
        """Those received as a whole.  Raises Malformed."""
        return apart(self.received, self._heads)[0]

    def left(self) -> bytes:
        """What follows them.  Raises Malformed."""
        return apart(self.received, self._heads)[1]

    def has_answered(self, count: int) -> bool:
        """Wait until there are so many answers, for as long as a hang guard allows."""
        deadline = time.monotonic() + GUARD
        while len(self.answers()) < count and not self.ended and time.monotonic() < deadline:
            self._listen(0.1)
        return len(self.answers()) >= count

    def has_ended(self) -> bool:
        """Wait until the server has closed the connection, as long."""
        deadline = time.monotonic() + GUARD
        while not self.ended and time.monotonic() < deadline:
            self._listen(0.1)
        return self.ended

    def _send(self, step: Send) -> None:
        size = 1 if step.pace else _SEGMENT
        for offset in range(0, len(step.data), size):
            if self.ended:
                return
            try:
                self._sock.sendall(step.data[offset : offset + size])
            except (BrokenPipeError, ConnectionResetError):
                self._listen(0)  # what came before that
                self.ended = True
            self._listen(step.pace)

    def _listen(self, seconds: float) -> None:
        """Read what arrives within ``seconds``."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        deadline = time.monotonic() + seconds
        while not self.ended and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            try:
                data = self._sock.recv(_SEGMENT)
            except ConnectionResetError:
                data = b""
            self.received += data
            self.ended = not data


def apart(received: bytes, heads: bool) -> tuple[list[Answer], bytes]:
    """The answers in ``received``, and what follows them: part of one more, or nothing.

    ``heads``: some may answer HEAD, and have no body whatever they announce.  Raises Malformed.
    """
    found = []
    while b"\r\n\r\n" in received:
        head, after = received.split(b"\r\n\r\n", 1)
        answer = _parse(head)
        length = _length(answer)
        if heads and length and (not after or after.startswith(b"HTTP/1.")):
            length = 0
        if len(after) < length:
            break
        answer.body, received = after[:length], after[length:]
        found.append(answer)
    if not b"HTTP/1.".startswith(received[:7]):
        raise Malformed(received[:200])
    return found, received


def _parse(head: bytes) -> Answer:
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    fields = [_FIELD.fullmatch(line) for line in lines]
    if status is None or None in fields:
        raise Malformed(head)
    headers: dict[str, str] = {}
    for name, value in (field.groups() for field in fields if field):
        if name.lower().decode() in headers:
            raise Malformed(head)  # we have no answers with a field twice
        headers[name.lower().decode()] = value.decode("latin-1")
    return Answer(int(status[1]), headers)


def _length(answer: Answer) -> int:
    if answer.status < 200 or answer.status in (204, 304):
        return 0
    length = answer.headers.get("content-length", "")
    if not re.fullmatch(r"[0-9]{1,15}", length) or "transfer-encoding" in answer.headers:
        raise Malformed(f"an answer of no known length: {answer}")
    return int(length)
