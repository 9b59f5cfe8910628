"""Callers who show a name and a password: HTTP's basic authentication (RFC 7617).

A browser shows them of its own accord, to whatever page has it send a request.  So a request that
another site's page has made is refused, unless the operator has named that site.
"""

import binascii

from headrace import errors
from headrace.api import auth
from headrace.service.context import Context
from headrace.service.logins import Logins

_CHALLENGE = 'Basic realm="headrace", charset="UTF-8"'
_LONGEST = 1024  # characters of base64: a name and a password have far fewer


class Basic:
    """Finds the caller of a request by the header ``Authorization``.

    Pages of ``origins`` may use the service.
    """

    def __init__(self, logins: Logins, origins: frozenset[str] = frozenset()) -> None:
        self._logins = logins
        self._origins = origins

    def __call__(self, environ: auth.Environ) -> Context:
        """Raises Unauthenticated, Forbidden, and what ``Logins.caller`` raises."""
        if environ["PATH_INFO"] in auth.OPEN:
            return auth.NOBODY
        login = _login(environ.get("HTTP_AUTHORIZATION", ""))
        if login is None:
            raise errors.Unauthenticated(challenge=_CHALLENGE)
        origin = environ.get("HTTP_ORIGIN")
        if not (origin is None or origin in self._origins or _is_own(origin, environ)):
            raise errors.Forbidden(reason="the request came from a web page of another site")
        caller = self._logins.caller(login, auth.address(environ))
        if caller is None:
            raise errors.Unauthenticated(challenge=_CHALLENGE)
        return caller


def _login(header: str) -> bytes | None:
    """``NAME:PASSWORD`` as it was sent; None if the header holds no such thing."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic" or len(text) > _LONGEST:
        return None
    try:
        login = binascii.a2b_base64(text.strip(" "), strict_mode=True)
    except ValueError:
        return None
    return login if b":" in login else None


def _is_own(origin: str, environ: auth.Environ) -> bool:
    """Whether a page is of this service: by host and port, since TLS may end in front of it."""
    return origin.partition("://")[2] == environ.get("HTTP_HOST")
