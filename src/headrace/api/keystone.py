"""Callers who show a token: Keystone says whose it is.

keystonemiddleware does the asking.  It is given an environment of its own, with the tokens in it
and nothing else that the caller sent: no header of his can pass for Keystone's word, and no body
comes near it.  A caller once found is known for as long as Keystone's answers may be kept, in this
process.  Who he was at the start of a request counts for all of it, however long it takes.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from keystoneauth1.access import AccessInfoV3
from keystoneauth1.exceptions import ClientException

from headrace import errors, log
from headrace.api import auth
from headrace.api.offload import is_arrival
from headrace.model import Viewer
from headrace.service.context import Context

Wsgi = Callable[[auth.Environ, Callable[..., Any]], Iterable[bytes]]

MOST_KNOWN = 4096
"""Callers that are known at a time, each with a catalog of some KiB."""

BESIDE_MEMCACHED = 5
"""Seconds for which a caller is known without a question to memcached, which costs as much again as
the request: as many more than Keystone's answers may be kept."""

CACHE = "headrace.no_cache"
"""Where the middleware finds what it takes for a cache; its own in a process has no bounds."""

_TOKEN = re.compile(r"[A-Za-z0-9+/=._~-]+")  # RFC 6750's characters: those of every kind of token
_ANSWERED = 204
_ADMIN = "admin"

_log = logging.getLogger(__name__)


class Keystone:
    """Finds the caller of a request by its ``X-Auth-Token``, and a service by ``X-Service-Token``.

    ``middleware`` is keystonemiddleware's in front of ``confirmed``; ``kept`` is for how many
    seconds what it says is good.  ``where`` is told to who must get a token first.  ``questions``
    are asked at a time; the other threads go on with those who are known, ``known`` at most.
    ``own`` gets the service's own token.  With ``anonymous`` who has no token is nobody, instead of
    being refused.
    """

    def __init__(
        self,
        middleware: Wsgi,
        where: str,
        own: Callable[[], str | None],
        *,
        kept: float,
        questions: int,
        known: int = MOST_KNOWN,
        anonymous: bool = False,
    ) -> None:
        self._middleware = middleware
        self._challenge = f'Keystone uri="{where}"'
        self._own = own
        self._kept = kept
        self._anonymous = anonymous
        self._known = _Known(known)
        self._most_questions = questions
        self._questions = threading.BoundedSemaphore(questions)

    def __call__(self, environ: auth.Environ) -> Context:
        """Raises Unauthenticated, WrongScope, KeystoneUnavailable and KeystoneBusy."""
        if environ["PATH_INFO"] in auth.OPEN:
            return auth.NOBODY
        token = environ.get("HTTP_X_AUTH_TOKEN") or environ.get("HTTP_X_STORAGE_TOKEN") or ""
        service_token = environ.get("HTTP_X_SERVICE_TOKEN", "")
        log.secrets.set((token, service_token))
        caller = self._known.get((token, service_token))
        if caller is None:
            caller = self._find(environ, token, service_token)
        if caller is None and is_arrival(environ):
            caller = self._find_expired(environ, token)
        if caller is not None:
            return caller
        if self._anonymous:
            return auth.NOBODY
        raise errors.Unauthenticated(challenge=self._challenge)

    def _find(self, environ: auth.Environ, token: str, service_token: str) -> Context | None:
        """Ask; None when the token is nobody's."""
        if not _TOKEN.fullmatch(token):
            return None
        if not self._questions.acquire(blocking=False):
            raise errors.KeystoneBusy(limit=self._most_questions)
        try:
            said = None
            if _TOKEN.fullmatch(service_token):
                said = self._ask(environ, token, service_token)
            if said is None:  # a service's token that is no good counts as none
                said = self._ask(environ, token, None)
        finally:
            self._questions.release()
        if said is None:
            return None
        user: AccessInfoV3 = said["keystone.token_auth"].user
        service: AccessInfoV3 | None = said["keystone.token_auth"].service
        caller = _caller(user, service, token, said.get("HTTP_X_SERVICE_CATALOG"))
        # What depends on more than the tokens is looked at every time: the paths that an
        # application credential is for, and whom of Kerberos a token is bound to.
        if user.application_credential_access_rules is None and not user.bind:
            seconds = min(self._kept, life(user, service))
            self._known.add((token, service_token), caller, seconds)
        return caller

    def _find_expired(self, environ: auth.Environ, token: str) -> Context | None:
        """Whose a token was before the body came, when nginx asked: it may have expired since."""
        try:
            own = self._own() or ""
        except ClientException as error:
            raise _unavailable(error) from error
        caller = self._find(environ, token, own)
        return caller and replace(caller, service_roles=frozenset())

    def _ask(
        self, environ: auth.Environ, token: str, service_token: str | None
    ) -> auth.Environ | None:
        """What the middleware makes of the tokens; None when it refuses one of them."""
        asked: auth.Environ = {
            "REQUEST_METHOD": environ["REQUEST_METHOD"],
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", ""),
            "PATH_INFO": environ["PATH_INFO"],
            "SERVER_NAME": "",
            "SERVER_PORT": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "HTTP_X_AUTH_TOKEN": token,
            CACHE: _Forgetful(),
        }
        asked |= {name: environ[name] for name in ("AUTH_TYPE", "REMOTE_USER") if name in environ}
        if service_token is not None:
            asked["HTTP_X_SERVICE_TOKEN"] = service_token
        status = 0

        def start_response(line: str, *_: object) -> None:
            nonlocal status
            status = int(line[:3])

        try:
            self._middleware(asked, start_response)
        except ClientException as error:
            raise _unavailable(error) from error
        if status == errors.Unauthenticated.status:
            return None
        if status != _ANSWERED:
            raise errors.KeystoneUnavailable()
        return asked


class _Known:
    """The callers of tokens that Keystone was asked about, the oldest of which are forgotten.

    They hold the tokens themselves, so hashing those would hide nothing.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._callers: dict[tuple[str, str], tuple[Context, float]] = {}
        self._adding = threading.Lock()

    def get(self, tokens: tuple[str, str]) -> Context | None:
        caller, until = self._callers.get(tokens, (None, 0.0))
        return caller if time.monotonic() < until else None

    def add(self, tokens: tuple[str, str], caller: Context, seconds: float) -> None:
        """Know the caller for so long, if at all."""
        if seconds <= 0:
            return
        with self._adding:
            self._callers.pop(tokens, None)
            if len(self._callers) >= self._most:
                del self._callers[next(iter(self._callers))]
            self._callers[tokens] = caller, time.monotonic() + seconds


class _Forgetful:
    """A cache that keeps nothing."""

    def get(self, key: str) -> None: ...

    def set(self, key: str, value: bytes, time: int) -> None: ...


def confirmed(_: auth.Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What the middleware stands in front of; it comes here only with good tokens."""
    start_response(f"{_ANSWERED} No Content", [])
    return []


def _unavailable(error: ClientException) -> errors.KeystoneUnavailable:
    _log.error("Keystone cannot be asked: %s", error)
    return errors.KeystoneUnavailable()


def _caller(
    user: AccessInfoV3, service: AccessInfoV3 | None, token: str, catalog: str | None
) -> Context:
    if user.project_id is None:
        scopes = {"for the system": user.system_scoped, "for a domain": user.domain_scoped}
        scope = next((each for each, is_it in scopes.items() if is_it), "unscoped")
        raise errors.WrongScope(scope=scope)
    roles = _roles(user)
    return Context(
        viewer=Viewer(user.project_id, is_admin=_ADMIN in roles),
        roles=roles,
        service_roles=_roles(service) if service else frozenset(),
        user_id=user.user_id,
        token=token,
        catalog=catalog,
    )


def _roles(access: AccessInfoV3) -> frozenset[str]:
    return frozenset(name.lower() for name in access.role_names or ())


def life(user: AccessInfoV3, service: AccessInfoV3 | None) -> float:
    """Seconds until what was said changes; an expired user's is good with a service's token."""
    now = datetime.now(UTC)
    times = [each.expires for each in (user, service) if each]
    ends = [(time - now).total_seconds() for time in times if time]
    return min((seconds for seconds in ends if seconds > 0), default=0.0)
