"""Who did what to which image, when, from where and with what result: one line of JSON each.

The names are those of the DMTF's Cloud Auditing Data Federation (CADF, DSP0262).  A line is made of
a request's method, route, path, caller and status, and of nothing else: no header but the agent's
name, no query, no body, so none of the secrets that those may hold.
"""

import json
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import falcon

from headrace import errors, log
from headrace.api import auth, delivery
from headrace.api.offload import is_question
from headrace.model import Image
from headrace.service.context import Context

_log = logging.getLogger(__name__)

STREAM = "-"
"""In place of a path: the standard error stream, where the log goes."""

_IMAGE = "service/storage/image"
_USER = "service/security/account/user"
_UNKNOWN = "unknown"  # CADF's word for what nobody knows

_DOWNLOAD = "read/download"
_FILE = "/v2/images/{image_id}/file"
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED = frozenset({401, 403, 429})
_LONGEST_PATH, _LONGEST_AGENT, _LONGEST_ID = 512, 128, 255  # characters

_VERBS = {
    "GET": "read",
    "HEAD": "read",
    "POST": "create",
    "PUT": "update",
    "PATCH": "update",
    "DELETE": "delete",
}
_ACTIONS = {
    ("GET", "/v2/images"): "read/list",
    ("GET", _FILE): _DOWNLOAD,
    ("PUT", _FILE): "update/upload",
    ("PUT", "/v2/images/{image_id}/stage"): "update/stage",
    ("POST", "/v2/images/{image_id}/import"): "update/import",
    ("POST", "/v2/images/{image_id}/actions/deactivate"): "disable",
    ("POST", "/v2/images/{image_id}/actions/reactivate"): "enable",
    ("DELETE", "/v2/stores/{store_id}/{image_id}"): "delete/copy",
}
# What belongs to an image, behind its id.
_PARTS = {"members": "member", "tags": "tag", "locations": "location", "tasks": "task"}
# What is no image, by the first segment of its path.
_KINDS = {"tasks": f"{_IMAGE}/task", "metadefs": f"{_IMAGE}/metadef"}

Event = dict[str, Any]
Observed = Callable[[Image, str], AbstractContextManager[Any]]
"""image, method: told of an import while it goes on."""


class Counter(Protocol):
    """What counts."""

    def inc(self) -> None: ...


class Audit:
    """Writes events to the file ``path``, or to the log's stream; the application's middleware.

    Changes, downloads and refusals are written, lists and shows only with ``reads``.  Safe to use
    from many threads and processes, and after a fork: every event opens the file, so that one that
    was moved away is followed by a new one, and is one write at its end.  Raises ConfigurationError
    when the file cannot be opened.
    """

    def __init__(self, path: str, lost: Counter, *, reads: bool = False) -> None:
        self._path = path
        self._lost = lost
        self._reads = reads
        self._failing = False
        self._broken = False
        self._observer = {"typeURI": _IMAGE, "id": socket.gethostname(), "name": "headrace"}
        if path != STREAM:
            try:
                os.close(self._open())
            except OSError as error:
                raise errors.ConfigurationError(
                    reason=f"audit_log {path}: {error.strerror}"
                ) from error

    def process_resource(
        self, req: falcon.Request, _resp: falcon.Response, _resource: object, params: dict[str, Any]
    ) -> None:
        req.context.named = dict(params)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: bool
    ) -> None:
        if not self._is_wanted(req, resp.status_code):
            return
        event = self._of_request(req, resp)
        extent = req.env.get(delivery.EXTENT)
        sent_by_us = resp.stream is not None and resp.status_code in (200, 206)
        if event["action"] == _DOWNLOAD and sent_by_us and extent is not None:
            event["outcome"] = "pending"
            extent.on_close(lambda sent, ok: self._end(event, sent, ok))
        self._write(event)

    def job(self, observe: Observed) -> Observed:
        """``observe``, and an event at the end of every import."""

        @contextmanager
        def observed(image: Image, method: str) -> Iterator[Any]:
            ok = False
            try:
                with observe(image, method) as job:
                    yield job
                ok = True
            finally:
                self.note("update/import", image.id, ok=ok)

        return observed

    def note(self, action: str, image_id: str, *, ok: bool = True) -> None:
        """Write what the service did to an image by itself."""
        event = self._event(action, "success" if ok else "failure")
        event["initiator"] = self._observer
        event["target"] = {"typeURI": _IMAGE, "id": image_id}
        self._write(event)

    def _is_wanted(self, req: falcon.Request, status: int) -> bool:
        route = req.uri_template
        if status in _REFUSED:
            return True
        if route is None:
            return False  # nothing is there, whoever asks
        if req.method not in _READS or route == _FILE:
            return True
        if status == 404:  # which may be what he may not see
            return bool(_named(req))
        return self._reads and route.startswith("/v2/")

    def _of_request(self, req: falcon.Request, resp: falcon.Response) -> Event:
        status = resp.status_code
        if status >= 400:
            outcome = "failure"
        elif status == 202 or is_question(req.env):
            outcome = "pending"
        else:
            outcome = "success"
        reason = {"reasonType": "HTTP", "reasonCode": str(status)}
        if code := resp.get_header("X-Headrace-Error"):
            reason["error"] = code
        return {
            **self._event(_action(req), outcome),
            "reason": reason,
            "initiator": _initiator(req),
            "target": _target(req, resp),
            "requestPath": _said(req.path, _LONGEST_PATH),
            "requestId": log.request_id.get(),
        }

    def _event(self, action: str, outcome: str) -> Event:
        return {
            "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
            "eventType": "activity",
            "id": str(uuid.uuid4()),
            "eventTime": _now(),
            "action": action,
            "outcome": outcome,
            "observer": self._observer,
        }

    def _end(self, begun: Event, sent: int, ok: bool | None) -> None:
        """Write how a download ended that began with an event; of what a host sends nobody says."""
        outcome = {True: "success", False: "failure", None: _UNKNOWN}[ok]
        event = begun | {"id": str(uuid.uuid4()), "eventTime": _now(), "outcome": outcome}
        if ok is not None:
            event["bytes"] = sent
        self._write(event)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        # A pipe that nobody reads may not stop the service.
        return os.open(self._path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o640)

    def _write(self, event: Event) -> None:
        """Append one line.  A full disk stops nothing: it is counted, and told of once."""
        line = json.dumps(event).encode() + b"\n"  # in ASCII: no character ends a line
        if self._broken:
            line = b"\n" + line  # behind what a full disk took of the last one
        try:
            whole = self._append(line)
        except OSError as error:
            self._lose(error.strerror)
            return
        self._broken = not whole
        if not whole:
            self._lose("a line was cut short")
        elif self._failing:
            self._failing = False
            _log.warning("events are written to the audit log again")

    def _append(self, line: bytes) -> bool:
        if self._path == STREAM:
            return os.write(2, line) == len(line)
        fd = self._open()
        try:
            return os.write(fd, line) == len(line)
        finally:
            os.close(fd)

    def _lose(self, reason: str | None) -> None:
        self._lost.inc()
        if not self._failing:
            self._failing = True
            _log.error("events are missing in the audit log from now on: %s", reason)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _named(req: falcon.Request) -> Mapping[str, str]:
    """What the path names, by the route's words; nothing when no route was looked for."""
    named: Mapping[str, str] = getattr(req.context, "named", {})
    return named


def _action(req: falcon.Request) -> str:
    route = req.uri_template or ""
    if (action := _ACTIONS.get((req.method, route))) is not None:
        return action
    verb = _VERBS.get(req.method, _UNKNOWN)
    segments = route.split("/")  # "", "v2", "images", "{image_id}", what of it
    part = _PARTS.get(segments[4]) if len(segments) > 4 else None
    return f"{verb}/{part}" if part else verb


def _initiator(req: falcon.Request) -> Event:
    caller: Context = getattr(req.context, "caller", auth.NOBODY)
    host = {"address": _said(auth.address(req.env), _LONGEST_ID)}
    if req.user_agent:
        host["agent"] = _said(req.user_agent, _LONGEST_AGENT)
    found = {"typeURI": _USER, "id": _said(caller.user_id or _UNKNOWN, _LONGEST_ID), "host": host}
    if caller.project_id is not None:
        found["project_id"] = _said(caller.project_id, _LONGEST_ID)
    return found


def _target(req: falcon.Request, resp: falcon.Response) -> Event:
    named = _named(req)
    segments = (req.uri_template or "").split("/")
    kind = _KINDS.get(segments[2], _IMAGE) if len(segments) > 2 else _IMAGE
    target_id = named.get("image_id") or next(iter(named.values()), None)
    if target_id is None and resp.status_code == 201:  # what was made has its address there
        target_id = (resp.get_header("Location") or "").rpartition("/")[2]
    return {"typeURI": kind, "id": _said(target_id or _UNKNOWN, _LONGEST_ID)}


def _said(text: str, limit: int) -> str:
    """What a caller chose, as it may be told: he may take a secret for a name."""
    text = log.masked(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
