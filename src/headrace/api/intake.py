"""From a host to a Body: how the bytes of an upload reach us."""

from collections.abc import Iterator
from typing import Any, Protocol, cast

from headrace import errors
from headrace.service.content import Body
from headrace.transfer.engine import Reader, Source

BODY = "headrace.body"
"""Where the embedded server puts a Body whose pieces are sockets, to be spliced."""


class _Input(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read(stream: _Input, size: int) -> bytes:
    """Up to ``size`` bytes of a ``wsgi.input``, for whose errors PEP 3333 has no names.

    Raises UploadIncomplete for whatever a host says of a body it cannot make out; an OSError is
    the peer's end.
    """
    try:
        return stream.read(size)
    except (OSError, errors.Error):
        raise
    except Exception as error:
        raise errors.UploadIncomplete(reason=str(error) or type(error).__name__) from error


class _InputReader:
    """``wsgi.input`` as a Readable: PEP 3333 promises only read()."""

    def __init__(self, stream: _Input) -> None:
        self._stream = stream

    def readinto(self, buffer: memoryview, /) -> int:
        data = read(self._stream, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class InputBody:
    """A body read from ``wsgi.input``: the copying way, for hosts that keep their socket."""

    def __init__(self, stream: _Input, length: int | None) -> None:
        self._stream = stream
        self.length = length

    def pieces(self) -> Iterator[Source]:
        if self.length != 0:
            yield Reader(_InputReader(self._stream), self.length)


def body(environ: dict[str, Any]) -> Body:
    """The request's body.

    Raises BadRequest for a body whose end this host does not tell: it would be taken for empty.
    """
    if BODY in environ:
        return cast(Body, environ[BODY])
    if environ.get("HTTP_TRANSFER_ENCODING"):
        if not environ.get("wsgi.input_terminated"):
            raise errors.BadRequest(reason="this server cannot receive a chunked body")
        return InputBody(environ["wsgi.input"], None)
    return InputBody(environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0))
