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
    data = intake.read(req.env["wsgi.input"], _declared(req))
    if len(data) > _JSON_LIMIT:
        raise errors.TooLarge(reason=f"a JSON body of more than {_JSON_LIMIT} bytes")
    try:
        document: object = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.InvalidBody(reason=error) from None
    if not isinstance(document, (dict, list)):
        raise errors.InvalidBody(reason="neither an object nor an array")
    return document


def _declared(req: falcon.Request) -> int:
    """How many bytes to read: never past the body, where hosts do not mark its end."""
    if req.content_length is not None:
        return req.content_length
    if req.env.get("wsgi.input_terminated"):
        return _JSON_LIMIT + 1
    return 0


def refuse_body(req: falcon.Request) -> None:
    """Raises BadRequest when the request has a body although its endpoint takes none."""
    if req.content_length or (
        req.method in ("POST", "PUT", "PATCH") and req.get_header("Transfer-Encoding")
    ):
        raise errors.BadRequest(reason="a body is not expected here")


def query_pairs(req: falcon.Request) -> list[tuple[str, str]]:
    """The query string as (name, value) pairs, in order, repeated names kept."""
    try:
        return parse_qsl(
            req.query_string, keep_blank_values=True, errors="strict", max_num_fields=200
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise errors.InvalidQuery(name="(all)", reason=error) from None


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
