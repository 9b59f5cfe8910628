"""The body of a request: read by the application, or taken in pieces that can be spliced."""

import math
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from gunicorn.http.body import Body, LengthReader
from gunicorn.http.errors import NoMoreData, ParseException

from headrace.errors import PeerGone, PeerStalled, UploadIncomplete
from headrace.server.chunked import Chunks
from headrace.transfer.engine import Source, Stream

DRAIN_BYTES = 64 * 1024
"""Most bytes of an unread body that are read to keep a connection: gunicorn's own bound."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestBody(Body):  # type: ignore[misc]
    """``wsgi.input`` and ``headrace.body`` of one request.

    ``length`` is its size in bytes, None when chunked.  It is either read as a file or taken by
    ``pieces``, not both.  An ``Expect: 100-continue`` is answered by the first use of either, so
    that an application can refuse before the bytes are on their way (RFC 9110 section 10.1.1).

    ``failed`` is gunicorn's word for "nobody knows where the next request starts": its connection
    is closed after the answer.  What is read, and not taken by pieces, is a record: all of it must
    be there ``patience()`` seconds after it was first asked for.

    Errors: PeerGone, PeerStalled, UploadIncomplete (the framing is wrong).
    """

    reader: Any
    failed: bool
    file: int | None = None

    def __init__(
        self, request: Any, sock: socket.socket, stall: float, patience: Callable[[], float]
    ) -> None:
        super().__init__(request.body.reader)
        self._request = request
        self._unreader = request.unreader
        self._sock = sock
        self._stall = stall
        self._patience = patience
        self._wait = self._due = 0.0
        self._begun = False
        self._read = 0
        self.length: int | None = getattr(self.reader, "length", None)
        self._expected = bool(request._expected_100_continue) and self.length != 0
        # A client that was not told to continue may send its body all the same.
        self.failed = self._expected

    @property
    def reusable(self) -> bool:
        """Whether the connection can take another request after this one is answered.

        A chunked body that nobody read is of unknown size, so its connection is not promised.
        """
        return not self.failed and getattr(self.reader, "length", math.inf) <= DRAIN_BYTES

    @property
    def finished(self) -> bool:
        """Whether the client has nothing of this body left to send."""
        return not self.failed and getattr(self.reader, "length", None) == 0

    def pieces(self) -> Iterator[Source]:
        """The body as sources for the transfer engine, each to be used up before the next.

        What the parser read ahead comes first, as bytes; the rest stays on the socket.
        """
        if self._begun:
            raise RuntimeError("the body has been read already")
        self._begun = True
        self._invite()
        # Until the last piece is used up, the connection is in the middle of the body.
        self.failed = True
        self.reader = LengthReader(self._unreader, 0)
        held = self._unreader.take_buffered()
        if self.length is None:
            yield from self._chunked(held)
        else:
            yield from self._plain(held, self.length)
        self.failed = False

    def _plain(self, held: bytes, length: int) -> Iterator[Source]:
        head, after = held[:length], held[length:]
        self._unreader.unread(after)
        if head:
            yield head
        if len(head) < length:
            yield Stream(self._sock.fileno(), length - len(head), self._stall)

    def _chunked(self, held: bytes) -> Iterator[Source]:
        chunks = Chunks(
            lambda size: self._receive(size, chunks.moved), self._sock.fileno(), self._stall, held
        )
        yield from chunks
        self._unreader.unread(chunks.held)
        if chunks.trailers:
            try:
                self._request.parse_headers(chunks.trailers, from_trailer=True)
            except ParseException as error:
                raise UploadIncomplete(reason=f"invalid trailer: {error}") from error

    def _receive(self, size: int, moved: int) -> bytes:
        try:
            data = self._sock.recv(size)
        except (TimeoutError, BlockingIOError) as error:
            raise PeerStalled(seconds=self._stall, moved=moved) from error
        except ConnectionError as error:
            raise PeerGone(moved=moved) from error
        if not data:
            raise PeerGone(moved=moved)
        return data

    def _read_reader(self, size: int) -> bytes:
        """gunicorn's one way to its reader, with our errors, and no body cut short unnoticed."""
        if self.finished:  # and so nothing of the next request's limits is touched
            return b""
        if not self._due:
            self._wait = self._patience()
            self._due = time.monotonic() + self._wait
        self._begun = True
        self._invite()
        # Who drains what nobody read has less patience (gunicorn's finish_body).
        bound = self._sock.gettimeout()
        due = self._due if bound is None else min(self._due, time.monotonic() + bound)
        self._unreader.expect_body(self._wait, due)
        wanted = min(size, getattr(self.reader, "length", 0))
        try:
            data: bytes = super()._read_reader(size)
        except ParseException as error:
            raise UploadIncomplete(reason=str(error)) from error
        except (TimeoutError, BlockingIOError) as error:
            raise PeerStalled(seconds=self._stall, moved=self._read) from error
        except (ConnectionError, NoMoreData) as error:
            raise PeerGone(moved=self._read) from error
        finally:
            self._unreader.expect_anything()
            self._sock.settimeout(bound)
        self._read += len(data)
        if len(data) < wanted:
            self.failed = True
            raise PeerGone(moved=self._read)
        if not data:
            self.reader = LengthReader(self._unreader, 0)
        return data

    def _invite(self) -> None:
        """Answer ``Expect: 100-continue``, once."""
        if not self._expected:
            return
        try:
            self._sock.sendall(_CONTINUE)
        except OSError as error:
            raise PeerGone(moved=0) from error
        self._expected = self.failed = False
