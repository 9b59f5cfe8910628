"""The connection: endpoints, keep-alive, errors as they were raised."""

import json
import os
import select

import pytest

from headrace import errors
from headrace.client import Connection, Images
from headrace.client.connection import Endpoint, message
from headrace.client.images import next_marker, pointer
from tests.client.peer import GUARD, Wire, peer
from tools.serving import Serving


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:9292", "http://h:9292"),
        ("http://h:9292/", "http://h:9292"),
        ("http://h:9292/v2", "http://h:9292"),
        ("http://h:9292/v2.15/", "http://h:9292"),
        ("http://h/image/v2", "http://h:80/image"),
        ("https://h/image", "https://h:443/image"),
        ("http://[::1]:9292", "http://[::1]:9292"),
        ("http://me:se%40cret@h:1/v2", "http://h:1"),
    ],
)
def test_an_endpoint_may_have_a_version_and_a_path(url: str, shown: str) -> None:
    assert Endpoint.parse(url).url == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:9292",
        "ftp://h",
        "http://",
        "http://h:99999",
        "http://[::",
        "http://h/é",
        "http://é",
        "http://a b:9292",
        "http://h/a b",
        "http://h/\x7f",
        "http://a..b",
        f"http://{'h' * 64}",
    ],
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(errors.UsageError):
        Connection(url)


@pytest.mark.parametrize("token", ["a\nb", "é", "a\r\nX-Roles: admin"])
def test_a_token_cannot_smuggle_a_header(token: str) -> None:
    with pytest.raises(errors.UsageError):
        Connection("http://h", token=token)


def test_one_connection_serves_many_requests() -> None:
    def serve(wire: Wire) -> None:
        for _ in range(3):
            assert wire.head().headers["x-auth-token"] == "secret"
            wire.answer_json({})

    with peer(serve) as found, Connection(found.url, token="secret") as connection:
        for _ in range(3):
            connection.request("GET", "/v2/images")
    assert found.connections == 1


def test_the_token_is_shown_to_the_service_alone() -> None:
    lines: list[str] = []

    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer_json({})

    with peer(serve) as found:
        url = found.url.replace("http://", "http://me:passw0rd@")
        with Connection(url, token="secret", trace=lines.append) as connection:
            connection.request("GET", "/v2/images")
    text = "\n".join(lines)
    assert "X-Auth-Token: ***" in text
    assert "secret" not in text
    assert "passw0rd" not in text
    assert "bWU6cGFzc3cwcmQ" not in text


def test_name_and_password_are_shown_as_rfc_7617_says() -> None:
    def serve(wire: Wire) -> None:
        assert wire.head().headers["authorization"] == "Basic dGVzdDoxMjPCow=="
        wire.answer_json({})

    with peer(serve) as found, Connection(found.url, user="test", password="123£") as connection:
        connection.request("GET", "/v2/images")
        assert "123£" not in repr(connection.endpoint)


def test_nothing_is_shown_to_whom_a_redirect_names() -> None:
    """It is an error: neither password nor token goes anywhere but where they were meant to."""

    def elsewhere(wire: Wire) -> None:
        wire.head()
        wire.answer_json({})

    with peer(elsewhere) as other:

        def redirect(wire: Wire) -> None:
            wire.head()
            wire.answer("307 Temporary Redirect", headers={"Location": f"{other.url}/v2/images"})

        with (
            peer(redirect) as found,
            Connection(found.url, user="me", password="passw0rd", token="secret") as connection,
            pytest.raises(errors.Error) as refused,
        ):
            connection.request("GET", "/v2/images")
        assert "307" in str(refused.value)
        assert other.connections == 0


def test_a_user_is_said_once() -> None:
    with pytest.raises(errors.UsageError):
        Connection("http://me:too@h", user="me", password="passw0rd")
    with pytest.raises(errors.UsageError):
        Connection("http://h", user="m:e", password="passw0rd")


def test_a_connection_closed_meanwhile_is_opened_again() -> None:
    def close(wire: Wire) -> None:
        wire.head()
        wire.take(len(b"{}"))
        wire.answer_json({})

    with peer(close, close) as found, Connection(found.url) as connection:
        connection.request("POST", "/v2/images", body={})
        assert select.select([connection.socket], [], [], GUARD)[0], "the peer did not close"
        connection.request("POST", "/v2/images", body={})
    assert found.connections == 2


def test_a_get_that_meets_the_close_is_sent_again() -> None:
    def close_late(wire: Wire) -> None:
        wire.head()
        wire.answer_json({})
        wire.head()

    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer_json({"found": 1})

    with peer(close_late, serve) as found, Connection(found.url) as connection:
        connection.request("GET", "/v2/images")
        assert connection.request("GET", "/v2/images").json() == {"found": 1}


def test_a_post_that_meets_the_close_is_not() -> None:
    def close_late(wire: Wire) -> None:
        wire.head()
        wire.answer_json({})
        wire.head()

    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer_json({})

    with peer(close_late, serve) as found, Connection(found.url) as connection:
        connection.request("GET", "/v2/images")
        with pytest.raises(errors.ConnectionFailed):
            connection.request("POST", "/v2/images", body={})
        assert found.connections == 1
        connection.request("GET", "/v2/images")


@pytest.mark.parametrize("error", errors.tree(), ids=lambda error: error.__name__)
def test_the_same_class_is_raised_here_as_there(error: type[errors.Error]) -> None:
    status = error.status if error.status != 499 else 500

    def serve(wire: Wire) -> None:
        wire.head()
        body = json.dumps({"message": "what was said<br /><br />\n\n\n"}).encode()
        headers = {"Content-Type": "application/json", "X-Headrace-Error": error.code}
        wire.answer(f"{status} Reason", body, headers)

    with (
        peer(serve) as found,
        Connection(found.url) as connection,
        pytest.raises(error, match=r"^what was said$") as caught,
    ):
        connection.request("GET", "/v2/images")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("409 Conflict", errors.Conflict),
        ("403 Forbidden", errors.Forbidden),
        ("502 Bad Gateway", errors.Error),
        ("300 Multiple Choices", errors.Error),
    ],
)
def test_without_a_code_the_status_decides(status: str, kind: type[errors.Error]) -> None:
    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer(status, b"")

    with (
        peer(serve) as found,
        Connection(found.url) as connection,
        pytest.raises(kind, match=status.split()[1]) as caught,
    ):
        connection.request("GET", "/v2/images")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (
            b"<html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1>\n"
            b"No image &amp; no data<br /><br />\n\n</body></html>",
            "text/html",
            "No image & no data",
        ),
        (b"404 Not Found\n\nNo image\n\n   ", "text/plain", "No image"),
        (b'{"message": "a<br />b", "code": "400 Bad Request"}', "application/json", "a b"),
        (b"{", "application/json", ""),
        (b'{"message": 1}', "application/json", ""),
        (b"\xff\xfe", "text/plain", "��"),
    ],
)
def test_what_an_error_says_is_found_in_any_form(body: bytes, kind: str, text: str) -> None:
    assert message(body, kind) == text


def test_who_is_not_there_is_named() -> None:
    with peer() as gone:
        pass
    with pytest.raises(errors.ConnectionFailed, match=f"{gone.url}: Connection refused"):
        Connection(gone.url).request("GET", "/v2/images")


def test_who_does_not_answer_is_given_up() -> None:
    def wait(wire: Wire) -> None:
        wire.head()
        wire.take(1 << 20)

    with (
        peer(wait) as found,
        Connection(found.url, timeout=0.2) as connection,
        pytest.raises(errors.ConnectionFailed, match=r"no answer within 0\.2 s"),
    ):
        connection.request("POST", "/v2/images", body={})


@pytest.mark.parametrize(
    "answer", [b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    def serve(wire: Wire) -> None:
        wire.head()
        wire.send(answer)

    with (
        peer(serve) as found,
        Connection(found.url) as connection,
        pytest.raises(errors.ConnectionFailed),
    ):
        connection.request("GET", "/v2/images")


def test_another_kind_of_server_is_told_apart() -> None:
    def serve(wire: Wire) -> None:
        wire.head()
        wire.answer("200 OK", b"<html>hello</html>")

    with (
        peer(serve) as found,
        Connection(found.url) as connection,
        pytest.raises(errors.ClientError, match="is this an image service"),
    ):
        connection.request("GET", "/v2/images").json()


def test_pages_follow_one_another_with_all_of_the_query() -> None:
    lines: list[str] = []

    def serve(wire: Wire) -> None:
        for ids, follower in ((["1", "2"], "2"), (["3"], None)):
            lines.append(wire.head().line)
            link = {"next": f"/v2/images?tag=b&marker={follower}"} if follower else {}
            wire.answer_json({"images": [{"id": one} for one in ids], **link})

    with peer(serve) as found, Connection(f"{found.url}/image/v2") as connection:
        images = Images(connection).list({"tag": ["a", "b"]}, sort="name:asc", page_size=2)
        assert [image["id"] for image in images] == ["1", "2", "3"]
    assert lines == [
        "GET /image/v2/images?tag=a&tag=b&limit=2&sort=name%3Aasc HTTP/1.1",
        "GET /image/v2/images?tag=a&tag=b&limit=2&sort=name%3Aasc&marker=2 HTTP/1.1",
    ]


def test_a_limit_is_kept_even_if_the_service_does_not() -> None:
    def serve(wire: Wire) -> None:
        assert "limit=3" in wire.head().line
        wire.answer_json({"images": [{"id": str(n)} for n in range(9)], "next": "/v2/x?marker=8"})

    with peer(serve) as found, Connection(found.url) as connection:
        assert len(list(Images(connection).list(limit=3))) == 3


def test_a_page_that_leads_to_itself_is_the_last() -> None:
    def serve(wire: Wire) -> None:
        for _ in range(2):
            wire.head()
            wire.answer_json({"images": [{"id": "1"}], "next": "/v2/images?marker=1"})

    with peer(serve) as found, Connection(found.url) as connection:
        assert len(list(Images(connection).list())) == 2


def test_markers_and_pointers() -> None:
    assert next_marker("/v2/images?limit=1&marker=a%2Fb") == "a/b"
    assert next_marker(None) is None
    assert pointer("a/b~c") == "/a~1b~0c"


def test_an_id_cannot_reach_another_resource() -> None:
    lines: list[str] = []

    def serve(wire: Wire) -> None:
        lines.append(wire.head().line)
        wire.answer("404 Not Found")

    with (
        peer(serve) as found,
        Connection(found.url) as connection,
        pytest.raises(errors.ImageNotFound, match=r"image \.\./tasks\?x not found"),
    ):
        Images(connection).delete("../tasks?x")
    assert lines == ["DELETE /v2/images/..%2Ftasks%3Fx HTTP/1.1"]


def test_a_record_lives_through_its_changes(server: Serving) -> None:
    with Connection(server.url) as connection:
        images = Images(connection)
        name = f"record {os.urandom(4).hex()}"
        made = images.create(name=name, tags=["a"], colour="red", **{"a/b~c": "1"})
        image_id = str(made["id"])
        assert (made["status"], made["colour"], made["a/b~c"]) == ("queued", "red", "1")

        changed = images.update(image_id, {"colour": "blue", "new~/": "x=y"}, ["a/b~c"])
        assert (changed["colour"], changed["new~/"], changed["name"]) == ("blue", "x=y", name)
        assert "a/b~c" not in changed
        assert images.show(image_id) == changed

        assert [image["id"] for image in images.list({"name": name})] == [image_id]
        images.delete(image_id)
        with pytest.raises(errors.ImageNotFound, match=image_id):
            images.show(image_id)
        with pytest.raises(errors.ImageNotFound):
            images.delete(image_id)
        with pytest.raises(errors.InvalidProperty):
            images.create(min_ram="x")
