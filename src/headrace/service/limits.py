"""What Keystone says that projects may have: its unified limits, by oslo.limit.

Only the numbers are Keystone's.  What is used, and that nobody comes to have more, is
service.quota's: oslo.limit counts beside what it allows, so that many at once pass its limits.

oslo.limit reads its settings from oslo.config's global object and nowhere else; it is used here
alone.  One process has one Keystone for its limits.
"""

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException
from oslo_config import cfg
from oslo_limit import exception, limit, opts

from headrace import errors
from headrace.db.quotas import Limits
from headrace.model import MIB, Resource

MOST_KNOWN = 4096
"""Projects whose limits are known at a time."""

PATIENCE = 2.0
"""Seconds for which threads beyond those wait: the answer may be what they want to ask, too."""

_UNITS = {Resource.SIZE: MIB, Resource.STAGE: MIB, Resource.COUNT: 1, Resource.UPLOADING: 1}
_GROUP = "oslo_limit"

# What oslo.limit lets through: no endpoint of that kind is a ValueError, what it takes for the
# answer of a Keystone that refuses it has no such key, and one of its models is not there at all.
_FAILURES = (
    ClientException, SDKException, exception.SessionInitError, ValueError, LookupError,
    NotImplementedError,
)  # fmt: skip

_log = logging.getLogger(__name__)


class KeystoneLimits:
    """Limits by project, each kept for ``kept`` seconds, of the last ``known`` projects.

    ``options`` are those of [oslo_limit].  At most ``waiting`` threads wait for Keystone, whatever
    becomes of it.  Nothing is asked before the first project: a process may fork until then, and
    Keystone may be away.
    """

    def __init__(
        self, options: Mapping[str, object], *, kept: float, waiting: int, known: int = MOST_KNOWN
    ) -> None:
        cfg.CONF.set_override("auth_type", options["auth_type"], group=_GROUP)
        opts.register_opts(cfg.CONF)  # what that auth_type takes
        for name, value in options.items():
            cfg.CONF.set_override(name, value, group=_GROUP)
        self._kept = kept
        self._waiting = threading.BoundedSemaphore(waiting)
        self._most = known
        self._known: dict[str, tuple[Limits, float]] = {}
        self._asked: dict[str, Future[Limits]] = {}
        self._lock = threading.Lock()
        self._enforcer: limit.Enforcer | None = None

    def of(self, owner: str | None) -> Limits:
        """What is limited for a project: bytes, images.  Raises LimitsUnavailable."""
        project = owner or ""
        found = self._get(project)
        if found is not None:
            return found
        if not self._waiting.acquire(timeout=PATIENCE):
            raise errors.LimitsUnavailable()
        try:
            return self._find(project)
        finally:
            self._waiting.release()

    def _get(self, project: str) -> Limits | None:
        limits, until = self._known.get(project, (None, 0.0))
        return limits if time.monotonic() < until else None

    def _find(self, project: str) -> Limits:
        """Ask, or wait for what is asked already."""
        with self._lock:
            found = self._get(project)  # while this thread waited
            if found is not None:
                return found
            asked = self._asked.get(project)
            if asked is None:
                answer = self._asked[project] = Future[Limits]()
        if asked is not None:
            return asked.result()
        try:
            limits = self._ask(project)
            answer.set_result(limits)
        except BaseException as error:
            answer.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._asked[project]
        return limits

    def _ask(self, project: str) -> Limits:
        until = time.monotonic() + self._kept
        try:
            numbers = self._numbers(project)
        except _FAILURES as error:
            _log.error("Keystone cannot be asked for limits: %s: %s", type(error).__name__, error)
            raise errors.LimitsUnavailable() from error
        # As in Glance, what is not registered is not to be had; a negative number is any.
        found = {each: numbers.get(each, 0) for each in Resource}
        limits = {each: most * _UNITS[each] for each, most in found.items() if most >= 0}
        with self._lock:
            self._known.pop(project, None)
            if len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[project] = limits, until
        return limits

    def _numbers(self, project: str) -> dict[str, int]:
        """What is registered for all projects, and for this one instead."""
        enforcer = self._enforcer
        if enforcer is None:
            # oslo.limit's own memory of limits lasts for ever.
            enforcer = self._enforcer = limit.Enforcer(_usage, cache=False)
        numbers = dict(enforcer.get_registered_limits(None))  # type: ignore[arg-type] # all of them
        if project:
            numbers |= enforcer.get_project_limits(project, None)  # type: ignore[arg-type] # too
        return numbers


def _usage(_project: object, _resources: object) -> dict[str, int]:
    """What oslo.limit wants for an enforcement that is never asked of it."""
    raise NotImplementedError
