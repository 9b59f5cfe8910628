"""What a real Keystone says that projects may have, before running servers."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from headrace import config, keystone_settings
from headrace.model import Resource
from headrace.service.limits import KeystoneLimits
from tests.cli.conftest import run
from tests.conftest import Serve
from tests.deploy.wire import Answer, Wire
from tests.needs import require_environment
from tools import keystone as keystones
from tools.keystone import PASSWORD, REGION, Keystone
from tools.serving import Serving, serving

pytestmark = pytest.mark.slow

GUARD = 60.0  # seconds; a hang guard
MIB = 1 << 20
OCTETS = "Content-Type: application/octet-stream"
SIZE, STAGE = "image_size_total", "image_stage_total"
COUNT, UPLOADING = "image_count_total", "image_count_uploading"
EXCEEDED = (413, "quota.exceeded")
UNAVAILABLE = (503, "quota.limits_unavailable")


@dataclass
class Limits:
    """A Keystone with limits of the image service; by their names, those of all and of projects."""

    keystone: Keystone
    service: str
    registered: dict[str, str] = field(default_factory=dict)
    own: dict[tuple[str, str], str] = field(default_factory=dict)

    def register(self, name: str, number: int) -> None:
        """Give all projects a limit, or another."""
        if name not in self.registered:
            self.registered[name] = self._create("registered_limit", name, default_limit=number)
            return
        values = {"registered_limit": {"default_limit": number}}
        path = f"/registered_limits/{self.registered[name]}"
        assert self.keystone.request("PATCH", path, values)[0] == 200

    def set(self, project: str, name: str, number: int) -> None:
        """Give one project another."""
        self.forget(project, name)
        whose = self.keystone.ids[project]
        made = self._create("limit", name, project_id=whose, resource_limit=number)
        self.own[project, name] = made

    def forget(self, project: str, name: str) -> None:
        found = self.own.pop((project, name), None)
        if found is not None:
            assert self.keystone.request("DELETE", f"/limits/{found}")[0] == 204

    def _create(self, kind: str, name: str, **values: object) -> str:
        new = {"service_id": self.service, "region_id": REGION, "resource_name": name, **values}
        status, _, made = self.keystone.request("POST", f"/{kind}s", {f"{kind}s": [new]})
        assert status == 201, made
        found = [each for each in made[f"{kind}s"] if new.items() <= each.items()]
        return str(found[0]["id"])

    def env(self, kept: float = 0, **more: object) -> dict[str, str]:
        """The settings of a service that asks for them, as the environment."""
        options = {
            "auth_type": "password",
            "auth_url": self.keystone.url,
            "username": "headrace",
            "password": PASSWORD,
            "user_domain_id": "default",
            "system_scope": "all",
            "endpoint_service_type": "image",
            "endpoint_region_name": REGION,
        }
        options |= {name: str(value) for name, value in more.items()}
        return {
            "OS_DEFAULT__USE_KEYSTONE_LIMITS": "true",
            "OS_HEADRACE__LIMIT_CACHE_TIME": str(kept),
            **{f"OS_OSLO_LIMIT__{name.upper()}": value for name, value in options.items()},
        }


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limits]:
    """Of a Keystone of its own, which may be stopped; started again after each test."""
    require_environment(".venv-keystone")
    with keystones.running(tmp_path_factory.mktemp("keystone")) as keystone:
        keystone.register("http://127.0.0.1:9292")
        roles = {each["name"]: each["id"] for each in keystone.request("GET", "/roles")[2]["roles"]}
        path = f"/system/users/{keystone.ids['headrace:user']}/roles/{roles['reader']}"
        assert keystone.request("PUT", path)[0] == 204
        yield Limits(keystone, keystone.ids["image"])


@pytest.fixture(autouse=True)
def usual(limits: Limits) -> Iterator[None]:
    """What each test begins with."""
    for name, number in ((SIZE, 2), (STAGE, 1), (COUNT, 4), (UPLOADING, -1)):
        limits.register(name, number)
    yield
    for project, name in list(limits.own):
        limits.forget(project, name)


@pytest.fixture(scope="module")
def running(limits: Limits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Callers are Keystone's, whose limits are asked for every time."""
    env = limits.keystone.env(token_cache_time=3600) | limits.env()
    with serving(tmp_path_factory.mktemp("limited"), "--debug", env=env) as server:
        yield server


@dataclass(frozen=True)
class Caller:
    port: int
    token: str

    def ask(self, method: str, target: str, *fields: str, body: bytes = b"") -> Answer:
        shown = (f"X-Auth-Token: {self.token}",) if self.token else ()
        with Wire(self.port) as wire:
            return wire.request(method, target, "Connection: close", *shown, *fields, body=body)

    def create(self) -> Answer:
        record = b'{"disk_format": "raw", "container_format": "bare"}'
        return self.ask("POST", "/v2/images", body=record)

    def upload(self, image: str, size: int) -> Answer:
        return self.ask("PUT", f"/v2/images/{image}/file", OCTETS, body=bytes(size))

    def usage(self) -> dict[str, dict[str, int]]:
        answer = self.ask("GET", "/v2/info/usage")
        assert answer.status == 200, answer.body
        found: dict[str, dict[str, int]] = answer.json["usage"]
        return found

    def images(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/v2/images").json["images"]
        return found

    def tidy(self) -> None:
        for image in self.images():
            assert self.ask("DELETE", f"/v2/images/{image['id']}").status == 204


def said(answer: Answer) -> tuple[int, str | None]:
    return answer.status, answer.headers.get("x-headrace-error")


@pytest.fixture
def demo(running: Serving, limits: Limits) -> Iterator[Caller]:
    caller = Caller(running.port, limits.keystone.token("member", project="demo"))
    yield caller
    caller.tidy()


@pytest.fixture
def other(running: Serving, limits: Limits) -> Iterator[Caller]:
    caller = Caller(running.port, limits.keystone.token("member", project="other"))
    yield caller
    caller.tidy()


def test_what_is_registered_limits_projects(demo: Caller) -> None:
    assert demo.usage() == {
        SIZE: {"limit": 2, "usage": 0},
        STAGE: {"limit": 1, "usage": 0},
        COUNT: {"limit": 4, "usage": 0},
        UPLOADING: {"limit": -1, "usage": 0},
    }
    made = [demo.create() for _ in range(5)]
    assert [each.status for each in made] == [201, 201, 201, 201, 413]
    assert said(made[-1]) == EXCEEDED
    first, second, third = (str(each.json["id"]) for each in made[:3])
    assert demo.upload(first, MIB).status == 204
    assert said(demo.upload(second, MIB + 1)) == EXCEEDED
    assert demo.upload(second, MIB).status == 204
    staged = demo.ask("PUT", f"/v2/images/{third}/stage", OCTETS, body=bytes(MIB + 1))
    assert said(staged) == EXCEEDED
    assert demo.usage()[SIZE] == {"limit": 2, "usage": 2}


def test_a_projects_own_limit_takes_the_place_of_what_is_registered(
    limits: Limits, demo: Caller, other: Caller
) -> None:
    limits.set("other", COUNT, 1)
    assert (demo.usage()[COUNT]["limit"], other.usage()[COUNT]["limit"]) == (4, 1)
    assert other.create().status == 201
    assert said(other.create()) == EXCEEDED
    limits.set("other", STAGE, 0)
    assert other.usage()[STAGE] == {"limit": 0, "usage": 0}
    limits.set("other", COUNT, -1)
    assert [other.create().status for _ in range(5)] == [201] * 5


def test_a_changed_limit_holds_from_then_on(limits: Limits, demo: Caller) -> None:
    limits.register(COUNT, 1)
    assert demo.create().status == 201
    assert said(demo.create()) == EXCEEDED
    limits.register(COUNT, 2)
    assert demo.create().status == 201
    assert said(demo.create()) == EXCEEDED


def test_no_crowd_passes_keystones_limits(demo: Caller) -> None:
    """oslo.limit looks, and would let in all who look at the same time."""
    number = 12
    start = threading.Barrier(number)

    def create(_: int) -> int:
        start.wait(timeout=GUARD)
        return demo.create().status

    with ThreadPoolExecutor(number) as pool:
        made = list(pool.map(create, range(number)))
    assert sorted(made) == [201] * 4 + [413] * 8
    assert len(demo.images()) == 4


def test_without_keystone_nothing_is_taken(limits: Limits, demo: Caller) -> None:
    """What takes nothing needs no limits."""
    image, full, staged = (str(demo.create().json["id"]) for _ in range(3))
    assert demo.upload(full, 5).status == 204
    assert demo.ask("PUT", f"/v2/images/{staged}/stage", OCTETS, body=b"hello").status == 204
    admin = Caller(demo.port, limits.keystone.token("admin", project="demo"))
    assert admin.ask("GET", "/v2/tasks").status == 200
    place = {"import_from": "http://93.184.215.14/", "import_from_format": "raw"}
    properties = {"disk_format": "raw", "container_format": "bare"}
    task = {"type": "import", "input": place | {"image_properties": properties}}
    direct = {"method": {"name": "glance-direct"}}
    limits.keystone.stop()
    try:
        refused = [
            demo.create(),
            demo.upload(image, 5),
            demo.ask("PUT", f"/v2/images/{image}/stage", OCTETS, body=b"hello"),
            demo.ask("POST", f"/v2/images/{staged}/import", body=json.dumps(direct).encode()),
            admin.ask("POST", "/v2/tasks", body=json.dumps(task).encode()),
            demo.ask("GET", "/v2/info/usage"),
        ]
        assert [said(each) for each in refused] == [UNAVAILABLE] * 6
        assert [each.headers["retry-after"] for each in refused] == ["5"] * 6
        assert demo.ask("GET", f"/v2/images/{full}/file").body == bytes(5)
        assert {each["id"]: each["status"] for each in demo.images()} == {
            image: "queued",
            full: "active",
            staged: "uploading",
        }
        assert demo.ask("DELETE", f"/v2/images/{full}").status == 204
    finally:
        limits.keystone.start()
    assert demo.upload(image, 5).status == 204
    assert demo.usage()[SIZE] == {"limit": 2, "usage": 1}


def test_what_keystone_said_is_kept_for_a_time(limits: Limits, serve: Serve) -> None:
    server = serve(env=limits.env(kept=3600))
    caller = Caller(server.port, "")
    assert caller.create().status == 201
    limits.register(COUNT, 1)
    limits.keystone.stop()
    try:
        assert [caller.create().status for _ in range(4)] == [201, 201, 201, 413]
    finally:
        limits.keystone.start()


def test_the_command_shows_them(limits: Limits, serve: Serve) -> None:
    server = serve(env=limits.env())
    outcome = run("usage", env={"HEADRACE_URL": server.url})
    assert outcome.out.splitlines()[2:] == [
        "image_size_total                  0            2",
        "image_stage_total                 0            1",
        "image_count_total                 0            4",
        "image_count_uploading             0         none",
    ]
    limits.keystone.stop()
    try:
        away = run("usage", env={"HEADRACE_URL": server.url})
    finally:
        limits.keystone.start()
    assert away.status == 1
    assert "[quota.limits_unavailable]" in away.err


@pytest.mark.parametrize(
    ("wrong", "logged"),
    [
        ({"password": "not the password"}, "requires authentication"),
        ({"system_scope": "", "project_name": "service", "project_domain_id": "default"}, "403"),
        ({"endpoint_region_name": "nowhere"}, "Region not found"),
        ({"endpoint_id": "nothing"}, "endpoint"),
    ],
)
def test_who_may_not_ask_or_asks_for_another_gives_nothing_away(
    limits: Limits, serve: Serve, wrong: dict[str, object], logged: str
) -> None:
    server = serve(env=limits.env(**wrong))
    assert said(Caller(server.port, "").create()) == UNAVAILABLE
    log = server.log.read_text()
    (line,) = (each for each in log.splitlines() if "cannot be asked for limits" in each)
    assert logged in line
    assert PASSWORD not in log
    assert "not the password" not in log


def test_what_is_not_registered_is_not_to_be_had(limits: Limits, serve: Serve) -> None:
    """As in Glance.  There is none for Keystone's own service."""
    env = limits.env(endpoint_service_type="identity")
    caller = Caller(serve(env=env).port, "")
    assert {each["limit"] for each in caller.usage().values()} == {0}
    assert said(caller.create()) == EXCEEDED


def test_a_keystone_that_hangs_keeps_half_of_the_threads(limits: Limits, serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"http://127.0.0.1:{silent.getsockname()[1]}/v3"
        env = limits.env(auth_url=where, timeout=4) | {"OS_HEADRACE__THREADS": "4"}
        caller = Caller(serve(env=env).port, "")
        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(caller.create) for _ in range(2)]
            while not any(each.done() for each in asking):
                began = time.monotonic()
                assert caller.ask("GET", "/v2/images").status == 200
                assert time.monotonic() - began < GUARD
            assert [said(each.result(GUARD)) for each in asking] == [UNAVAILABLE] * 2
        assert caller.images() == []


def test_secrets_are_in_no_log(running: Serving, demo: Caller) -> None:
    """That of a server which debugs, and has asked by now."""
    demo.usage()
    log = running.log.read_text()
    assert "registered_limits" in log
    assert PASSWORD not in log
    assert json.dumps(PASSWORD) not in log


# openstacksdk's own, about itself.
@pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning")
def test_a_crowd_asks_once_and_the_oldest_answers_are_forgotten(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in limits.env().items():
        monkeypatch.setenv(name, value)
    options = keystone_settings.limits(config.load())
    number = 8
    asked = KeystoneLimits(options, kept=3600, waiting=number, known=2)
    start = threading.Barrier(number)

    def ask(_: int) -> object:
        start.wait(timeout=GUARD)
        return asked.of("one")

    def questions(project: str) -> int:
        """By Keystone's own log."""
        log = limits.keystone.directory / f"uwsgi-{limits.keystone.port}.log"
        lines = log.read_text(errors="replace").splitlines()
        return sum("/v3/limits?" in each and f"project_id={project}" in each for each in lines)

    with ThreadPoolExecutor(number) as pool:
        found = list(pool.map(ask, range(number)))
    assert found == [{Resource.SIZE: 2 * MIB, Resource.STAGE: MIB, Resource.COUNT: 4}] * number
    for project in ("two", "three", "three", "one"):
        asked.of(project)
    wanted = [2, 1, 1]
    deadline = time.monotonic() + GUARD
    while (counted := [questions(each) for each in ("one", "two", "three")]) < wanted:
        assert time.monotonic() < deadline, counted  # it writes when it has answered
        time.sleep(0.1)
    assert counted == wanted
