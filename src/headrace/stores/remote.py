"""Remote: data that lies at an origin elsewhere, as blocks; what an Extent is to a file."""

import http.client
from collections.abc import Callable

from headrace import errors
from headrace.stores.origin import Fetched
from headrace.transfer.extent import OnClose

Fetch = Callable[[int, int], Fetched]
"""offset, length: an answer whose body is those bytes."""


class Remote:
    """``length`` bytes that an origin sends, from ``fetched`` on.

    It has the face of an Extent that is not opened up: it is narrowed to a range by ``fetch``,
    subscribed to with ``on_close``, and read to its end.  There is no descriptor to send from, and
    no file for a server in front, so that ``path`` is empty.
    """

    path = ""
    way = "copy"

    def __init__(self, fetched: Fetched, length: int, fetch: Fetch) -> None:
        self._fetched = fetched
        self._fetch = fetch
        self._observers: list[OnClose] = []
        self._closed = False
        self.offset = 0
        self.length = length
        self.sent = 0

    def narrow(self, offset: int, length: int) -> None:
        """Keep only ``length`` bytes from ``offset``; raises ServiceUnavailable."""
        if not 0 <= offset <= offset + length <= self.length:
            raise ValueError(f"{offset}+{length} lies outside {self.length} bytes")
        if length == self.length:
            return
        self._fetched.close()
        self.offset += offset
        self.length = length
        if length:
            self._fetched = self._fetch(self.offset, length)

    def on_close(self, observer: OnClose) -> None:
        """Have ``observer(bytes_read, ok)`` called once, when it is closed."""
        self._observers.append(observer)

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; b"" there.  Raises TransferError."""
        left = self.length - self.sent
        wanted = left if size < 0 else min(size, left)
        try:
            data = self._fetched.response.read(wanted) if wanted else b""
        except (OSError, http.client.HTTPException) as error:
            raise errors.TransferError(
                reason=f"its origin broke off after {self.sent} bytes", moved=self.sent
            ) from error
        self.sent += len(data)
        return data

    def close(self) -> None:
        """Leave the origin and tell the observers; harmless when closed already."""
        if self._closed:
            return
        self._closed = True
        self._fetched.close()
        for observer in self._observers:
            observer(self.sent, self.sent == self.length)
