"""``application`` for foreign hosts: uWSGI, mod_wsgi, gunicorn.

Configured by the environment: HEADRACE_CONFIG names configuration files, separated by colons; each
option can also be set as ``OS_<GROUP>__<OPTION>``.
"""

import os
import threading
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from headrace import config
from headrace.api import app

_building = threading.Lock()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application, built at the first request: after the host has forked."""
    with _building:
        built = _build()
    return built(environ, start_response)


@cache
def _build() -> app.Application:
    files = [name for name in os.environ.get("HEADRACE_CONFIG", "").split(":") if name]
    return app.build(config.load(files))
