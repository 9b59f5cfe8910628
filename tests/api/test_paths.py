"""Paths beyond ASCII, as hosts hand them over: a character for each byte (PEP 3333)."""

from pathlib import Path

import pytest
from falcon.testing import StartResponseMock, create_environ

from headrace import config
from headrace.api import app


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        ("ä".encode(), "204 No Content"),
        ("\U0001f600".encode(), "204 No Content"),
        (b"\xff", "400 Bad Request"),
        (b"\xc3", "400 Bad Request"),
        (b"\xed\xa0\x80", "400 Bad Request"),
    ],
)
def test_a_path_is_utf_8(tmp_path: Path, tag: bytes, status: str) -> None:
    application = app.build(config.load([], {("headrace", "state_dir"): str(tmp_path)}))

    def ask(method: str, path: str, body: str = "") -> StartResponseMock:
        environ = create_environ(
            "/", method=method, host="localhost", remote_addr="127.0.0.1", body=body
        )
        answer = StartResponseMock()
        application({**environ, "PATH_INFO": path}, answer)
        return answer

    try:
        made = ask("POST", "/v2/images", "{}").headers_dict["location"]
        path = made[made.index("/v2/") :]
        assert ask("PUT", f"{path}/tags/{tag.decode('latin-1')}").status == status
    finally:
        application.close()
