"""Tokens: where they go and where they do not, and what happens when one has ended."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.client import Connection, Images
from headrace.client.clouds import Cloud, connect
from headrace.client.keystone import Keystone
from tests import certificates
from tests.client.peer import Request, Step, Wire, peer
from tests.client.test_download import DATA, record, serve_from
from tests.client.test_tls import encrypted_peer
from tests.client.test_upload import Receiver, fed

AUTH = {
    "username": "ann",
    "password": "s3cret",
    "project_name": "demo",
    "user_domain_id": "default",
    "project_domain_id": "default",
}


class Numbered:
    """A source of tokens: token-1, and the next one when it is refused."""

    def __init__(self, last: int = 9) -> None:
        self.number = 1
        self.last = last

    def token(self) -> str:
        return f"token-{self.number}"

    def renew(self, refused: str) -> bool:
        assert refused == self.token()
        self.number = min(self.number + 1, self.last)
        return self.token() != refused


class Refusing:
    """A step that answers 401 to a head, and closes; it keeps the head."""

    def __init__(self) -> None:
        self.request = Request("", {})
        self.rest = b""

    def __call__(self, wire: Wire) -> None:
        self.request = wire.head()
        wire.answer("401 Unauthorized", b"no", {"Connection": "close"})
        with contextlib.suppress(OSError):
            wire.sock.shutdown(socket.SHUT_WR)
            self.rest = wire.take(1)


def served(requests: list[Request]) -> Step:
    def serve(wire: Wire) -> None:
        requests.append(wire.head())
        wire.answer_json({"images": []})

    return serve


def test_a_token_that_has_ended_is_renewed_once() -> None:
    refusing, came = Refusing(), list[Request]()
    with (
        peer(refusing, served(came)) as found,
        Connection(found.url, token=Numbered()) as connection,
    ):
        assert connection.request("POST", "/v2/images", body={}).status == 200
    assert refusing.request.headers["x-auth-token"] == "token-1"
    assert came[0].headers["x-auth-token"] == "token-2"
    with (
        peer(Refusing(), Refusing()) as found,
        Connection(found.url, token=Numbered()) as connection,
        pytest.raises(errors.Unauthenticated),
    ):
        connection.request("GET", "/v2/images")
    assert found.connections == 2


@pytest.mark.parametrize("token", ["fixed", Numbered(last=1)], ids=["a token", "no other one"])
def test_without_another_token_it_is_not_tried_again(token: str | Numbered) -> None:
    with (
        peer(Refusing()) as found,
        Connection(found.url, token=token) as connection,
        pytest.raises(errors.Unauthenticated),
    ):
        connection.request("GET", "/v2/images")
    assert found.connections == 1


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_an_upload_is_renewed_before_a_byte_has_left(tmp_path: Path, way: str) -> None:
    (tmp_path / "image").write_bytes(DATA)
    refusing, receiver = Refusing(), Receiver()
    with (
        peer(refusing, receiver) as found,
        Connection(found.url, token=Numbered()) as connection,
        fed(DATA) as pipe,
    ):
        moved = Images(connection).upload("an-id", tmp_path / "image" if way == "file" else pipe)
    assert refusing.rest == b""
    assert receiver.body == DATA
    assert receiver.request.headers["x-auth-token"] == "token-2"
    assert moved.how == ("sendfile" if way == "file" else "splice")


def refuse_once_all_is_there(wire: Wire) -> None:
    """As nginx does, which asks when it has the body."""
    head = wire.head()
    wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = head.headers.get("content-length")
    body = wire.take(int(length)) if length else b"".join(wire.chunks())
    assert body == DATA
    wire.answer("401 Unauthorized", b"no")


def refuse_in_the_middle(wire: Wire) -> None:
    wire.head()
    wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    wire.take(1000)
    wire.answer("401 Unauthorized", b"no", {"Connection": "close"})


@pytest.mark.parametrize("refuse", [refuse_once_all_is_there, refuse_in_the_middle])
def test_a_file_is_sent_again_when_its_token_has_ended(tmp_path: Path, refuse: Step) -> None:
    (tmp_path / "image").write_bytes(DATA)
    receiver = Receiver()
    with (
        peer(refuse, receiver) as found,
        Connection(found.url, token=Numbered()) as connection,
    ):
        moved = Images(connection).upload("an-id", tmp_path / "image")
    assert receiver.body == DATA
    assert receiver.request.headers["x-auth-token"] == "token-2"
    assert (moved.bytes, moved.how) == (len(DATA), "sendfile")


def test_a_file_is_sent_again_once(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(DATA)
    with (
        peer(refuse_once_all_is_there, refuse_once_all_is_there) as found,
        Connection(found.url, token=Numbered()) as connection,
        pytest.raises(errors.Unauthenticated),
    ):
        Images(connection).upload("an-id", tmp_path / "image")
    assert found.connections == 2


def test_a_pipe_that_has_been_read_is_not_sent_again() -> None:
    with (
        peer(refuse_once_all_is_there) as found,
        Connection(found.url, token=Numbered()) as connection,
        fed(DATA) as pipe,
        pytest.raises(errors.Unauthenticated),
    ):
        Images(connection).upload("an-id", pipe)
    assert found.connections == 1


def test_a_download_that_was_cut_goes_on_with_another_token(tmp_path: Path) -> None:
    refusing = Refusing()
    with (
        peer(serve_from(until=1_000_000), refusing, serve_from()) as found,
        Connection(found.url, token=Numbered()) as connection,
    ):
        done = Images(connection).download(record(), tmp_path / "image")
    assert refusing.request.headers["range"] == "bytes=1000000-"
    assert (tmp_path / "image").read_bytes() == DATA
    assert (done.moved.how, done.verified) == ("splice", "sha256")


def test_a_token_is_not_carried_to_where_an_answer_points() -> None:
    with peer(lambda wire: pytest.fail("somebody else was asked")) as other:

        def away(wire: Wire) -> None:
            wire.head()
            wire.answer("307 Temporary Redirect", b"", {"Location": f"{other.url}/v2/images"})

        with (
            peer(away) as found,
            Connection(found.url, token=Numbered()) as connection,
            pytest.raises(errors.Error, match="307"),
        ):
            connection.request("GET", "/v2/images")
    assert other.connections == 0


def test_a_token_that_is_no_header_is_not_sent() -> None:
    class Broken(Numbered):
        def token(self) -> str:
            return "two\r\nlines"

    with (
        peer() as found,
        Connection(found.url, token=Broken()) as connection,
        pytest.raises(errors.UsageError, match="no header"),
    ):
        connection.request("GET", "/v2/images")


# A Keystone that is not what it should be.  The real one is in tests/cli/test_keystone.py.


def issuing(endpoints: list[tuple[str, str]], scope: dict[str, object] | None = None) -> Step:
    """A step that gives a token with a catalog of these (region, URL)."""
    project = {"id": "p", "name": "demo", "domain": {"id": "default", "name": "Default"}}
    listed = [
        {
            "interface": "public",
            "region": region,
            "region_id": region,
            "url": url,
            "id": str(number),
        }
        for number, (region, url) in enumerate(endpoints)
    ]
    token = {
        "methods": ["password"],
        "user": {"id": "u", "name": "ann", "domain": {"id": "default", "name": "Default"}},
        "issued_at": "2020-01-01T00:00:00.000000Z",
        "expires_at": "2999-01-01T00:00:00.000000Z",
        "catalog": [{"type": "image", "name": "headrace", "id": "s", "endpoints": listed}],
    } | ({"project": project} if scope is None else scope)

    def serve(wire: Wire) -> None:
        request = wire.head()
        assert request.line == "POST /v3/auth/tokens HTTP/1.1"
        wire.take(int(request.headers["content-length"]))
        wire.answer_json({"token": token}, "201 Created\r\nX-Subject-Token: a-token")

    return serve


@contextlib.contextmanager
def keystone_of(*steps: Step) -> Iterator[Keystone]:
    with peer(*steps) as found:
        yield Keystone(Cloud("v3password", AUTH | {"auth_url": found.url}), timeout=30)


def test_a_redirect_of_keystones_is_not_given_the_password() -> None:
    with peer() as other:

        def away(wire: Wire) -> None:
            wire.take(int(wire.head().headers["content-length"]))
            wire.answer("307 Temporary Redirect", b"", {"Location": f"{other.url}/v3/auth/tokens"})

        with keystone_of(away) as keystone, pytest.raises(errors.ClientError) as raised:
            keystone.token()
    assert other.connections == 0
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ([("north", "http://a"), ("south", "http://b")], "several regions.*north, south"),
        ([("north", "http://a"), ("north", "http://b")], "several image services"),
        ([], "has no public image service"),
    ],
)
def test_what_a_catalog_leaves_open_is_said(endpoints: list[tuple[str, str]], said: str) -> None:
    with keystone_of(issuing(endpoints)) as keystone, pytest.raises(errors.Error, match=said):
        keystone.endpoint()


def test_an_unscoped_token_is_told_apart_from_an_empty_catalog() -> None:
    with (
        keystone_of(issuing([], scope={})) as keystone,
        pytest.raises(errors.UsageError, match="OS_PROJECT_NAME"),
    ):
        keystone.endpoint()


def test_a_token_that_came_by_tls_is_not_sent_without(tmp_path: Path) -> None:
    """Unless the user names the place."""
    certificate = certificates.make(tmp_path / "both.pem")
    plain = [("north", "http://127.0.0.1:9")]
    with encrypted_peer(certificate, issuing(plain), issuing(plain)) as found:
        auth = AUTH | {"auth_url": found.url}
        cloud = Cloud("v3password", auth, cafile=str(certificate))
        with pytest.raises(errors.UsageError, match="everybody on the way"):
            connect(cloud)
        with connect(cloud, "http://127.0.0.1:9") as connection:
            assert connection.endpoint.port == 9
            with pytest.raises(errors.ConnectionFailed, match=r"127\.0\.0\.1:9"):
                connection.request("GET", "/v2/images")


def test_a_keystone_that_is_not_trusted_is_given_no_password(tmp_path: Path) -> None:
    certificate = certificates.make(tmp_path / "both.pem")
    with encrypted_peer(certificate, lambda wire: pytest.fail("a request came")) as found:
        source = Keystone(Cloud("v3password", AUTH | {"auth_url": found.url}), timeout=30)
        with pytest.raises(errors.ConnectionFailed, match="certificate is not trusted"):
            source.token()


def test_a_certificate_of_the_callers_is_shown(tmp_path: Path) -> None:
    """To Keystone and to the image service."""
    certificate = certificates.make(tmp_path / "both.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    shown = []

    def asks(step: Step) -> Step:
        def serve(wire: Wire) -> None:
            with context.wrap_socket(wire.sock, server_side=True) as sock:
                shown.append(bool(sock.getpeercert()))
                step(Wire(sock))

        return serve

    came: list[Request] = []
    with peer(asks(served(came))) as service:
        endpoint = service.url.replace("http:", "https:")
        with peer(asks(issuing([("north", endpoint)]))) as identity:
            cloud = Cloud(
                "v3password",
                AUTH | {"auth_url": identity.url.replace("http:", "https:")},
                cafile=str(certificate),
                certificate=str(certificate),
                key=str(certificate),
            )
            with connect(cloud, timeout=30) as connection:
                connection.request("GET", "/v2/images")
    assert (shown, came[0].headers["x-auth-token"]) == ([True, True], "a-token")


@pytest.mark.parametrize("url", ["", "ftp://k", "https://ann:s3cret@k/v3"])
def test_a_keystone_must_have_a_url(url: str) -> None:
    with pytest.raises(errors.UsageError) as raised:
        Keystone(Cloud("v3password", AUTH | {"auth_url": url}))
    assert "s3cret" not in str(raised.value)
