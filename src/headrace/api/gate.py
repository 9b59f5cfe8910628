"""What every request passes: the application that hosts call, and the gate before its handlers."""

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

import falcon
from prometheus_client import Histogram

from headrace import errors, log
from headrace.api import auth, delivery, versions
from headrace.api.cors import Cors
from headrace.api.monitoring import FOR_METRICS, Monitoring
from headrace.api.policy import Policies
from headrace.db import engine as db
from headrace.service.housekeeping import Housekeeping

StartResponse = Callable[..., Any]
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]+")


class Behind(Protocol):
    """What goes on behind answers, in this process."""

    def active(self) -> Collection[object]:
        """What goes on, or waits."""
        ...

    def stop(self) -> None:
        """Give that up, soon."""
        ...


class Application:
    """The WSGI application; its housekeeping runs once in every process that serves requests."""

    def __init__(
        self,
        app: falcon.App[falcon.Request, falcon.Response],
        database: db.Database,
        jobs: Sequence[Behind],
        housekeeping: Callable[[], Housekeeping],
        monitoring: Monitoring,
        known_versions: frozenset[str],
        policies: Policies,
    ) -> None:
        self._app = app
        self._versions = known_versions
        self.policies = policies
        self._monitoring = monitoring
        self.metrics = monitoring.metrics
        self._database = database
        self._jobs = jobs
        self._new_housekeeping = housekeeping
        self._housekeeping: Housekeeping | None = None
        self._started_in = 0
        self._starting = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if self._started_in != os.getpid():
            self.start()
        if FOR_METRICS in environ:
            return self._monitoring.app(environ, start_response)
        path = environ["PATH_INFO"]
        wanted = environ.get("HTTP_ACCEPT", "")
        if not path.startswith("/v2/") or "//" in path or versions.MEDIA_TYPE in wanted:
            versions.resolve(environ, self._versions)  # hardly any request
        method = environ["REQUEST_METHOD"]
        if method not in METHODS and method != "OPTIONS":
            # The framework answers 400 to a method that it does not know.  This one it knows, and
            # no resource has it.
            environ["REQUEST_METHOD"] = "TRACE"
        body: Iterable[bytes] | None = None
        try:
            body = self._app(environ, start_response)
            return body
        finally:
            # An Extent that did not become the body (an error after the handler, HEAD, 304) is
            # dropped by the framework without being closed; what it returns then is a list.
            extent = environ.get(delivery.EXTENT)
            if extent is not None and (body is None or isinstance(body, list)):
                extent.close()

    def start(self) -> None:
        """Begin to serve in this process; hosts that fork after loading call it in the child."""
        with self._starting:
            if self._started_in != os.getpid():
                self._housekeeping = self._new_housekeeping()
                self._housekeeping.start()
                self._monitoring.start()
                self.policies.start()
                self._started_in = os.getpid()

    def jobs(self) -> int:
        """How much goes on, or waits, behind answers in this process."""
        return sum(len(each.active()) for each in self._jobs)

    def stop_jobs(self) -> None:
        """Give that up; it is undone soon."""
        for each in self._jobs:
            each.stop()

    def close(self) -> None:
        """Stop the housekeeping and give up the database's connections."""
        if self._housekeeping is not None:
            self._housekeeping.close()
            self._monitoring.close()
        self.policies.close()
        self._database.close()


class Gate:
    """What every request passes on its way in and out: its id, its caller, its time."""

    def __init__(
        self,
        authenticate: auth.Authenticate,
        policies: Policies,
        cors: Cors | None,
        longest_id: int,
        requests: Histogram,
    ) -> None:
        self._authenticate = authenticate
        self._policies = policies
        self._cors = cors
        self._longest_id = longest_id
        self._requests = requests

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.began = time.perf_counter()
        _identify(resp, f"req-{uuid.uuid4()}")  # so the refusal of the caller's own has one, too
        if self._cors is not None and self._cors.answer(req, resp):
            return
        if (given := req.get_header("X-Openstack-Request-Id")) is not None:
            _identify(resp, self._checked(given))
        path = req.env["PATH_INFO"]
        if not path.isascii() or "\0" in path:
            _check_path(path)
        caller = self._authenticate(req.env)
        req.context.caller = (
            caller if self._policies.rules is None else self._policies.judged(caller)
        )

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: bool
    ) -> None:
        labels = req.method, req.uri_template or "none", resp.status_code
        self._requests.labels(*labels).observe(time.perf_counter() - req.context.began)

    def _checked(self, given: str) -> str:
        if len(given) > self._longest_id:
            raise errors.HeaderTooLarge(name="X-Openstack-Request-Id", limit=self._longest_id)
        if not _REQUEST_ID.fullmatch(given):
            raise errors.BadRequest(reason="X-Openstack-Request-Id has characters beyond a name's")
        return given if given.startswith("req-") else f"req-{given}"


def _check_path(path: str) -> None:
    """Refuse NUL, which is in no name, and bytes that are no text.

    The framework would put others in their place.
    """
    try:
        path.encode("latin-1").decode()  # PEP 3333: a character for each byte
    except UnicodeError:
        raise errors.BadRequest(reason="the path is not UTF-8") from None
    if "\0" in path:
        raise errors.BadRequest(reason="the path holds a NUL character")


def _identify(resp: falcon.Response, request_id: str) -> None:
    log.request_id.set(request_id)
    resp.set_header("x-openstack-request-id", request_id)
