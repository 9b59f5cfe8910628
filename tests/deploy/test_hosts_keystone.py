"""Tokens of a real Keystone, under every host: without the right one no byte leaves or arrives."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.deploy.conftest import OCTETS, RECORD, Deployed, path, require_host
from tests.deploy.test_hosts_basic import OFFLOAD_HEADERS
from tests.deploy.test_keystone import forgeries
from tests.deploy.wire import Answer, Wire
from tools import hosts
from tools.keystone import PASSWORD, Keystone

pytestmark = pytest.mark.slow

ADMIN, MEMBER, READER, STRANGER, REVOKED = "admin", "member", "reader", "stranger", "revoked"


@pytest.fixture(scope="session")
def tokens(keystone: Keystone) -> dict[str, str]:
    """One of each kind, for all hosts."""
    found = {who: keystone.token(who) for who in (MEMBER, READER, STRANGER)}
    found |= {ADMIN: keystone.token("admin", project="demo"), REVOKED: keystone.token("member")}
    keystone.revoke(found[REVOKED])
    return found


@dataclass
class Guarded(Deployed):
    """A host that asks a Keystone; ``image`` and ``retired``, deactivated, are the project's."""

    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    project: str = ""
    image: str = ""
    retired: str = ""

    def shown(self, who: str) -> tuple[str, ...]:
        """The headers of a request of ``who``, "" of nobody."""
        return (f"X-Auth-Token: {self.tokens[who]}",) if who else ()

    def new(self) -> str:
        made = self.ask("POST", "/v2/images", *self.shown(MEMBER), body=json.dumps(RECORD).encode())
        assert made.status == 201, self.host.logs()
        return str(made.json["id"])

    def put(self, image: str, who: str) -> Answer:
        return self.ask("PUT", path(image), OCTETS, *self.shown(who), body=self.data)


@pytest.fixture(scope="module", params=hosts.KINDS)
def guarded(
    request: pytest.FixtureRequest, keystone: Keystone, tokens: dict[str, str]
) -> Iterator[Guarded]:
    require_host(request.param)
    with hosts.running(request.param, auth="keystone", conf=keystone.conf()) as host:
        found = Guarded(host, tokens=tokens, project=keystone.ids["demo"])
        found.image, found.retired = found.new(), found.new()
        for image in (found.image, found.retired):
            assert found.put(image, MEMBER).status == 204, host.logs()
        retire = f"/v2/images/{found.retired}/actions/deactivate"
        assert found.ask("POST", retire, *found.shown(ADMIN)).status == 204
        yield found


def check_refused(guarded: Guarded, where: int | Path) -> None:
    """No data, whole or of a range, and no header that has a server in front send any."""
    forged, with_underscores, _ = forgeries(guarded.project)
    ranged = "Range: bytes=0-99"
    for image, fields, status in (
        (guarded.image, (), 401),
        (guarded.image, forged, 401),
        (guarded.image, ("X-Auth-Token: anything", *with_underscores), 401),
        (guarded.image, (*guarded.shown(REVOKED), ranged), 401),
        (guarded.image, (*guarded.shown(STRANGER), *forged), 404),
        (guarded.image, guarded.shown(READER), 403),
        (guarded.retired, guarded.shown(MEMBER), 403),
        (guarded.retired, (*guarded.shown(MEMBER), ranged), 403),
    ):
        with Wire(where) as wire:
            answer = wire.request("GET", path(image), *fields)
        assert answer.status == status, guarded.host.logs()
        assert not OFFLOAD_HEADERS & set(answer.headers)
        assert guarded.data[:10] not in answer.body


def test_a_member_has_the_data(guarded: Guarded) -> None:
    answer = guarded.ask("GET", path(guarded.image), *guarded.shown(MEMBER))
    assert (answer.status, answer.body == guarded.data) == (200, True)
    ranged = guarded.ask("GET", path(guarded.image), *guarded.shown(MEMBER), "Range: bytes=5-9")
    assert (ranged.status, ranged.body) == (206, guarded.data[5:10])


def test_nobody_else_has(guarded: Guarded) -> None:
    check_refused(guarded, guarded.port)


def test_the_server_in_front_is_not_told_of_the_file(guarded: Guarded) -> None:
    """Asked as nginx and Apache ask, at the socket that they use."""
    socket = guarded.host.state_dir / "headrace.sock"
    if guarded.host.name not in ("nginx", "apache"):
        assert not socket.exists() or guarded.host.name == "haproxy"
        return
    check_refused(guarded, socket)
    with Wire(socket) as wire:
        told = wire.request("GET", path(guarded.image), *guarded.shown(MEMBER))
    assert OFFLOAD_HEADERS & set(told.headers)


def test_an_upload_by_somebody_else_leaves_nothing(guarded: Guarded) -> None:
    image = guarded.new()
    before = guarded.stored()
    for who, status in (("", 401), (REVOKED, 401), (STRANGER, 404), (READER, 403)):
        assert guarded.put(image, who).status == status
    assert guarded.stored() == before
    shown = guarded.ask("GET", f"/v2/images/{image}", *guarded.shown(READER))
    assert shown.json["status"] == "queued"


def test_no_token_is_in_any_log(guarded: Guarded) -> None:
    said = guarded.host.logs()
    assert said
    for secret in (*guarded.tokens.values(), PASSWORD):
        assert secret not in said
