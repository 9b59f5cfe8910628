"""Chunked framing (RFC 9112 section 7.1) that leaves the data of the chunks on the socket."""

import re
from collections.abc import Callable, Iterator

from gunicorn.http.body import CHUNK_EXT_RE

from headrace.errors import UploadIncomplete
from headrace.transfer.engine import Source, Stream

MAX_LINE = 8190
"""Longest chunk-size line, extensions included: as gunicorn's."""

MAX_TRAILERS = 32 * 1024

# Fifteen digits stay below 2**63, so that a length never overflows an off_t.
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")

# Chunks below this are read together with what follows them: a splice costs more than the copy.
_SMALL_CHUNK = 4096
_READ_AHEAD = 8192


class Chunks:
    """The pieces of one chunked body, in order.

    ``receive(size)`` reads 1 to ``size`` bytes from the peer or raises; ``held`` is what was read
    ahead already and, after the last piece, what follows the body.  A piece must be used up before
    the next one is asked for.  Raises UploadIncomplete when the framing is wrong.
    """

    def __init__(
        self, receive: Callable[[int], bytes], fd: int, stall: float | None, held: bytes
    ) -> None:
        self._receive = receive
        self._fd = fd
        self._stall = stall
        self.held = held
        self.moved = 0
        self.trailers = b""
        # One read of this size takes the CRLF after a chunk and the size line of the next one
        # exactly when chunks are all of one size, as every client sends them.
        self._step = 16

    def __iter__(self) -> Iterator[Source]:
        while size := self._size():
            head, self.held = self.held[:size], self.held[size:]
            if head:
                yield head
            if len(head) < size:
                yield Stream(self._fd, size - len(head), self._stall)
            self.moved += size
            if self._line(0):
                raise UploadIncomplete(reason="a chunk does not end with CRLF")
        self.trailers = self._trailer_section()

    def _size(self) -> int:
        line = self._line(MAX_LINE)
        digits = _SIZE.match(line)
        if not digits:
            raise UploadIncomplete(reason="invalid chunk size")
        if not CHUNK_EXT_RE.fullmatch(line, digits.end()):
            raise UploadIncomplete(reason="invalid chunk size or extension")
        size = int(digits[0], 16)
        self._step = _READ_AHEAD if size < _SMALL_CHUNK else len(b"\r\n") + len(line) + 2
        return size

    def _trailer_section(self) -> bytes:
        lines: list[bytes] = []
        left = MAX_TRAILERS
        while line := self._line(left):
            lines.append(line)
            left -= len(line) + 2
        return b"\r\n".join(lines)

    def _line(self, limit: int) -> bytes:
        """The next line of at most ``limit`` bytes, without its CRLF."""
        while (end := self.held.find(b"\n")) < 0 and len(self.held) < limit + 2:
            self.held += self._receive(self._step)
        if end < 1 or self.held[end - 1 : end] != b"\r":
            raise UploadIncomplete(reason="a line of the chunked framing does not end with CRLF")
        if end - 1 > limit:
            raise UploadIncomplete(reason="a line of the chunked framing is too long")
        line, self.held = self.held[: end - 1], self.held[end + 1 :]
        return line
