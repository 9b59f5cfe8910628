"""From a host to a Body: how the bytes of an upload reach us."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol, cast

from headrace import errors
from headrace.service.landing import Body
from headrace.transfer.engine import Reader, Source

BODY = "headrace.body"
"""Where the embedded server puts a Body whose pieces are sockets, to be spliced."""


class Input(Protocol):
    """What PEP 3333 promises of a ``wsgi.input``, as far as it is used."""

    def read(self, size: int, /) -> bytes: ...


def read(stream: Input, size: int) -> bytes:
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

    def __init__(self, stream: Input) -> None:
        self._stream = stream

    def readinto(self, buffer: memoryview, /) -> int:
        data = read(self._stream, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _UwsgiChunks:
    """A chunked body under uWSGI, whose ``wsgi.input`` ends before it begins.

    uWSGI gives whole chunks (of up to its chunked-input-limit), and b"" for the last one.
    """

    def __init__(self) -> None:
        self._uwsgi: Any = import_module("uwsgi")  # exists within uWSGI only
        self._held = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        if not self._held and not self._ended:
            try:
                self._held = self._uwsgi.chunked_read()
            except OSError as error:
                reason = "the peer left, or a chunk is broken or larger than chunked-input-limit"
                raise errors.UploadIncomplete(reason=reason) from error
            self._ended = not self._held
        data, self._held = self._held[:size], self._held[size:]
        return data


class InputBody:
    """A body read from ``wsgi.input``: the copying way, for hosts that keep their socket."""

    file: int | None = None

    def __init__(self, stream: Input, length: int | None) -> None:
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
    stream, length = open_input(environ)
    return InputBody(stream, length)


def open_input(environ: dict[str, Any]) -> tuple[Input, int | None]:
    """Where to read the body, and its length; None: until its end.  Raises as ``body``."""
    encoding, length = environ.get("HTTP_TRANSFER_ENCODING"), environ.get("CONTENT_LENGTH") or "0"
    if not encoding:
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise errors.BadRequest(reason="Content-Length is not a number of bytes")
        return environ["wsgi.input"], int(length)
    if encoding.strip().lower() != "chunked" or length != "0":
        raise errors.BadRequest(reason="a body is chunked, or has a Content-Length")
    if "uwsgi.version" in environ:
        return _UwsgiChunks(), None
    if not environ.get("wsgi.input_terminated"):
        raise errors.BadRequest(reason="this server cannot receive a chunked body")
    return environ["wsgi.input"], None
