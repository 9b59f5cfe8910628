"""``application`` for foreign hosts: uWSGI, mod_wsgi, gunicorn.

Configured by the environment: HEADRACE_CONFIG names configuration files, separated by colons; each
option can also be set as ``OS_<GROUP>__<OPTION>``.  Where a host sets such variables for requests
only (``SetEnv`` of Apache), those of the first request count.  Under uWSGI they may also be options
of its own file, since its ``env`` comes too late where Python was there first (pyuwsgi).

A process that its host ends lets imports go on for a time, where the host says so before Python
ends, when no thread can be started any more: uWSGI by its own hook, gunicorn by one in our recipe.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

from headrace import config, errors, foreign, log
from headrace.api import app
from headrace.api.auth import is_loopback
from headrace.api.gate import Application
from headrace.server import exposure

DRAIN, UNDO = 45.0, 5.0
"""Seconds for which imports go on, and for which those are undone that have not ended: together
less than a minute, after which our recipes have uWSGI kill its workers, and gunicorn those that it
replaces.  Apache, which kills its children after three seconds, has them undone at once."""

_log = logging.getLogger(__name__)
_building = threading.Lock()
_built: Application | None = None


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application, built at the first request: after the host has forked."""
    try:
        built = _built or _build(environ)
    except errors.Error as error:
        _log.critical("cannot serve: %s", error)
        said = b"The service cannot start; its log says why.\n"
        start_response("503 Service Unavailable", [("Content-Length", str(len(said)))])
        return [said]
    return built(environ, start_response)


def _build(environ: dict[str, Any]) -> Application:
    global _built
    with _building:
        if _built is None:
            for name, value in _given_by_host(environ):
                os.environ.setdefault(name, value)
            files = [name for name in os.environ.get("HEADRACE_CONFIG", "").split(":") if name]
            conf = config.load(files)
            log.configure(conf.debug)
            log.tell(foreign.settings(conf))
            strategy, anybody = conf.headrace.auth_strategy, conf.headrace.unauthenticated_ok
            log.tell(exposure.statements(strategy, anybody, _is_in_clear(environ)))
            _check_host(environ)
            _built = app.build(conf)
            atexit.register(end, 0.0)
            if "uwsgi.version" in environ:
                host: Any = import_module("uwsgi")
                host.atexit = end
        return _built


def end(drain: float = DRAIN) -> None:
    """Let the imports of this process end for ``drain`` seconds, and undo what has not by then."""
    if _built is None:
        return
    if jobs := _built.jobs():
        _log.info("stopping: %d imports and fills go on", jobs)
        _wait(_built, drain)
    if jobs := _built.jobs():
        _log.warning("stopping: gave %d imports and fills up", jobs)
    _built.stop_jobs()
    _wait(_built, UNDO)


def _wait(built: Application, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while built.jobs() and time.monotonic() < deadline:
        time.sleep(0.05)


def _given_by_host(environ: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings that a host was told of and that may not be in the process's environment."""
    for name, value in environ.items():
        if _is_setting(name) and isinstance(value, str):
            # PEP 3333 has strings as latin-1, whatever they are.
            yield name, os.fsdecode(value.encode("latin-1"))
    if "uwsgi.version" in environ:
        for name, value in import_module("uwsgi").opt.items():
            if _is_setting(name) and isinstance(value, bytes):
                yield name, os.fsdecode(value)


def _is_setting(name: str) -> bool:
    return name == "HEADRACE_CONFIG" or name.startswith("OS_")


def _is_in_clear(environ: dict[str, Any]) -> bool:
    """Whether a request came from another machine without TLS: so far as the first one tells."""
    peer = environ.get("REMOTE_ADDR", "")
    return bool(peer) and not is_loopback(peer) and environ.get("wsgi.url_scheme") == "http"


def _check_host(environ: dict[str, Any]) -> None:
    """Warn of a host whose settings stop part of us."""
    if "uwsgi.version" in environ:
        options = import_module("uwsgi").opt
        if not {"enable-threads", "threads"} & set(options):
            _log.warning("uWSGI runs without enable-threads: nothing works between requests")
