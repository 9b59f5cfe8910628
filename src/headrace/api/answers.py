"""From an error to an HTTP answer: body by ``Accept``, code in ``X-Headrace-Error``."""

import html
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import falcon
import msgspec
from prometheus_client import Counter

from headrace.api.gate import METHODS
from headrace.api.offload import is_question
from headrace.errors import Error, Forbidden, NotYetSupported, Unauthenticated, from_answer

_log = logging.getLogger(__name__)

ErrorHandler = Callable[..., None]
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


def error_handlers(count: Counter) -> dict[type[Exception], ErrorHandler]:
    """Who answers what was raised; each answer is counted by its code."""

    def refuse(req: falcon.Request, resp: falcon.Response, error: Error) -> None:
        count.labels(error.code).inc()
        answer(req, resp, error)

    def answer_error(
        req: falcon.Request, resp: falcon.Response, error: Error, _: dict[str, Any]
    ) -> None:
        if error.status == 500:
            _log.error("%s %r: %s", req.method, req.path, error)
        refuse(req, resp, error)

    def answer_falcon_error(
        req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _: dict[str, Any]
    ) -> None:
        """What the framework refuses by itself: unknown paths, wrong methods, bad framing."""
        if isinstance(error, falcon.HTTPRouteNotFound) and req.method not in METHODS:
            refuse(req, resp, NotYetSupported(feature="this method"))
            return
        for name, value in dict(error.headers or {}).items():
            resp.set_header(name, value)
        # The title has the number, too.
        detail = error.description or str(error.title).partition(" ")[2]
        refuse(req, resp, from_answer(None, error.status_code, detail))

    def answer_crash(
        req: falcon.Request, resp: falcon.Response, error: Exception, _: dict[str, Any]
    ) -> None:
        _log.exception("%s %r failed", req.method, req.path, exc_info=error)
        refuse(req, resp, Error())

    return {
        Error: answer_error,
        falcon.HTTPError: answer_falcon_error,
        Exception: answer_crash,
    }
