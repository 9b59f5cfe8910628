"""Answers: gunicorn's framing, with an Extent as the body sent by the transfer engine."""

import socket
from typing import Any

from gunicorn.http import wsgi

from headrace.errors import FileTruncated, TransferError
from headrace.transfer.engine import Stream, pump
from headrace.transfer.extent import Extent
from headrace.transfer.growing import Growing
from headrace.transfer.outgoing import Outgoing

SMALL_BODY = 16 * 1024
"""Bodies up to this many bytes leave in one send with their headers: sendfile would cost more."""


def line_of(request: Any, environ: dict[str, Any], resp: wsgi.Response) -> str:
    """What the access log has of a request: peer, method, path, status.

    No header of the request and no query is logged: they may carry secrets.
    """
    peer = environ.get("REMOTE_ADDR") or "-"
    return f"{peer} {request.method} {request.path} {resp.status.split(None, 1)[0]}"


class Response(wsgi.Response):  # type: ignore[misc]
    """One answer.  Whatever fails once ``headers_sent`` ends the connection, nothing is appended.

    ``stall`` is for how many seconds the peer may take nothing.
    """

    def __init__(self, request: Any, sock: socket.socket, cfg: Any, stall: float) -> None:
        super().__init__(request, sock, cfg)
        self.version = "Headrace"
        self._stall = stall

    def should_close(self) -> bool:
        return super().should_close() or not self.req.body.reusable

    def send_headers(self) -> None:
        if not self.headers_sent:
            self._send_head()

    def write(self, data: bytes) -> None:
        """Send ``data``, together with the headers when it is the first."""
        whole = self.response_length is not None and len(data) <= self.response_length
        if self.headers_sent or self._omits_body or not whole:
            super().write(data)
        else:
            self._send_head(data)
            self.sent = len(data)

    def write_file(self, wrapped: Any, turn: int) -> Outgoing | None:
        """Send what ``wsgi.file_wrapper`` was given, or begin to; what is left of it, if anything.

        An Extent gets one turn, of so many bytes at most, if nothing has to be read from a disk;
        what is left goes out through the socket, which then does not block.

        Raises PeerGone, PeerStalled, FileTruncated and FillFailed; ValueError when Content-Length
        does not say the extent's length.
        """
        extent = wrapped.filelike
        if not isinstance(extent, Extent):
            for block in wrapped:
                self.write(block)
        elif self._omits_body:
            self.send_headers()
        elif self.response_length != extent.length:
            raise ValueError(
                f"Content-Length is {self.response_length}, the body has {extent.length} bytes"
            )
        elif extent.length <= SMALL_BODY and not isinstance(extent, Growing):
            self._send_small(extent)
        elif not self.req.body.finished:
            self._send_whole(extent)
        else:
            return self._begin(extent, turn)
        return None

    def _begin(self, extent: Extent, turn: int) -> Outgoing | None:
        """Send the head and what the socket has room for."""
        outgoing = Outgoing(extent, self.sock.fileno())
        ready = outgoing.reach > outgoing.offset and not outgoing.cold(turn)
        self._send_head(more=ready)
        self.sock.setblocking(False)
        try:
            if ready:
                outgoing.turn(turn)
        finally:
            self.sent = extent.sent
            if not outgoing.left:
                outgoing.finish()
        if outgoing.left:
            return outgoing
        self.sock.setblocking(True)
        return None

    def _send_whole(self, extent: Extent) -> None:
        """Send all of it, waiting for the client: one that has not sent its request's body yet."""
        self._send_head(more=True)
        try:
            pump(extent, Stream(self.sock.fileno(), stall=self._stall))
        finally:
            self.sent = extent.sent

    def close(self) -> None:
        """End the answer.  Raises TransferError when the application gave less than it announced.

        gunicorn would keep the connection, and the next answer would fill up this one.
        """
        super().close()
        if not self._omits_body and self.sent < (self.response_length or 0):
            raise TransferError(reason=f"the application gave {self.sent} bytes", moved=self.sent)

    def _send_small(self, extent: Extent) -> None:
        data = extent.read()
        if len(data) < extent.length:
            raise FileTruncated(missing=extent.length - len(data))
        self.write(data)

    def _send_head(self, body: bytes = b"", more: bool = False) -> None:
        """Send status line and headers; with ``more``, in one segment with what follows."""
        self.headers_sent = True  # from here on part of it may be on the wire
        fields = [f"{name}: {value}\r\n" for name, value in self.headers]
        head = ("".join(self.default_headers() + fields) + "\r\n").encode("latin-1")
        if len(body) <= SMALL_BODY:
            self.sock.sendall(head + body, socket.MSG_MORE if more else 0)
        else:
            self.sock.sendall(head, socket.MSG_MORE)
            self.sock.sendall(body)
