"""What of keystonemiddleware's word is kept, and for how long.

The middleware here is a small one that knows its tokens by itself; tests/deploy has the real one.
"""

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from keystoneauth1 import access
from keystoneauth1.exceptions import ConnectFailure

from headrace import errors
from headrace.api import auth, keystone

PROJECT = "9d2f9a4b0e5a4a7fbd8b7cf3a1f0e2d1"
TOKEN = "gAAAAABexampleofatoken"
SERVICE = "gAAAAABexampleofaservice"

Said = dict[str, Any]


class Filter:
    """Confirms tokens that it was given, as keystonemiddleware does, and counts how often."""

    def __init__(self, **tokens: Said) -> None:
        self._tokens = tokens
        self.asked: list[dict[str, Any]] = []
        self.before: Callable[[], None] = lambda: None

    def __call__(
        self, environ: auth.Environ, start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self.asked.append(dict(environ))
        self.before()
        found = [
            self._access(environ[name])
            for name in ("HTTP_X_AUTH_TOKEN", "HTTP_X_SERVICE_TOKEN")
            if name in environ
        ]
        if None in found:
            start_response("401 Unauthorized", [])
            return []
        user, service = [*found, None][:2]
        environ["keystone.token_auth"] = SimpleNamespace(user=user, service=service)
        environ["HTTP_X_SERVICE_CATALOG"] = '[{"type": "image"}]'
        return keystone.confirmed(environ, start_response)

    def _access(self, token: str) -> access.AccessInfo | None:
        said = self._tokens.get(token)
        return access.create(body=said, auth_token=token) if said is not None else None


def said(
    *roles: str, expires_in: float = 3600, project: str | None = PROJECT, **more: object
) -> Said:
    """What Keystone says of a token of the user ``somebody``."""
    token: Said = {
        "methods": ["password"],
        "user": {"id": "somebody", "name": "somebody", "domain": {"id": "default"}},
        "issued_at": "2020-01-01T00:00:00.000000Z",
        "expires_at": f"{datetime.now(UTC) + timedelta(seconds=expires_in):%Y-%m-%dT%H:%M:%S.%fZ}",
        "roles": [{"id": role, "name": role} for role in roles],
        **more,
    }
    if project is not None:
        token["project"] = {"id": project, "name": "its", "domain": {"id": "default"}}
    return {"token": token}


def guarding(middleware: Filter, **options: Any) -> keystone.Keystone:
    how: dict[str, Any] = {"kept": 300, "questions": 8, **options}
    return keystone.Keystone(middleware, "http://id.example", lambda: SERVICE, **how)


def request(token: str = TOKEN, service: str | None = None, **more: Any) -> auth.Environ:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/v2/images", "HTTP_X_AUTH_TOKEN": token}
    if service is not None:
        environ["HTTP_X_SERVICE_TOKEN"] = service
    return environ | more


def test_a_caller_is_who_the_token_says() -> None:
    middleware = Filter(**{TOKEN: said("Member", "reader"), SERVICE: said("Service")})
    caller = guarding(middleware)(request(service=SERVICE))
    assert (caller.project_id, caller.user_id, caller.is_admin) == (PROJECT, "somebody", False)
    assert (caller.roles, caller.service_roles) == ({"member", "reader"}, {"service"})
    assert (caller.token, caller.catalog) == (TOKEN, '[{"type": "image"}]')
    assert TOKEN not in repr(caller)
    assert guarding(Filter(**{TOKEN: said("ADMIN")}))(request()).is_admin


def test_nothing_of_a_request_but_its_tokens_is_passed_on() -> None:
    middleware = Filter(**{TOKEN: said("reader")})
    body = object()
    guarding(middleware)(
        request(HTTP_X_ROLES="admin", HTTP_X_PROJECT_ID="other", **{"wsgi.input": body})
    )
    (passed,) = middleware.asked
    assert {name for name in passed if name.startswith("HTTP_")} == {"HTTP_X_AUTH_TOKEN"}
    assert body not in passed.values()


def test_a_known_caller_is_not_asked_about_again() -> None:
    middleware = Filter(**{TOKEN: said("reader"), SERVICE: said("service")})
    guard = guarding(middleware)
    assert guard(request()) is guard(request())
    assert guard(request(service=SERVICE)).service_roles
    assert not guard(request()).service_roles
    assert len(middleware.asked) == 2


@pytest.mark.parametrize("kept", [0, -1])
def test_nothing_is_kept_if_so_set(kept: float) -> None:
    middleware = Filter(**{TOKEN: said("reader")})
    guard = guarding(middleware, kept=kept)
    assert guard(request()) is not guard(request())


@pytest.mark.parametrize(
    ("user", "service", "seconds"),
    [(100, None, 100), (100, 50, 50), (50, 100, 50), (-5, 100, 100), (-5, None, 0), (-5, -5, 0)],
)
def test_a_caller_is_known_no_longer_than_his_tokens_live(
    user: float, service: float | None, seconds: float
) -> None:
    found = [
        None if life is None else access.create(body=said(expires_in=life), auth_token=TOKEN)
        for life in (user, service)
    ]
    assert found[0] is not None
    life = keystone.life(found[0], found[1])
    assert seconds - 5 < life <= seconds


def test_only_so_many_callers_are_known() -> None:
    tokens = [f"{TOKEN}{number}" for number in range(3)]
    middleware = Filter(**{token: said("reader") for token in tokens})
    guard = guarding(middleware, known=2)
    for token in tokens:
        guard(request(token))
    assert guard(request(tokens[2])) is guard(request(tokens[2]))
    guard(request(tokens[0]))  # the oldest
    assert [each["HTTP_X_AUTH_TOKEN"] for each in middleware.asked] == [*tokens, tokens[0]]


def test_what_depends_on_the_path_is_asked_every_time() -> None:
    rules: list[dict[str, str]]
    for rules in ([{"path": "/v2/images", "method": "GET", "service": "image"}], []):
        credential = {"id": "its", "name": "narrow", "restricted": True, "access_rules": rules}
        middleware = Filter(**{TOKEN: said("reader", application_credential=credential)})
        guard = guarding(middleware)
        guard(request())
        guard(request())
        assert len(middleware.asked) == 2


@pytest.mark.parametrize(
    "token", ["", " ", "a b", "a\nb", 'a"b', "tök€n", "a%b", f"{TOKEN},{TOKEN}"]
)
def test_what_is_no_token_is_nobodys_without_asking(token: str) -> None:
    middleware = Filter(**{TOKEN: said("reader")})
    with pytest.raises(errors.Unauthenticated) as refused:
        guarding(middleware)(request(token))
    assert refused.value.fields["challenge"] == 'Keystone uri="http://id.example"'
    assert middleware.asked == []
    assert guarding(middleware, anonymous=True)(request(token)) is auth.NOBODY


@pytest.mark.parametrize("service", ["unknown-token-of-a-service", "a b"])
def test_a_wrong_token_of_a_service_counts_as_none(service: str) -> None:
    guard = guarding(Filter(**{TOKEN: said("reader")}))
    assert guard(request(service=service)).service_roles == frozenset()
    with pytest.raises(errors.Unauthenticated):
        guard(request("unknown-token-of-a-user", service=service))


def test_a_token_of_no_project_is_refused() -> None:
    with pytest.raises(errors.WrongScope, match="unscoped"):
        guarding(Filter(**{TOKEN: said(project=None)}))(request())
    scopes: dict[str, Said] = {
        "for the system": {"system": {"all": True}},
        "for a domain": {"domain": {"id": "default", "name": "Default"}},
    }
    for words, scope in scopes.items():
        with pytest.raises(errors.WrongScope, match=words):
            guarding(Filter(**{TOKEN: said("admin", project=None, **scope)}))(request())


def test_only_so_many_questions_are_asked_at_a_time() -> None:
    """While Keystone hangs, threads are left for those who are known."""
    middleware = Filter(**{TOKEN: said("reader"), SERVICE: said("reader")})
    guard = guarding(middleware, questions=1)
    known = guard(request())
    hanging, going_on = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        assert going_on.wait(60)  # a hang guard

    middleware.before = hang
    thread = threading.Thread(target=guard, args=(request(SERVICE),))
    thread.start()
    assert hanging.wait(60)
    with pytest.raises(errors.KeystoneBusy):
        guard(request("another-token-of-somebody"))
    assert guard(request()) is known
    going_on.set()
    thread.join()
    middleware.before = lambda: None
    assert guard(request(SERVICE)) is guard(request(SERVICE))


def test_a_keystone_that_cannot_be_asked_is_no_refusal() -> None:
    middleware = Filter(**{TOKEN: said("reader")})

    def fail() -> None:
        raise ConnectFailure("nobody there")

    middleware.before = fail
    guard = guarding(middleware, anonymous=True)
    for _ in range(20):  # more than may be asked at a time
        with pytest.raises(errors.KeystoneUnavailable):
            guard(request())


def test_open_paths_ask_nobody() -> None:
    middleware = Filter()
    for path in auth.OPEN:
        assert guarding(middleware)(request(PATH_INFO=path)) is auth.NOBODY
    assert middleware.asked == []
