"""Logging: one line per event on stderr, with the id of the request it belongs to."""

import logging
import re
import sys
from collections.abc import Iterable
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")


secrets: ContextVar[tuple[str, ...]] = ContextVar("secrets", default=())
"""What the caller of the request has shown, and no line of the log may."""

SHORTEST_SECRET = 16
"""Characters; what is shorter is no token, and would have its letters taken out of every line."""

# Libraries whose warnings matter to an operator, and whose debugging may repeat what was sent.
_LIBRARIES = (
    "keystoneauth", "keystoneclient", "keystonemiddleware", "openstack", "oslo_cache", "oslo_limit",
    "urllib3",
)  # fmt: skip


# Secrets have no place in a message.  Where a library's error or a traceback quotes one all the
# same, it ends here; of an address, what a log needs is neither its credentials nor its query.  In
# a request's path an address has one slash, since several are taken for one.
_ADDRESS = re.compile(r":(/+)[^\s'\"]*")
_HEADER = re.compile(
    r"((?:x-auth-token|x-service-token|x-subject-token|(?:proxy-)?authorization|(?:set-)?cookie)"
    r"['\"]?\s*[:=,]\s*)[^\r\n]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """``text`` without what the caller has shown, the credentials and queries of URLs, and the
    values of secret headers."""
    for secret in secrets.get():
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    if ":/" in text:
        text = _ADDRESS.sub(_bare, text)
    return _HEADER.sub(r"\1***", text)


def _bare(found: re.Match[str]) -> str:
    address, asked, _ = found[0].partition("?")
    start = f":{found[1]}"
    host, slash, path = address.removeprefix(start).partition("/")
    _, at, host = host.rpartition("@")
    return f"{start}{'***@' if at else ''}{host}{slash}{path}{'?***' if asked else ''}"


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


def configure(debug: bool = False) -> None:
    """Send Headrace's log to stderr, at DEBUG when ``debug``; of libraries, what is worse.

    No secret is in it, see ``masked``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RequestIdFilter())
    handler.setFormatter(
        _Formatter("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s")
    )
    logger = logging.getLogger("headrace")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers[:] = [handler]
        library.setLevel(logging.DEBUG if debug else logging.WARNING)
        library.propagate = False
    # It also logs the failed safety checks that it raises, which our own errors tell of.
    logging.getLogger("oslo_utils").propagate = False
    logging.getLogger("oslo_utils").addHandler(logging.NullHandler())
    root = logging.getLogger()
    if not root.handlers:  # or Python would write what others warn of as it is
        root.addHandler(handler)


def tell(statements: Iterable[str]) -> None:
    """Log a warning each of what the settings ask for and will not have."""
    for statement in statements:
        logging.getLogger("headrace.config").warning("%s", statement)
