"""What handlers read from a request: its JSON body, its query."""

from urllib.parse import parse_qsl

import falcon
import msgspec

from headrace import errors
from headrace.api import intake
from headrace.model import MIB

_JSON_LIMIT = MIB  # bytes; an image with 128 properties of ordinary length is far below


def read_json(req: falcon.Request) -> object:
    """The request's body as JSON: an object or an array.

    Raises InvalidBody, TooLarge (1 MiB is enough for any record).
    """
    if (req.content_length or 0) > _JSON_LIMIT:
        raise errors.TooLarge(reason=f"a JSON body of more than {_JSON_LIMIT} bytes")
    stream, length = intake.open_input(req.env)
    data = _read(stream, _JSON_LIMIT + 1 if length is None else length)
    if len(data) > _JSON_LIMIT:
        raise errors.TooLarge(reason=f"a JSON body of more than {_JSON_LIMIT} bytes")
    try:
        document: object = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.InvalidBody(reason=error) from None
    if not isinstance(document, (dict, list)):
        raise errors.InvalidBody(reason="neither an object nor an array")
    # JSON has no other way to write it; most bodies need not be walked through.
    if b"\\u0000" in data and _holds_nul(document):
        raise errors.InvalidBody(reason="a NUL character, which not every database can keep")
    return document


def _holds_nul(value: object) -> bool:
    """Whether a text of the document, or the name of a value, has the character."""
    if isinstance(value, dict):
        return any(map(_holds_nul, value)) or any(map(_holds_nul, value.values()))
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


def _read(stream: intake.Input, size: int) -> bytes:
    """``size`` bytes, or as many as there are; never past the end, which not every host marks."""
    data = b""
    while len(data) < size and (more := intake.read(stream, size - len(data))):
        data += more
    return data


def refuse_body(req: falcon.Request) -> None:
    """Raises BadRequest when the request has a body although its endpoint takes none."""
    if req.content_length or (
        req.method in ("POST", "PUT", "PATCH") and req.get_header("Transfer-Encoding")
    ):
        raise errors.BadRequest(reason="a body is not expected here")


def query_pairs(req: falcon.Request) -> list[tuple[str, str]]:
    """The query string as (name, value) pairs, in order, repeated names kept."""
    try:
        pairs = parse_qsl(
            req.query_string, keep_blank_values=True, errors="strict", max_num_fields=200
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise errors.InvalidQuery(name="(all)", reason=error) from None
    if "%00" in req.query_string:
        raise errors.InvalidQuery(name="(all)", reason="it holds a NUL character")
    return pairs


def media_type(req: falcon.Request, *supported: str) -> str:
    """The media type of the request's body, without parameters: one of ``supported``.

    Raises UnsupportedMediaType.
    """
    given = (req.content_type or "").partition(";")[0].strip()
    if given not in supported:
        raise errors.UnsupportedMediaType(
            content_type=given or "(none)", supported=", ".join(supported)
        )
    return given
