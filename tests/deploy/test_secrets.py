"""No secret in any output: of the talkative service, of its audit log, of `headrace -d`.

Every secret has one mark in it, which is looked for in everything that is written.
"""

import base64
import contextlib
import http.server
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome, run
from tests.deploy.test_settings_again import hang_up
from tests.deploy.wire import Wire
from tests.faults.conftest import Start
from tests.faults.conftest import start as start
from tests.faults.service import Service, wait_until
from tools.keystone import PASSWORD, Keystone

MARK = "h1u2s3h4"
BASIC = base64.b64encode(f"ann:{MARK}".encode()).decode()
SECRETS = (MARK, BASIC)
ADDRESS = f"http://user:{MARK}@127.0.0.1:9/{'x'}?signature={MARK}"
HEADERS = (
    f"X-Auth-Token: {MARK}",
    f"X-Service-Token: {MARK}",
    f"Authorization: Basic {BASIC}",
    f"Cookie: session={MARK}",
    f"Referer: {ADDRESS}",
)
JSON_PATCH = "Content-Type: application/openstack-images-v2.1-json-patch"


def hidden(text: str) -> None:
    found = [line for line in text.splitlines() if any(each in line for each in SECRETS)]
    assert found == []


@contextlib.contextmanager
def talkative(start: Start, tmp_path: Path) -> Iterator[tuple[Service, Path]]:
    """A service that says all it can, and its audit log; both are searched at the end."""
    audit = tmp_path / "audit.log"
    (tmp_path / "files").mkdir()
    env = {
        "OS_HEADRACE__AUDIT_LOG": str(audit),
        "OS_HEADRACE__AUDIT_READS": "true",
        "OS_HEADRACE__LOCATION_DIRECTORIES": str(tmp_path / "files"),
        "OS_HEADRACE__GLANCE_REGIONS": f"east:http://u:{MARK}@127.0.0.1:9",
        "OS_DEFAULT__ENABLED_IMPORT_METHODS": "web-download,glance-download",
        "OS_DEFAULT__SHOW_MULTIPLE_LOCATIONS": "true",
        "OS_IMPORT_FILTERING_OPTS__ALLOWED_HOSTS": "127.0.0.1",
        "OS_IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "9",
        "OS_KEYSTONE_AUTHTOKEN__MEMCACHE_SECRET_KEY": MARK,
        "OS_DEFAULT__TRANSPORT_URL": f"rabbit://u:{MARK}@h",
    }
    service = start("--debug", env=env)
    yield service, audit
    log = service.server.log.read_text()
    assert "DEBUG" in log or "INFO" in log
    hidden(log)
    hidden(audit.read_text())


def test_requests_with_a_secret_in_every_place(start: Start, tmp_path: Path) -> None:
    with talkative(start, tmp_path) as (service, audit):
        image = service.create(password=MARK)
        path = f"/v2/images/{image}"
        location = json.dumps({"url": ADDRESS}).encode()
        change = [{"op": "add", "path": "/locations/-", "value": {"url": ADDRESS, "metadata": {}}}]
        for target in ("/v2/images", path, f"{path}/file", "/v2/tasks", "/nothing"):
            service.request("GET", f"{target}?token={MARK}", *HEADERS)
        service.request("POST", f"{path}/locations", *HEADERS, body=location)
        service.request("PATCH", path, JSON_PATCH, *HEADERS, body=json.dumps(change).encode())
        fetch = json.dumps({"method": {"name": "web-download", "uri": ADDRESS}}).encode()
        assert service.request("POST", f"{path}/import", *HEADERS, body=fetch).status == 202
        wait_until(lambda: service.status(image) == "queued", "the failure of the import")
        source = {"name": "glance-download", "glance_region": "east", "glance_image_id": image}
        ask = json.dumps({"method": source}).encode()
        service.request("POST", f"{path}/import", *HEADERS, body=ask)
        wait_until(lambda: service.status(image) == "queued", "the failure of the import")
        assert service.upload(image, b"data", *HEADERS).status == 204
        service.request("GET", f"{path}/file?signature={MARK}", *HEADERS)
        service.request("DELETE", f"{path}?signature={MARK}", *HEADERS)
        assert "update/import" in audit.read_text()


def test_tokens_of_keystone_and_the_password_that_asks_for_them(
    start: Start, tmp_path: Path, keystone: Keystone
) -> None:
    """And an event says whose a token is, by Keystone's ids."""
    audit = tmp_path / "audit.log"
    env = keystone.env() | {
        "OS_HEADRACE__AUDIT_LOG": str(audit),
        "OS_HEADRACE__AUDIT_READS": "true",
        "OS_KEYSTONE_AUTHTOKEN__MEMCACHE_SECRET_KEY": MARK,
    }
    service = start("--debug", env=env)
    member, stranger, nova = (keystone.token(each) for each in ("member", "stranger", "nova"))
    revoked = keystone.token("member")
    keystone.revoke(revoked)
    body = json.dumps({"disk_format": "raw", "container_format": "bare"}).encode()
    made = service.request("POST", "/v2/images", f"X-Auth-Token: {member}", body=body)
    path = f"/v2/images/{made.json['id']}"
    for token, status in ((member, 200), (stranger, 404), (revoked, 401), (f"{member}x", 401)):
        shown = (f"X-Auth-Token: {token}", f"X-Service-Token: {nova}", f"Cookie: {token}")
        for target in (f"{path}?token={token}", f"{path}?token={nova}"):
            assert service.request("GET", target, *shown, f"Referer: /{token}").status == status
        service.request("GET", f"/v2/images/{token}", *shown)
        service.request("GET", "/v2/images", f"X-Storage-Token: {token}", f"User-Agent: {token}")
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    who = [(each["initiator"]["id"], each["initiator"].get("project_id")) for each in events]
    ids = keystone.ids
    assert who[:3] == [(ids["member:user"], ids["demo"])] * 3
    assert (ids["stranger:user"], ids["other"]) in who
    assert ("unknown", None) in who
    assert events[0]["action"] == "create"
    for written in (audit.read_text(), service.server.log.read_text()):
        hidden(written)
        for secret in (member, stranger, nova, revoked, PASSWORD):
            assert secret not in written


def test_a_service_that_keystone_refuses_does_not_repeat_its_password(
    start: Start, tmp_path: Path, keystone: Keystone
) -> None:
    audit = tmp_path / "audit.log"
    env = keystone.env(password=MARK, service_type="") | {"OS_HEADRACE__AUDIT_LOG": str(audit)}
    service = start("--debug", env=env)
    token = keystone.token("member")
    assert service.request("GET", "/v2/images", f"X-Auth-Token: {token}").status == 503
    log = service.server.log.read_text()
    assert "rejected authorization" in log
    hidden(log + audit.read_text())
    assert token not in log


HEADS = [
    f"GET /v2/images?token={MARK} HTTP/1.1 more",
    f"GET /v2/images HTTP/1.1\r\nHost: h\r\nX-Auth-Token {MARK}",
    f"GET /v2/images HTTP/1.1\r\nHost: h\r\nX-Auth-Token : {MARK}",
    f"GET /v2/images HTTP/1.1\r\nHost: h\r\nX-Auth-Token: a\x01{MARK}",
    f"GET /v2/images HTTP/1.1\r\nHost: h\r\nX-Auth-Token: a\r\n {MARK}",
    f"GET /v2/images HTTP/1.1\r\nHost: h\r\nExpect: {MARK}",
    f"GET /v2/images HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {MARK}",
    f"GET /v2/images HTTP/1.1\r\nHost: u:{MARK}@h",
    f"GET http://u:{MARK}@h/v2/images HTTP/1.1\r\nHost: h",
    f"GET /v2/images?a={MARK} HTTP/{MARK}",
    f"{MARK} /v2/images HTTP/1.1\r\nHost: h",
    f"GET /v2/images HTTP/1.1\r\nHost: h\r\nX-Auth-Token: {MARK * 4000}",
]


def test_heads_that_are_refused_are_not_repeated(start: Start, tmp_path: Path) -> None:
    with talkative(start, tmp_path) as (service, _):
        for head in HEADS:
            with Wire(service.server.port) as wire:
                wire.sock.sendall(f"{head}\r\n\r\n".encode())
                wire.sock.recv(65536)
        wait_until(lambda: service.server.log.read_text().count("Invalid request from") >= 5)


def test_a_crash_shows_no_value(start: Start, tmp_path: Path) -> None:
    """The database refuses what it never should: a defect, whose traceback is logged."""
    with talkative(start, tmp_path) as (service, _):
        image = service.create()
        database = sqlite3.connect(service.server.state_dir / "headrace.db", timeout=30)
        with contextlib.closing(database):
            for what in ("INSERT ON image_locations", "UPDATE ON images"):
                database.execute(
                    f"CREATE TRIGGER no_{what.split()[-1]} BEFORE {what} "
                    "BEGIN SELECT RAISE(ABORT, 'a defect'); END"
                )
        file = tmp_path / "files" / MARK
        file.write_bytes(b"data")
        for name, value in (
            ("locations/-", {"url": f"file://{file}", "metadata": {}}),
            ("name", MARK),
        ):
            change = json.dumps([{"op": "add", "path": f"/{name}", "value": value}]).encode()
            target = f"/v2/images/{image}?x={MARK}"
            answer = service.request("PATCH", target, JSON_PATCH, *HEADERS, body=change)
            assert answer.status == 500, answer.body
        assert service.server.log.read_text().count("Traceback") >= 2


def test_a_database_that_cannot_be_reached_is_told_of_without_its_password(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    for url in (
        f"postgresql://glance:{MARK}@127.0.0.1:9/glance",
        f"mysql://glance:{MARK}@127.0.0.1:9/glance",
        f"nonsense://glance:{MARK}@h",
        f"sqlite:////nowhere/x.db?password={MARK}",
    ):
        env = {"OS_DATABASE__CONNECTION": url}
        for words in (("serve", "--port", "0", "--debug"), ("db", "check"), ("store", "check")):
            done = run(*words, "--state-dir", state, env=env)
            assert done.status != 0
            hidden(done.out + done.err)


class _Impostor(http.server.BaseHTTPRequestHandler):
    """Answers all with headers that hold secrets."""

    def _answer(self) -> None:
        self.send_response(404)
        self.send_header("Set-Cookie", MARK)
        self.send_header("X-Subject-Token", MARK)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def impostor() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Impostor) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


ID = "7a1d6f9e-3b1c-4d57-9d68-2f1f8f0b3c55"
COMMANDS = [
    ("add", f"location={ADDRESS}", "disk_format=raw", "container_format=bare"),
    ("add", "disk_format=raw", "container_format=bare"),
    ("upload", ID),
    ("download", ID, "--file", "-"),
    ("import", ID, f"uri={ADDRESS}"),
    ("import", ID, "--uri", ADDRESS),
    ("index",),
    ("details",),
    ("show", ID),
    ("update", ID, "name=x"),
    ("delete", "--force", ID),
    ("clear", "--force"),
    ("tag", ID, "t"),
    ("untag", ID, "t"),
    ("deactivate", ID),
    ("reactivate", ID),
    ("member-add", ID, "p"),
    ("member-delete", ID, "p"),
    ("member-accept", ID, "p"),
    ("member-reject", ID, "p"),
    ("image-members", ID),
    ("member-images", "p"),
    ("stores",),
    ("usage",),
    ("top", "--json"),
    ("md", "list"),
    ("policy", "show"),
    ("version",),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_debugging_a_command_shows_no_secret(words: tuple[str, ...], tmp_path: Path) -> None:
    def told(done: Outcome) -> str:
        # What is written on the command line is the user's own to see in an error about it.
        return (done.out + done.err).replace(ADDRESS, "")

    password = tmp_path / "password"
    password.write_text(MARK)
    with impostor() as host:
        by_token = {"HEADRACE_URL": f"http://{host}", "OS_TOKEN": MARK}
        by_url = {"HEADRACE_URL": f"http://ann:{MARK}@{host}"}
        hidden(told(run("-d", *words, env=by_token)))
        hidden(told(run("-d", *words, env=by_url)))
        by_file = ("--url", f"http://{host}", "--user", "ann", "--password-file", str(password))
        hidden(told(run("-d", *by_file, *words)))


@pytest.mark.parametrize("workers", ["1", "3"])
def test_processes_share_an_audit_log(start: Start, tmp_path: Path, workers: str) -> None:
    """No line is mixed with another; a hang-up, and a file moved away, lose none."""
    audit = tmp_path / "audit.log"
    env = {"OS_HEADRACE__AUDIT_LOG": str(audit)}
    service = start("--workers", workers, env=env)
    made: list[str] = []

    def create() -> None:
        for number in range(25):
            made.append(service.create(name=f"{number}" * 50))

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(made) > 20)
    audit.rename(tmp_path / "audit.log.1")
    for thread in threads:
        thread.join()
    before = service.server.pids()
    hang_up(service.server, lambda: set(service.server.pids()) != set(before))
    made.append(service.create())
    lines = [
        *(tmp_path / "audit.log.1").read_text().splitlines(),
        *audit.read_text().splitlines(),
    ]
    assert sorted(json.loads(line)["target"]["id"] for line in lines) == sorted(made)


def test_the_end_of_a_download_is_told_of(start: Start, tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    service = start(env={"OS_HEADRACE__AUDIT_LOG": str(audit)})
    size = 64 << 20
    image = service.active(bytes(size))

    def ends() -> list[tuple[str, int]]:
        events = [json.loads(line) for line in audit.read_text().splitlines()]
        return [(each["outcome"], each["bytes"]) for each in events if "bytes" in each]

    assert len(service.request("GET", f"/v2/images/{image}/file").body) == size
    wait_until(lambda: len(ends()) == 1)
    with service.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", f"/v2/images/{image}/file"))
        wire.wait_for_head()
    wait_until(lambda: len(ends()) == 2)
    (whole, cut) = ends()
    assert whole == ("success", size)
    assert cut[0] == "failure"
    assert 0 <= cut[1] < size


def test_the_stream_of_the_log_takes_events(start: Start) -> None:
    service = start(env={"OS_HEADRACE__AUDIT_LOG": "-"})
    image = service.create()
    lines = service.server.log.read_text().splitlines()
    (event,) = [json.loads(line) for line in lines if line.startswith("{")]
    assert event["target"]["id"] == image
    assert service.server.stop() in (0, -signal.SIGTERM)
