"""From an error to an HTTP answer: body by ``Accept``, code in ``X-Headrace-Error``."""

import html
from http import HTTPStatus

import falcon
import msgspec

from headrace.api.offload import is_question
from headrace.errors import Error, Forbidden, Unauthenticated

CODE_HEADER = "X-Headrace-Error"
_NGINX_CLIENT_GONE = 499


def answer(req: falcon.Request, resp: falcon.Response, error: Error) -> None:
    """Make ``error`` the response, in the form the caller accepts."""
    # nginx, asking, understands no other refusal; the upload itself is then refused as is due.
    status = Forbidden.status if is_question(req.env) else error.status
    reason = _reason(status)
    resp.status = f"{status} {reason}"
    resp.set_header(CODE_HEADER, error.code)
    if status == Unauthenticated.status and "challenge" in error.fields:
        resp.set_header("WWW-Authenticate", str(error.fields["challenge"]))
    if error.retry_after is not None:
        resp.set_header("Retry-After", str(error.retry_after))
    resp.stream = None
    accept = req.get_header("Accept") or ""
    if "application/json" in accept:
        resp.content_type = "application/json"
        resp.data = msgspec.json.encode(
            {
                "message": f"{html.escape(str(error))}<br /><br />\n\n\n",
                "code": f"{status} {reason}",
                "title": reason,
            }
        )
    elif "text/html" in accept or "*/*" in accept:
        resp.content_type = "text/html; charset=UTF-8"
        title = f"{status} {reason}"
        resp.data = (
            f"<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n"
            f"  <h1>{title}</h1>\n  {html.escape(str(error))}<br /><br />\n </body>\n</html>\n"
        ).encode()
    else:
        resp.content_type = "text/plain; charset=UTF-8"
        resp.data = f"{status} {reason}\n\n{error}\n\n   ".encode()


def _reason(status: int) -> str:
    if status == _NGINX_CLIENT_GONE:
        return "Client Closed Request"
    return HTTPStatus(status).phrase
