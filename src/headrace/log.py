"""Logging: one line per event on stderr, with the id of the request it belongs to."""

import logging
import sys
from collections.abc import Iterable
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


def configure(debug: bool = False) -> None:
    """Send Headrace's own log to stderr; at DEBUG when ``debug``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RequestIdFilter())
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s")
    )
    logger = logging.getLogger("headrace")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False
    # It also logs the failed safety checks that it raises, which our own errors tell of.
    logging.getLogger("oslo_utils").addHandler(logging.NullHandler())


def tell(statements: Iterable[str]) -> None:
    """Log a warning each of what the settings ask for and will not have."""
    for statement in statements:
        logging.getLogger("headrace.config").warning("%s", statement)
