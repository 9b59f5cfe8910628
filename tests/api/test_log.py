"""What requests leave in the log."""

from pathlib import Path

import pytest
from falcon.testing import StartResponseMock, create_environ

from headrace import config
from headrace.api import app
from headrace.api.patches import V21


class BrokenInput:
    """``wsgi.input`` of a host with a defect."""

    def read(self, size: int) -> bytes:
        raise OSError("a defect of the host")


def test_a_path_makes_no_lines_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is logged with its path, in which %0a is a newline."""
    application = app.build(config.load([], {("headrace", "state_dir"): str(tmp_path)}))
    try:
        environ = create_environ(
            "/v2/images/x%0a2020-01-01 CRITICAL all is lost",
            method="PATCH",
            host="localhost",
            headers={"Content-Type": V21, "Content-Length": "2"},
            remote_addr="127.0.0.1",
        )
        answer = StartResponseMock()
        application({**environ, "wsgi.input": BrokenInput()}, answer)
    finally:
        application.close()
    assert answer.status == "500 Internal Server Error"
    (message,) = caplog.messages
    assert r"x\n2020-01-01 CRITICAL" in message
    assert "\n" not in message
