"""Remote: data that lies at an origin elsewhere, as blocks; what an Extent is to a file."""

from collections.abc import Callable, Iterator
from threading import BoundedSemaphore
from typing import Protocol

from headrace import errors
from headrace.transfer.engine import Source
from headrace.transfer.extent import OnClose


class Answer(Protocol):
    """What an origin sends: bytes in their order, once."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; raises TransferError."""
        ...

    def pieces(self, length: int) -> Iterator[Source]:
        """The next ``length`` bytes, for the engine to pump, each piece to its end."""
        ...

    def close(self) -> None: ...


class Later:
    """An answer that is asked for when it is read, which it is not where a server in front does."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._answer: Answer | None = None

    def read(self, size: int, /) -> bytes:
        return self._now().read(size)

    def pieces(self, length: int) -> Iterator[Source]:
        return self._now().pieces(length)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()

    def _now(self) -> Answer:
        """Raises TransferError: who reads has been told of data."""
        if self._answer is None:
            try:
                self._answer = self._ask()
            except (errors.NotFound, errors.ServiceUnavailable) as error:
                reason = f"its origin does not send it ({error.code})"
                raise errors.TransferError(reason=reason) from None
        return self._answer


Fetch = Callable[[int, int], Answer]
"""offset, length: an answer whose body is those bytes."""


def _nowhere() -> None:
    """Nobody but the service may fetch it."""


class Remote:
    """``length`` bytes that an origin sends, from ``answer`` on.

    It has the face of an Extent that is not opened up: it is narrowed to a range by ``fetch``,
    subscribed to with ``on_close``, and read to its end.  There is no descriptor to send from, and
    no file for a server in front, so that ``path`` is empty.  An origin that breaks off is asked
    for the rest, ``retries`` times.  ``presigned()`` is a URL from which a server in front may
    fetch the whole, or any range; None where there is none.
    """

    path = ""
    way = "copy"

    def __init__(
        self,
        answer: Answer,
        length: int,
        fetch: Fetch,
        retries: int = 0,
        presigned: Callable[[], str | None] = _nowhere,
    ) -> None:
        self._answer = answer
        self._fetch = fetch
        self._retries = retries
        self.presigned = presigned
        self._observers: list[OnClose] = []
        self._closed = False
        self._left = False
        self.offset = 0
        self.length = length
        self.sent = 0

    def narrow(self, offset: int, length: int) -> None:
        """Keep only ``length`` bytes from ``offset``; raises ServiceUnavailable."""
        if not 0 <= offset <= offset + length <= self.length:
            raise ValueError(f"{offset}+{length} lies outside {self.length} bytes")
        if length == self.length:
            return
        self._answer.close()
        self.offset += offset
        self.length = length
        if length:
            self._answer = self._fetch(self.offset, length)

    def on_close(self, observer: OnClose) -> None:
        """Have ``observer(bytes_read, ok)`` called once, when it is closed; see Extent."""
        self._observers.append(observer)

    def leave_to_host(self, way: str) -> None:
        """Note that a server in front fetches it, which never says how many bytes there were."""
        self._left = True
        self.way = way

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; b"" there.  Raises TransferError."""
        left = self.length - self.sent
        wanted = left if size < 0 else min(size, left)
        if not wanted:
            return b""
        while True:
            try:
                data = self._answer.read(wanted)
                if not data:
                    raise errors.TransferError(reason="its origin broke off")
            except errors.TransferError as error:
                self._ask_for_the_rest(error)
            else:
                self.sent += len(data)
                return data

    def pieces(self) -> Iterator[Source]:
        """What is left of it, for the engine to pump; what breaks off is not asked for again."""
        length = self.length - self.sent
        for piece in self._answer.pieces(length):
            yield piece
            self.sent += len(piece) if isinstance(piece, bytes) else piece.length or 0

    def close(self) -> None:
        """Leave the origin and tell the observers; harmless when closed already."""
        if self._closed:
            return
        self._closed = True
        self._answer.close()
        ok = None if self._left else self.sent == self.length
        for observer in self._observers:
            observer(self.sent, ok)

    def _ask_for_the_rest(self, failure: errors.TransferError) -> None:
        """Raises ``failure`` when that is of no use."""
        self._answer.close()
        while self._retries:
            self._retries -= 1
            try:
                self._answer = self._fetch(self.offset + self.sent, self.length - self.sent)
            except errors.NotFound:
                break
            except (errors.ServiceUnavailable, errors.TransferError):
                continue
            return
        raise failure


class Turns:
    """How many Remotes of a store may be open in this process, since each holds a thread for as
    long as its client likes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = BoundedSemaphore(most)

    def open(self, make: Callable[[], Remote]) -> Remote:
        """What ``make`` makes, until it is closed; raises OriginsBusy."""
        if not self._free.acquire(blocking=False):
            raise errors.OriginsBusy(limit=self._most)
        try:
            remote = make()
        except BaseException:
            self._free.release()
            raise
        remote.on_close(lambda _sent, _ok: self._free.release())
        return remote
