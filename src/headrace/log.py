"""Logging: one line per event on stderr, with the id of the request it belongs to."""

import logging
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


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in secrets.get():
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text


def configure(debug: bool = False) -> None:
    """Send Headrace's log to stderr, at DEBUG when ``debug``; of libraries, what is worse."""
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
    logging.getLogger("oslo_utils").addHandler(logging.NullHandler())


def tell(statements: Iterable[str]) -> None:
    """Log a warning each of what the settings ask for and will not have."""
    for statement in statements:
        logging.getLogger("headrace.config").warning("%s", statement)
