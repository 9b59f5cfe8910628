"""Basic authentication: what is read of a request."""

from pathlib import Path

import pytest

from headrace import errors
from headrace.api import auth
from headrace.api.basic import Basic
from headrace.service.logins import WRONG_BY_USER, Logins
from tests.accounts import shown, write_accounts


@pytest.fixture
def basic(tmp_path: Path) -> Basic:
    return Basic(Logins(write_accounts(tmp_path / "users", ("alice", "mine", "member")), 4))


def environ(authorization: str | None = None, **more: str) -> dict[str, str]:
    given = {} if authorization is None else {"HTTP_AUTHORIZATION": authorization}
    base = {"PATH_INFO": "/v2/images", "REMOTE_ADDR": "192.0.2.1", "HTTP_HOST": "h:9292"}
    return base | given | more


def test_a_name_and_a_password_are_a_caller(basic: Basic) -> None:
    assert basic(environ(shown("alice"))).user_id == "alice"
    assert basic(environ(shown("alice").replace("Basic ", "BASIC  "))).user_id == "alice"


@pytest.mark.parametrize(
    "authorization",
    [
        None, "", "Basic", "Basic ", "Basic é", "Basic =", "Basic YWxpY2U=", "Basic YQ", "Basic \0",
        "Digest username=alice", f"Basic {'QUFB' * 1000}", shown("alice", ""), shown("bob"),
        f"{shown('alice')},{shown('alice')}", f"{shown('alice')} {shown('alice')}",
    ],
)  # fmt: skip
def test_all_else_is_asked_who_it_is(basic: Basic, authorization: str | None) -> None:
    with pytest.raises(errors.Unauthenticated) as refused:
        basic(environ(authorization))
    assert refused.value.fields == {"challenge": 'Basic realm="headrace", charset="UTF-8"'}


@pytest.mark.parametrize("path", sorted(auth.OPEN))
def test_some_paths_are_open(basic: Basic, path: str) -> None:
    assert basic(environ(PATH_INFO=path)) is auth.NOBODY
    for other in (f"{path}/", f"/{path}", f"{path}.json", f"{path}%2f"):
        with pytest.raises(errors.Unauthenticated):
            basic(environ(PATH_INFO=other if other != "//" else "/v2/"))


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        ("http://h:9292", True),
        ("https://h:9292", True),
        ("http://h", False),
        ("http://example.org", False),
        ("http://h:9292.example.org", False),
        ("h:9292", False),
        ("null", False),
        ("", False),
    ],
)
def test_a_page_of_another_site_is_refused(basic: Basic, origin: str, own: bool) -> None:
    given = environ(shown("alice"), HTTP_ORIGIN=origin)
    if own:
        assert basic(given).user_id == "alice"
    else:
        with pytest.raises(errors.Forbidden):
            basic(given)


def test_a_page_of_an_origin_that_is_named_is_not(tmp_path: Path) -> None:
    accounts = write_accounts(tmp_path / "users", ("alice", "mine", "member"))
    basic = Basic(Logins(accounts, 4), frozenset({"https://dashboard.example.org"}))
    assert basic(environ(shown("alice"), HTTP_ORIGIN="https://dashboard.example.org")).user_id
    with pytest.raises(errors.Unauthenticated):
        basic(environ(HTTP_ORIGIN="https://dashboard.example.org"))
    with pytest.raises(errors.Forbidden):
        basic(environ(shown("alice"), HTTP_ORIGIN="https://example.org"))


@pytest.mark.parametrize("place", ["REMOTE_ADDR", "HTTP_X_FORWARDED_FOR"])
def test_attempts_are_counted_by_client(basic: Basic, place: str) -> None:
    """On a Unix socket, by what the server in front has added: not by what a client says."""

    def attempt(address: str) -> None:
        said = address
        if place == "HTTP_X_FORWARDED_FOR":
            made_up.append(None)
            said = f"198.51.100.{len(made_up)}, {address}"
        with pytest.raises(errors.Unauthenticated):
            basic(environ(shown("alice", f"{len(made_up)}"), **{"REMOTE_ADDR": "", place: said}))

    made_up: list[None] = []
    for _ in range(WRONG_BY_USER):
        attempt("192.0.2.1")
    with pytest.raises(errors.TooManyLogins):
        attempt("192.0.2.1")
    attempt("192.0.2.2")


def test_what_a_client_says_of_its_address_counts_nowhere_else(basic: Basic) -> None:
    for number in range(WRONG_BY_USER):
        with pytest.raises(errors.Unauthenticated):
            basic(environ(shown("alice", "no"), HTTP_X_FORWARDED_FOR=f"198.51.100.{number}"))
    with pytest.raises(errors.TooManyLogins):
        basic(environ(shown("alice", "no"), HTTP_X_FORWARDED_FOR="198.51.100.99"))
