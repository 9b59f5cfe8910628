"""The audit log: an event for what is done, with who, what, when, from where, and no secret."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from headrace import config, errors
from headrace.api import app
from headrace.model import Viewer
from headrace.service.context import Context
from tests.api.personas import OCTETS, PATCH, patch

RECORD = {"disk_format": "raw", "container_format": "bare"}
HUSH = "hush-hush"
ROLES = frozenset({"admin", "member", "reader"})
Event = dict[str, Any]
Ask = Callable[..., Any]


def believe(environ: dict[str, Any]) -> Context:
    """An ``Authenticate``: a name and a project, as the request says."""
    if "HTTP_X_USER" not in environ:
        raise errors.Unauthenticated(challenge="Test")
    user, project = environ["HTTP_X_USER"].split("@")
    return Context(Viewer(project, is_admin=user == "root"), ROLES, user_id=user, token=HUSH)


@contextmanager
def audited(
    directory: Path, log: str | Path | None = None, **more: object
) -> Iterator[tuple[Ask, Callable[[], list[Event]]]]:
    """``ask(method, path, …)`` as ann of the project mine, and the events so far."""
    file = directory / "audit.log" if log is None else log
    settings = {
        ("headrace", "state_dir"): str(directory / "state"),
        ("headrace", "audit_log"): str(file),
        **{("headrace", name): value for name, value in more.items()},
    }
    application = app.build(config.load([], settings), believe)
    client = testing.TestClient(application)

    def ask(method: str, path: str, body: object = None, **headers: str) -> Any:
        sent = {"X-User": "ann@mine", "User-Agent": "curl/8", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        path, _, query = path.partition("?")
        return client.simulate_request(
            method, path, query_string=query, body=data, headers=sent, remote_addr="192.0.2.7"
        )

    def events() -> list[Event]:
        return [json.loads(line) for line in Path(file).read_text().splitlines()]

    try:
        yield ask, events
    finally:
        application.close()


def told(events: list[Event]) -> list[tuple[str, str, str | None]]:
    """Action, outcome and status of each."""
    return [
        (each["action"], each["outcome"], each.get("reason", {}).get("reasonCode"))
        for each in events
    ]


def new(ask: Ask, **values: object) -> str:
    return str(ask("POST", "/v2/images", RECORD | values).json["id"])


def test_an_event_says_who_did_what_to_which_image_when_and_from_where(tmp_path: Path) -> None:
    with audited(tmp_path) as (ask, events):
        answer = ask("POST", "/v2/images", RECORD, X_Openstack_Request_Id="req-from-afar")
        (event,) = events()
    assert datetime.fromisoformat(event.pop("eventTime")).tzinfo is not None
    assert len(event.pop("id")) == 36
    assert event.pop("observer")["name"] == "headrace"
    assert event == {
        "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
        "eventType": "activity",
        "action": "create",
        "outcome": "success",
        "reason": {"reasonType": "HTTP", "reasonCode": "201"},
        "initiator": {
            "typeURI": "service/security/account/user",
            "id": "ann",
            "project_id": "mine",
            "host": {"address": "192.0.2.7", "agent": "curl/8"},
        },
        "target": {"typeURI": "service/storage/image", "id": answer.json["id"]},
        "requestPath": "/v2/images",
        "requestId": "req-from-afar",
    }


def test_changes_downloads_and_refusals_are_written(tmp_path: Path) -> None:
    with audited(tmp_path) as (ask, events):
        image = new(ask)
        path = f"/v2/images/{image}"
        ask("PUT", f"{path}/file", b"data", Content_Type=OCTETS)
        ask("GET", f"{path}/file")
        ask("GET", f"{path}/file", Range="bytes=99-")
        ask("PATCH", path, patch(os_distro="debian"), Content_Type=PATCH)
        ask("POST", f"{path}/members", {"member": "theirs"})
        ask("PUT", f"{path}/tags/t")
        ask("POST", f"{path}/actions/deactivate", X_User="root@admins")
        ask("POST", f"{path}/actions/reactivate", X_User="root@admins")
        ask("DELETE", path)
        assert told(events()) == [
            ("create", "success", "201"),
            ("update/upload", "success", "204"),
            ("read/download", "pending", "200"),
            ("read/download", "success", "200"),
            ("read/download", "failure", "416"),
            ("update", "success", "200"),
            ("create/member", "success", "200"),
            ("update/tag", "success", "204"),
            ("disable", "success", "204"),
            ("enable", "success", "204"),
            ("delete", "success", "204"),
        ]
        assert {each["target"]["id"] for each in events()} == {image}
        begun, ended = events()[2:4]
        assert ended["bytes"] == 4
        assert begun["requestId"] == ended["requestId"]
        assert begun["id"] != ended["id"]


def test_refused_reads_are_written_and_others_only_when_asked_for(tmp_path: Path) -> None:
    with audited(tmp_path) as (ask, events):
        image = new(ask, visibility="private")
        path = f"/v2/images/{image}"
        for quiet in ("/v2/images", path, "/v2/schemas/image", "/nothing", "/healthcheck"):
            ask("GET", quiet)
        assert len(events()) == 1
        assert ask("GET", path, X_User="eve@theirs").status_code == 404
        assert ask("GET", f"{path}/file", X_User="eve@theirs").status_code == 404
        assert ask("GET", "/v2/tasks").status_code == 403
        assert ask("GET", path, X_User="").status_code == 401
        assert ask("DELETE", path, X_User="eve@theirs").status_code == 404
        refused = events()[1:]
        assert told(refused) == [
            ("read", "failure", "404"),
            ("read/download", "failure", "404"),
            ("read", "failure", "403"),
            ("read", "failure", "401"),
            ("delete", "failure", "404"),
        ]
        assert [each["initiator"]["id"] for each in refused] == [
            "eve",
            "eve",
            "ann",
            "unknown",
            "eve",
        ]
        assert refused[0]["reason"]["error"] == "image.not_found"
        assert refused[3]["requestPath"] == path
        assert refused[3]["target"]["id"] == "unknown"  # nobody has looked for it
    with audited(tmp_path, tmp_path / "reads.log", audit_reads=True) as (ask, events):
        for read in ("/v2/images?name=x", path, "/healthcheck"):
            ask("GET", read)
        assert [each["action"] for each in events()] == ["read/list", "read"]
        assert events()[0]["requestPath"] == "/v2/images"


def test_data_that_a_front_sends_is_told_of_as_decided(tmp_path: Path) -> None:
    with audited(tmp_path, delivery="x-accel-redirect") as (ask, events):
        path = f"/v2/images/{new(ask)}/file"
        ask("PUT", path, b"data", Content_Type=OCTETS)
        assert "x-accel-redirect" in ask("GET", path).headers
        assert told(events()[2:]) == [("read/download", "success", "200")]


def test_no_secret_is_written(tmp_path: Path) -> None:
    """OSSA-2014-004 and the like: addresses with credentials, tokens, queries, property values."""
    secret_url = f"https://user:{HUSH}@origin.example.org/x?signature={HUSH}"
    with audited(tmp_path, audit_reads=True) as (ask, events):
        headers = {
            "X_Auth_Token": HUSH, "X_Service_Token": HUSH, "Authorization": f"Bearer {HUSH}",
            "Cookie": f"session={HUSH}", "Referer": secret_url,
        }  # fmt: skip
        image = new(ask, password=HUSH)
        path = f"/v2/images/{image}"
        ask("GET", f"/v2/images?token={HUSH}", **headers)
        ask("GET", f"{path}?signature={HUSH}", X_User="", **headers)
        ask("POST", f"{path}/locations", {"url": secret_url}, **headers)
        location = [{"op": "add", "path": "/locations/-", "value": {"url": secret_url}}]
        ask("PATCH", path, location, Content_Type=PATCH, **headers)
        method = {"name": "web-download", "uri": secret_url}
        ask("POST", f"{path}/import", {"method": method}, **headers)
        ask("PATCH", path, patch(password=f"{HUSH}2"), Content_Type=PATCH, **headers)
        address = f"http:%2f%2fuser:{HUSH}@origin%3fsignature={HUSH}"
        ask("DELETE", f"/v2/images/{address}", X_User="")
        assert events()[-1]["requestPath"] == "/v2/images/http:/***@origin?***"
        ask("DELETE", path, User_Agent=f"made of {secret_url}")
        assert len(events()) >= 8
        assert HUSH not in (tmp_path / "audit.log").read_text()


def test_no_name_makes_a_line_of_its_own(tmp_path: Path) -> None:
    """Log injection: newlines of all kinds, and names without end, in all that callers choose."""
    ends = "\n\r\x85\u2028\x1b[2J"
    with audited(tmp_path) as (ask, events):
        image = new(ask, name=f"x{ends}" + "y" * 50)
        ask("GET", f"/v2/images/x%0a{{%22outcome%22:%22success%22}}%e2%80%a8{'z' * 5000}")
        ask("PUT", f"/v2/images/{image}/tags/x%0d%0ay%c2%85")
        ask("DELETE", f"/v2/images/{image}", User_Agent="a\x85b" * 3000, X_User=f"ann{ends}@mine")
        text = (tmp_path / "audit.log").read_bytes()
        assert text.isascii()
        assert [c for c in text.decode() if c != "\n" and not c.isprintable()] == []
        lines = text.decode().splitlines()
        assert len(lines) == len(events()) == 4
        assert max(map(len, lines)) < 8000
        assert events()[3]["initiator"]["id"].startswith("ann\n")


def test_a_file_that_was_moved_away_is_followed_by_a_new_one(tmp_path: Path) -> None:
    """What logrotate does, without a word to the service."""
    with audited(tmp_path) as (ask, events):
        first = new(ask)
        (tmp_path / "audit.log").rename(tmp_path / "audit.log.1")
        second = new(ask)
        assert [each["target"]["id"] for each in events()] == [second]
    assert first in (tmp_path / "audit.log.1").read_text()
    assert (tmp_path / "audit.log").stat().st_mode & 0o7 == 0


@pytest.fixture
def full() -> str:
    """A file that takes nothing: every write meets ENOSPC."""
    return "/dev/full"


def test_a_full_disk_stops_nothing_and_is_told_of_once(
    tmp_path: Path, full: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "audit.log"
    log.symlink_to(full)
    with audited(tmp_path, log, metrics="everybody") as (ask, events):
        for _ in range(3):
            new(ask)
        said = [each for each in caplog.messages if "audit log" in each]
        assert said == ["events are missing in the audit log from now on: No space left on device"]
        assert "headrace_audit_lost_total 3.0" in ask("GET", "/metrics").text
        log.unlink()
        new(ask)
        assert len(events()) == 1
        assert "events are written to the audit log again" in caplog.messages


def test_a_pipe_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    with audited(tmp_path) as (ask, _):
        (tmp_path / "audit.log").unlink()
        os.mkfifo(tmp_path / "audit.log")
        assert new(ask)


def test_a_file_that_cannot_be_is_no_setting(tmp_path: Path) -> None:
    with (
        pytest.raises(errors.ConfigurationError, match="No such file"),
        audited(tmp_path, tmp_path / "nowhere" / "audit.log"),
    ):
        pass


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    with audited(tmp_path, "") as (ask, _):
        new(ask)
    assert not list(tmp_path.rglob("*audit*"))
