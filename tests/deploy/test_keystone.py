"""Callers who show tokens of a real Keystone, before running servers."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.deploy.wire import Answer, Wire
from tests.needs import require_command, require_environment
from tools import hosts
from tools import keystone as keystones
from tools.keystone import PASSWORD, Keystone
from tools.serving import COMMAND, READY, Serving, environment, serving

pytestmark = pytest.mark.slow

GUARD = 60.0  # seconds; a hang guard
UNKNOWN = "access.unauthenticated"
OCTETS = "Content-Type: application/octet-stream"
RECORD = {"disk_format": "raw", "container_format": "bare"}
DATA = b"bytes of an image that is in no format" * 3000

# What keystonemiddleware tells an application, and what older ones told it.
FORGED = {
    "X-Identity-Status": "Confirmed",
    "X-Service-Identity-Status": "Confirmed",
    "X-Roles": "admin,member,service",
    "X-Role": "admin",
    "X-Service-Roles": "admin,service",
    "X-User-Id": "mallory",
    "X-User": "mallory",
    "X-Is-Admin-Project": "True",
    "X-Service-Catalog": "[]",
    "OpenStack-System-Scope": "all",
}


@dataclass(frozen=True)
class Guarded:
    """A service that asks a Keystone who is calling, and the requests of its callers."""

    port: int | Path
    keystone: Keystone

    def ask(self, method: str, target: str, token: str, *fields: str, body: bytes = b"") -> Answer:
        shown = (f"X-Auth-Token: {token}",) if token else ()
        with Wire(self.port) as wire:
            return wire.request(method, target, "Connection: close", *shown, *fields, body=body)

    def create(self, token: str, **values: object) -> str:
        """A new queued image; its id."""
        body = json.dumps(RECORD | values).encode()
        answer = self.ask("POST", "/v2/images", token, body=body)
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def add(self, token: str, **values: object) -> str:
        """A new active image; its id."""
        image = self.create(token, **values)
        assert self.ask("PUT", file_of(image), token, OCTETS, body=DATA).status == 204
        return image

    def ids(self, token: str) -> set[str]:
        answer = self.ask("GET", "/v2/images?limit=1000", token)
        assert answer.status == 200, answer.body
        return {each["id"] for each in answer.json["images"]}


def file_of(image: str) -> str:
    return f"/v2/images/{image}/file"


def check_refused(answer: Answer, status: int, code: str) -> None:
    """No data, and no header that has a server in front send any."""
    assert (answer.status, answer.headers["x-headrace-error"]) == (status, code), answer.body
    assert DATA[:16] not in answer.body
    assert not {"x-accel-redirect", "x-sendfile"} & set(answer.headers)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def running(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Debugging, so that its log says all that it ever may."""
    with serving(tmp_path_factory.mktemp("guarded"), "--debug", env=keystone.env()) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(running: Serving, keystone: Keystone) -> Guarded:
    return Guarded(running.port, keystone)


@pytest.fixture(scope="module")
def member(keystone: Keystone) -> str:
    return keystone.token("member")


@pytest.fixture(scope="module")
def reader(keystone: Keystone) -> str:
    return keystone.token("reader")


@pytest.fixture(scope="module")
def image(guarded: Guarded, member: str) -> str:
    return guarded.add(member)


@pytest.fixture(scope="module")
def brief(keystone: Keystone) -> Iterator[Keystone]:
    """Whose tokens are good for ten seconds."""
    with keystone.with_expiration(10) as running:
        yield running


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    """A Keystone of these tests' own, which has the keys of the other."""
    require_environment(".venv-keystone")
    with keystones.running(tmp_path_factory.mktemp("apart") / "keystone") as running:
        yield running


@pytest.fixture
def dying(apart: Keystone) -> Keystone:
    """A Keystone that may be stopped; one that was is running again."""
    if not apart.is_running():
        apart.start()
    return apart


def test_who_shows_no_token_is_told_where_to_get_one(guarded: Guarded, image: str) -> None:
    for target in ("/v2/images", "/v2/", file_of(image), "/nowhere", "/v2/openapi.json"):
        for token in ("", "x", "x" * 600, "a token", '"', "%s", "é"):
            answer = guarded.ask("GET", target, token)
            check_refused(answer, 401, UNKNOWN)
            assert answer.headers["www-authenticate"] == f'Keystone uri="{guarded.keystone.url}"'


def test_what_needs_no_token(guarded: Guarded) -> None:
    for target, status in {
        "/": 300, "/versions": 200, "/v3/images": 300, "/healthcheck": 200, "/metrics": 200,
    }.items():  # fmt: skip
        assert guarded.ask("GET", target, "").status == status, target


def test_projects_and_roles_are_those_of_the_token(
    guarded: Guarded, member: str, reader: str, image: str
) -> None:
    shown = guarded.ask("GET", f"/v2/images/{image}", reader)
    assert shown.json["owner"] == guarded.keystone.ids["demo"]
    assert guarded.ask("GET", file_of(image), member).body == DATA
    stranger = guarded.keystone.token("stranger")
    assert guarded.ask("GET", f"/v2/images/{image}", stranger).status == 404
    assert image not in guarded.ids(stranger)
    check_refused(guarded.ask("GET", file_of(image), stranger), 404, "image.not_found")
    body = json.dumps(RECORD).encode()
    refused = guarded.ask("POST", "/v2/images", reader, body=body)
    check_refused(refused, 403, "access.forbidden")
    check_refused(guarded.ask("GET", file_of(image), reader), 403, "access.forbidden")
    # The same user in another project is somebody else.
    elsewhere = guarded.keystone.token("member", project="other")
    assert guarded.ask("GET", f"/v2/images/{image}", elsewhere).status == 404
    admin = guarded.keystone.token("admin")
    assert image in guarded.ids(admin)
    assert guarded.ask("GET", file_of(image), admin).body == DATA


def forgeries(project: str) -> Iterator[tuple[str, ...]]:
    """What a caller may send to look like somebody else."""
    claims = {**FORGED, "X-Project-Id": project, "X-Tenant-Id": project, "X-Tenant": project}
    fields = tuple(f"{name}: {value}" for name, value in claims.items())
    yield fields
    yield tuple(field.replace("-", "_", 2) for field in fields)
    yield (*fields, *fields)


def test_headers_from_outside_never_count(guarded: Guarded, image: str, reader: str) -> None:
    stranger = guarded.keystone.token("stranger")
    body = json.dumps(RECORD).encode()
    for fields in forgeries(guarded.keystone.ids["demo"]):
        answer = guarded.ask("GET", file_of(image), "", *fields)
        check_refused(answer, 401, UNKNOWN)
        answer = guarded.ask("GET", file_of(image), stranger, *fields)
        check_refused(answer, 404, "image.not_found")
        answer = guarded.ask("POST", "/v2/images", reader, *fields, body=body)
        check_refused(answer, 403, "access.forbidden")


def test_a_token_must_be_of_a_project(guarded: Guarded, image: str) -> None:
    for scope in ("unscoped", {"system": {"all": True}}):
        token = guarded.keystone.token("admin", scope=scope)
        check_refused(guarded.ask("GET", file_of(image), token), 403, "access.wrong_scope")
        # A service's token of a project makes no other of it.
        service = f"X-Service-Token: {guarded.keystone.token('nova')}"
        refused = guarded.ask("GET", file_of(image), token, service)
        check_refused(refused, 403, "access.wrong_scope")


def test_an_expired_token_is_good_only_with_that_of_a_service(
    guarded: Guarded, brief: Keystone, image: str, member: str
) -> None:
    token = brief.token("member")
    assert guarded.ask("GET", f"/v2/images/{image}", token).status == 200  # and is known now
    wait_until(lambda: guarded.ask("GET", f"/v2/images/{image}", token).status == 401)
    service = guarded.keystone.token("nova")
    for target in (f"/v2/images/{image}", file_of(image), file_of(image)):
        assert guarded.ask("GET", target, token, f"X-Service-Token: {service}").status == 200
    # One that is nobody's, a user's, or not there.
    for other in ("x" * 180, member):
        answer = guarded.ask("GET", file_of(image), token, f"X-Service-Token: {other}")
        check_refused(answer, 401, UNKNOWN)
    check_refused(guarded.ask("GET", file_of(image), token), 401, UNKNOWN)


def test_a_wrong_token_of_a_service_is_as_none(guarded: Guarded, image: str, member: str) -> None:
    for other in ("x" * 180, "a b", guarded.keystone.token("reader")):
        answer = guarded.ask("GET", file_of(image), member, f"X-Service-Token: {other}")
        assert (answer.status, answer.body) == (200, DATA)


@contextmanager
def begun(guarded: Guarded, image: str, token: str) -> Iterator[Wire]:
    """An upload of which half has been sent."""
    with Wire(guarded.port) as wire:
        fields = (OCTETS, f"Content-Length: {len(DATA)}", f"X-Auth-Token: {token}")
        wire.send(wire.head("PUT", file_of(image), *fields), DATA[: len(DATA) // 2])
        yield wire


def test_an_upload_outlives_its_token(running: Serving, guarded: Guarded, brief: Keystone) -> None:
    """And what has to be tidied up after it needs no token (OSSA-2015-020)."""
    admin = guarded.keystone.token("admin", project="demo")

    def status(image: str) -> str:
        return str(guarded.ask("GET", f"/v2/images/{image}", admin).json["status"])

    finished, broken, deleted = (guarded.create(admin) for _ in range(3))
    token = brief.token("member")
    with (
        begun(guarded, finished, token) as first,
        begun(guarded, broken, token) as second,
        begun(guarded, deleted, token) as third,
    ):
        wait_until(lambda: {status(each) for each in (finished, broken, deleted)} == {"saving"})
        wait_until(lambda: guarded.ask("GET", "/v2/images?limit=1", token).status == 401)
        assert guarded.ask("DELETE", f"/v2/images/{deleted}", admin).status == 204
        first.send(DATA[len(DATA) // 2 :])
        assert first.answer("PUT").status == 204
        third.send(DATA[len(DATA) // 2 :])
        assert third.answer("PUT").status == 410
        second.sock.close()
        wait_until(lambda: status(broken) == "queued")
    assert guarded.ask("GET", file_of(finished), admin).body == DATA
    kept = {path.name for path in running.image_dir.iterdir()}
    assert finished in kept
    assert not {broken, deleted} & kept


def test_an_application_credential_is_good_for_its_paths_only(guarded: Guarded, image: str) -> None:
    keystone = guarded.keystone
    keystone.register(f"http://127.0.0.1:{guarded.port}")
    rule = {"service": "image", "method": "GET", "path": f"/v2/images/{image}"}
    user, member = keystone.ids["member:user"], keystone.token("member")
    body = {"name": "narrow", "secret": PASSWORD, "access_rules": [rule]}
    status, _, made = keystone.request(
        "POST", f"/users/{user}/application_credentials", {"application_credential": body}, member
    )
    assert status == 201, made
    shown = {"id": made["application_credential"]["id"], "secret": PASSWORD}
    identity = {"methods": ["application_credential"], "application_credential": shown}
    _, headers, _ = keystone.request(
        "POST", "/auth/tokens", {"auth": {"identity": identity}}, token=""
    )
    narrow = headers["X-Subject-Token"]
    # In turns: that it is known for the one path says nothing of the others.
    for _ in range(2):
        assert guarded.ask("GET", f"/v2/images/{image}", narrow).status == 200
        for method, target in (("GET", file_of(image)), ("DELETE", f"/v2/images/{image}")):
            answer = guarded.ask(method, target, narrow)
            check_refused(answer, 401, UNKNOWN)


def test_no_log_says_a_token_or_a_password(
    running: Serving, guarded: Guarded, member: str, reader: str
) -> None:
    """Of all the tests of this server above, at level DEBUG (OSSA-2014-004)."""
    junk = "gAAAAA" + "junk" * 40
    assert guarded.ask("GET", "/v2/images", junk, f"X-Service-Token: {junk}").status == 401
    log = running.log.read_text()
    assert "keystonemiddleware" in log
    for secret in (member, reader, junk, PASSWORD):
        assert secret not in log


def test_a_revoked_token_is_refused_once_what_was_kept_is_old(
    serve: Serve, keystone: Keystone
) -> None:
    guarded = Guarded(serve(env=keystone.env(token_cache_time=1)).port, keystone)
    token = keystone.token("member")
    assert guarded.ask("GET", "/v2/images", token).status == 200
    keystone.revoke(token)
    wait_until(lambda: guarded.ask("GET", "/v2/images", token).status == 401)


def test_without_keystone_only_who_is_known_is_served(
    serve: Serve, keystone: Keystone, dying: Keystone
) -> None:
    service = f"X-Service-Token: {keystone.token('nova')}"
    env = {"OS_DEFAULT__DEBUG": "true"}
    server = serve(env=dying.env(http_request_max_retries=0) | env)
    guarded = Guarded(server.port, dying)
    known, unknown = dying.token("member"), dying.token("member")
    image = guarded.add(known, name="kept")
    dying.stop()
    answer = guarded.ask("GET", file_of(image), unknown)
    check_refused(answer, 503, "access.keystone_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    refused = guarded.ask("GET", file_of(image), known, service)
    check_refused(refused, 503, "access.keystone_unavailable")
    check_refused(guarded.ask("GET", "/v2/images", ""), 401, UNKNOWN)
    assert guarded.ask("GET", "/healthcheck", "").status == 200
    assert guarded.ask("GET", file_of(image), known).body == DATA
    dying.start()
    assert guarded.ask("GET", file_of(image), unknown).body == DATA
    assert unknown not in server.log.read_text()


def test_a_keystone_that_says_nothing_is_given_up(serve: Serve, keystone: Keystone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v3"
        options = keystone.env(auth_url=url, http_connect_timeout=1, http_request_max_retries=0)
        guarded = Guarded(serve(env=options).port, keystone)
        answer = guarded.ask("GET", "/v2/images", "x" * 40)
        check_refused(answer, 503, "access.keystone_unavailable")


def test_a_service_that_keystone_does_not_know_serves_nobody(
    serve: Serve, keystone: Keystone
) -> None:
    server = serve(env=keystone.env(password="not this one"))
    answer = Guarded(server.port, keystone).ask("GET", "/v2/images", keystone.token("member"))
    check_refused(answer, 503, "access.keystone_unavailable")
    log = server.log.read_text()
    assert "rejected authorization" in log
    assert "not this one" not in log


def test_with_anonymous_access_nobody_may_do_next_to_nothing(
    serve: Serve, keystone: Keystone
) -> None:
    env = keystone.env() | {"OS_DEFAULT__ALLOW_ANONYMOUS_ACCESS": "true"}
    guarded = Guarded(serve(env=env).port, keystone)
    public = guarded.add(keystone.token("admin"), visibility="public")
    for token in ("", "x" * 40):
        for method, target in (
            ("GET", "/v2/images"), ("POST", "/v2/images"), ("DELETE", f"/v2/images/{public}"),
            ("GET", file_of(public)),
        ):  # fmt: skip
            body = b"{}" if method == "POST" else b""
            answer = guarded.ask(method, target, token, body=body)
            assert answer.status in (403, 404), (method, target)
            assert DATA[:16] not in answer.body
    assert public in guarded.ids(keystone.token("reader"))


def rules(directory: Path, text: str) -> dict[str, str]:
    """The environment of a service with this policy file."""
    file = directory / "rules.yaml"
    file.write_text(text)
    return {"OS_OSLO_POLICY__POLICY_FILE": str(file)}


def test_what_nobody_may_do_is_for_rules_to_say(
    serve: Serve, keystone: Keystone, tmp_path: Path
) -> None:
    said = '{"get_images": "@", "get_image": "@", "download_image": "@"}'
    anonymous = {"OS_DEFAULT__ALLOW_ANONYMOUS_ACCESS": "true"}
    server = serve(env=keystone.env() | anonymous | rules(tmp_path, said))
    guarded = Guarded(server.port, keystone)
    admin = keystone.token("admin", project="demo")
    public, private = guarded.add(admin, visibility="public"), guarded.add(admin)
    for token in ("", "x" * 40):
        assert guarded.ids(token) == {public}
        assert guarded.ask("GET", file_of(public), token).body == DATA
        check_refused(guarded.ask("GET", file_of(private), token), 404, "image.not_found")
        refused = guarded.ask("DELETE", f"/v2/images/{public}", token)
        check_refused(refused, 403, "access.forbidden")


def test_rules_of_a_file_are_told_of_both_tokens(
    serve: Serve, keystone: Keystone, tmp_path: Path
) -> None:
    """Who is an administrator, too, is for them to say."""
    said = f"""
"context_is_admin": "role:admin and project_id:{keystone.ids["admin"]}"
"download_image": "service_roles:service or user_id:{keystone.ids["admin:user"]}"
"""
    guarded = Guarded(serve(env=keystone.env() | rules(tmp_path, said)).port, keystone)
    member = keystone.token("member")
    image = guarded.add(member)
    check_refused(guarded.ask("GET", file_of(image), member), 403, "access.forbidden")
    service = f"X-Service-Token: {keystone.token('nova')}"
    assert guarded.ask("GET", file_of(image), member, service).body == DATA
    check_refused(guarded.ask("GET", file_of(image), member), 403, "access.forbidden")
    assert guarded.ask("GET", file_of(image), keystone.token("admin")).body == DATA
    body = json.dumps(RECORD | {"visibility": "public"}).encode()
    for project, status in ("admin", 201), ("demo", 403):
        admin = keystone.token("admin", project=project)
        assert guarded.ask("POST", "/v2/images", admin, body=body).status == status


def test_flavor_of_a_glance_api_conf(serve: Serve, keystone: Keystone, tmp_path: Path) -> None:
    """And addresses beyond this machine may be bound, since callers are asked who they are."""
    file = tmp_path / "glance-api.conf"
    conf = keystone.conf().replace("[headrace]\nauth_strategy = keystone\n", "")
    file.write_text(f"{conf}[paste_deploy]\nflavor = keystone+cachemanagement\n")
    server = serve("--config-file", str(file), "--host", "0.0.0.0")
    guarded = Guarded(server.port, keystone)
    check_refused(guarded.ask("GET", "/v2/images", ""), 401, UNKNOWN)
    assert guarded.ask("GET", "/v2/images", keystone.token("reader")).status == 200
    log = server.log.read_text()
    assert "keystone" not in log.replace("keystonemiddleware", "")
    assert "TOKENS CROSS THE NETWORK" in log


@contextmanager
def behind_nginx(state_dir: Path, env: dict[str, str]) -> Iterator[Path]:
    """The Unix socket of a service that takes what nginx received."""
    words = [COMMAND, "serve", "--behind", "nginx", "--state-dir", state_dir]
    state_dir.mkdir()
    with (state_dir / "log").open("wb") as log:
        process = subprocess.Popen(words, env=environment(env), stdout=log, stderr=log)
    try:
        wait_until(lambda: READY in (state_dir / "log").read_text())
        yield state_dir / "headrace.sock"
    finally:
        process.terminate()
        process.wait(GUARD)


def test_an_upload_that_nginx_received_outlives_its_token(
    keystone: Keystone, brief: Keystone, tmp_path: Path
) -> None:
    """It was good when nginx asked; without the body in a file it is as expired as ever."""
    state = tmp_path / "state"
    token = brief.token("member")
    with behind_nginx(state, keystone.env()) as sock:
        guarded = Guarded(sock, keystone)
        admin = keystone.token("admin", project="demo")
        images = [guarded.create(admin) for _ in range(2)]
        wait_until(lambda: guarded.ask("GET", "/v2/images?limit=1", token).status == 401)
        arrived = state / "images" / ".headrace-uploads" / "0000000001"
        said = (
            OCTETS, "X-Headrace-Upload: file", f"X-Headrace-Upload-File: {arrived}",
            f"X-Headrace-Upload-Length: {len(DATA)}",
        )  # fmt: skip
        asking = guarded.ask("PUT", file_of(images[0]), token, OCTETS, "X-Headrace-Upload: ask")
        assert asking.status == 403  # which is what nginx understands
        check_refused(guarded.ask("PUT", file_of(images[0]), "", *said), 401, UNKNOWN)
        check_refused(guarded.ask("PUT", file_of(images[0]), "x" * 180, *said), 401, UNKNOWN)
        arrived.write_bytes(DATA)  # now, since the housekeeping takes what nobody asks for
        arrived.chmod(0o600)
        assert guarded.ask("PUT", file_of(images[0]), token, *said).status == 204
        refused = guarded.ask("PUT", file_of(images[1]), token, OCTETS, body=DATA)
        check_refused(refused, 401, UNKNOWN)
        assert guarded.ask("GET", file_of(images[0]), token).status == 401
        shown = guarded.ask("GET", f"/v2/images/{images[0]}", admin).json
        assert (shown["status"], shown["size"]) == ("active", len(DATA))


@pytest.fixture
def memcached(tmp_path: Path) -> Iterator[str]:
    """The address of a memcached of the test's own."""
    program = require_command("memcached")
    port = hosts.free_port()
    words = [program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "nobody", "-m", "16"]
    with (tmp_path / "memcached.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        hosts.wait_for_port(port, [process])
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(GUARD)


def test_nodes_share_what_keystone_said(
    serve: Serve, memcached: str, dying: Keystone, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"memcached_servers": memcached, "http_request_max_retries": 0}
    first, second = (
        Guarded(serve(env=dying.env(**options), state_dir=tmp_path / name).port, dying)
        for name in ("first", "second")
    )
    known, unknown = dying.token("member"), dying.token("member")
    assert first.ask("GET", "/v2/images", known).status == 200
    dying.stop()
    assert second.ask("GET", "/v2/images", known).status == 200
    answer = second.ask("GET", "/v2/images", unknown)
    check_refused(answer, 503, "access.keystone_unavailable")
