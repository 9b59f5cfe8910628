"""Who is asking: from a request's environment to a Context, in the way of each ``auth_strategy``.

Without authentication (``auth_strategy = none``) everybody is an administrator, so only this
machine may ask: the peer and the ``Host`` must be loopback, and nothing may show that the request
was passed on by a proxy or sent by a web page through the user's browser.  A proxy on this machine
that leaves no trace cannot be told from a local client.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from headrace import errors
from headrace.model import Viewer
from headrace.service.context import Context

Environ = dict[str, Any]
Authenticate = Callable[[Environ], Context]

NOBODY = Context()
OPEN = frozenset({"/", "/versions", "/healthcheck", "/metrics", "/metrics/transfers"})
"""Paths whose callers need not say who they are; those of the metrics have a rule of their own."""

_EVERYBODY = Context(Viewer(is_admin=True), frozenset({"admin", "member", "reader"}))
_PASSED_ON = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_CLIENT_IP")


def everybody(environ: Environ) -> Context:
    """Anybody from anywhere is an administrator (``unauthenticated_ok``)."""
    return _EVERYBODY


def this_machine(environ: Environ, origins: frozenset[str] = frozenset()) -> Context:
    """Anybody on this machine is an administrator; RemoteWithoutAuth for all others.

    Pages of ``origins`` act for whoever has them in his browser, on this machine.
    """
    if (reason := strangeness(environ, origins)) is not None:
        raise errors.RemoteWithoutAuth(reason=reason)
    return _EVERYBODY


def strangeness(environ: Environ, origins: frozenset[str] = frozenset()) -> str | None:
    """Why a request may not have been made by a program of this machine, if so.

    Pages of ``origins`` are as good as its programs.
    """
    if not is_loopback(environ.get("REMOTE_ADDR", "")):
        return "the peer is another machine"
    host = environ.get("HTTP_HOST", "")
    if not is_loopback(_host_name(host)):
        return "the Host is not a loopback name"
    for key in environ:
        if key in _PASSED_ON or key.startswith("HTTP_X_FORWARDED_"):
            return "the request came through a proxy"
    origin = environ.get("HTTP_ORIGIN")
    own = f"{environ['wsgi.url_scheme']}://{host}"
    if origin is not None and origin != own and origin not in origins:
        return "the request came from a web page"
    return None


def address(environ: Environ) -> str:
    """Where a request comes from: the peer, or the client of a server in front, on the Unix socket
    where only that one comes from.

    What it added is the last; what stands before that is the client's own word.
    """
    forwarded = str(environ.get("HTTP_X_FORWARDED_FOR", ""))
    return environ.get("REMOTE_ADDR") or forwarded.rpartition(",")[2].strip()


def _host_name(host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        # RFC 9110 section 7.2: a name and a port, nothing else of a URL.
        return (parts.netloc == host and parts.username is None and parts.hostname) or ""
    except ValueError:
        return ""


@lru_cache(maxsize=64)  # asked twice of every request
def is_loopback(name: str) -> bool:
    """Whether ``name`` is this machine alone; a name other than localhost may be anything."""
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
