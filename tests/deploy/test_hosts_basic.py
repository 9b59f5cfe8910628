"""Names and passwords, under every host: without the right ones no byte leaves or arrives."""

import json
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.accounts import shown, write_accounts
from tests.deploy.conftest import OCTETS, RECORD, Deployed, path, require_host
from tests.deploy.wire import Answer, Wire
from tools import hosts

pytestmark = pytest.mark.slow

USERS = (("alice", "mine", "member"), ("rita", "mine", "reader"), ("sam", "yours", "member"))
OFFLOAD_HEADERS = {"x-accel-redirect", "x-sendfile"}
REFUSED = [
    pytest.param((), 401, id="nothing"),
    pytest.param((f"Authorization: {shown('alice', 'wrong')}",), 401, id="wrong password"),
    pytest.param((f"Authorization: {shown('nobody')}",), 401, id="unknown user"),
    pytest.param(
        ("X-Auth-Token: anything", "X-Roles: admin", "Remote-User: alice"), 401, id="word"
    ),
]


def by(name: str) -> str:
    return f"Authorization: {shown(name)}"


def _write_users(place: hosts.Place) -> None:
    place.state_dir.mkdir(exist_ok=True)
    accounts = write_accounts(place.state_dir / "htpasswd", *USERS)
    if place.user is not None:
        user = pwd.getpwnam(place.user)
        for file in (accounts.path, accounts.roles_path):
            os.chown(file, user.pw_uid, user.pw_gid)


@dataclass
class Guarded(Deployed):
    """A host that asks for passwords; ``image`` is alice's."""

    image: str = ""


@pytest.fixture(scope="module", params=hosts.KINDS)
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    require_host(request.param)
    with hosts.running(request.param, auth="http_basic", prepare=_write_users) as host:
        found = Guarded(host)
        record = json.dumps(RECORD | {"visibility": "private"}).encode()
        made = found.ask("POST", "/v2/images", by("alice"), body=record)
        assert made.status == 201, host.logs()
        found.image = str(made.json["id"])
        yield found


def put(guarded: Guarded, image: str, *fields: str) -> Answer:
    return guarded.ask("PUT", path(image), OCTETS, *fields, body=guarded.data)


def test_what_is_open_is(guarded: Guarded) -> None:
    assert guarded.ask("GET", "/").status == 300
    assert guarded.ask("GET", "/healthcheck").status == 200
    asked = guarded.ask("GET", "/v2/images")
    assert (asked.status, asked.body.find(b"images")) == (401, -1)
    assert asked.headers["www-authenticate"] == 'Basic realm="headrace", charset="UTF-8"'


def test_an_upload_by_nobody_leaves_nothing(guarded: Guarded) -> None:
    before = guarded.stored()
    refused = put(guarded, guarded.image)
    assert refused.status == 401
    assert guarded.stored() == before
    shown_now = guarded.ask("GET", f"/v2/images/{guarded.image}", by("alice"))
    assert shown_now.json["status"] == "queued"


def test_its_owner_uploads_and_downloads(guarded: Guarded) -> None:
    uploaded = put(guarded, guarded.image, by("alice"))
    assert uploaded.status == 204, guarded.host.logs()
    answer = guarded.ask("GET", path(guarded.image), by("alice"))
    assert (answer.status, answer.body == guarded.data) == (200, True)
    ranged = guarded.ask("GET", path(guarded.image), by("alice"), "Range: bytes=5-9")
    assert (ranged.status, ranged.body) == (206, guarded.data[5:10])


@pytest.mark.parametrize("ranged", [(), ("Range: bytes=0-9",)], ids=["whole", "range"])
@pytest.mark.parametrize(("fields", "status"), REFUSED)
def test_no_byte_leaves(
    guarded: Guarded, fields: tuple[str, ...], status: int, ranged: tuple[str, ...]
) -> None:
    answer = guarded.ask("GET", path(guarded.image), *fields, *ranged)
    assert answer.status == status
    assert not OFFLOAD_HEADERS & set(answer.headers)
    assert guarded.data[:10] not in answer.body


def test_another_project_and_a_mere_reader_have_no_data(guarded: Guarded) -> None:
    for name, status in (("sam", 404), ("rita", 403)):
        answer = guarded.ask("GET", path(guarded.image), by(name))
        assert (answer.status, guarded.data[:10] in answer.body) == (status, False)


def test_the_server_in_front_is_not_told_of_the_file(guarded: Guarded) -> None:
    """Asked as nginx and Apache ask, at the socket that they use."""
    socket = guarded.host.state_dir / "headrace.sock"
    if guarded.host.name not in ("nginx", "apache"):
        assert not socket.exists() or guarded.host.name == "haproxy"
        return
    for fields, status in ((), 401), ((by("sam"),), 404), ((by("rita"),), 403):
        with Wire(Path(socket)) as wire:
            answer = wire.request("GET", path(guarded.image), *fields)
        assert (answer.status, OFFLOAD_HEADERS & set(answer.headers)) == (status, set())
    with Wire(Path(socket)) as wire:
        told = wire.request("GET", path(guarded.image), by("alice"))
    assert OFFLOAD_HEADERS & set(told.headers)


def test_a_user_who_is_removed_is_out_at_once(guarded: Guarded) -> None:
    """In every process of the host."""
    file = guarded.host.state_dir / "htpasswd"
    lines = file.read_text().splitlines()
    file.write_text("".join(f"{line}\n" for line in lines if not line.startswith("rita:")))
    answers = {guarded.ask("GET", "/v2/images", by("rita")).status for _ in range(3)}
    assert answers == {401}
    assert guarded.ask("GET", "/v2/images", by("alice")).status == 200


def test_no_password_is_in_any_log(guarded: Guarded) -> None:
    said = guarded.host.logs()
    assert said
    for secret in ("alice-secret", shown("alice").partition(" ")[2]):
        assert secret not in said
