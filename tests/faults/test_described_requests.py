"""Requests made up from the API's own description, right ones and wrong ones: every answer is one
that the description allows, none is a 500, and nothing is left in between.

What is made up hardly ever names anything that there is.  Names of what there is, in every state,
are therefore put in the place of most.
"""

import itertools
import json
import random
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks as openapi

from headrace.api import patches
from tests.faults.conftest import Start
from tests.faults.service import Service, leases, wait_until
from tests.several_stores import several_stores

CHECKS = [
    not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
EXAMPLES = 8  # of an operation, one after the other
ROUNDS = 3
GUARD = 60.0
NAMESPACES = "/v2/metadefs/namespaces"
STRICT: dict[str, tuple[str, ...]] = {
    "x-openstack-request-id": (),
    "x-openstack-image-size": ("0", "4"),
    "x-image-meta-store": ("cheap", "web"),
    "prefer": ("cheap,fast",),
    "Range": ("bytes=1-2", "bytes=-9", "bytes=3-", "bytes=4-", "bytes=0-1,2-3"),
    "Content-Range": ("bytes 0-1/4", "bytes */4"),
}
FIELDS = (
    "/name", "/visibility", "/protected", "/os_hidden", "/owner", "/tags", "/min_disk", "/custom",
    "/disk_format", "/status", "/locations", "/locations/-", "/locations/0", "/a~1b",
)  # fmt: skip


@schemathesis.serializer(patches.V21, patches.V20)
def as_json(_: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@dataclass
class Campaign:
    """Requests to ``service``; what is made up depends on ``seed`` alone."""

    service: Service
    directory: Path
    seed: int
    wrong: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    succeeded: int = 0

    def __post_init__(self) -> None:
        config = SchemathesisConfig()
        self._url = self.service.server.url
        self._described = schemathesis.openapi.from_url(
            f"{self._url}/v2/openapi.json", config=config
        )
        self._session = requests.Session()
        self._session.trust_env = False
        self._images: list[str] = []
        self._tasks: list[str] = []

    def run(self, rounds: Iterator[int]) -> None:
        for number in rounds:
            self._dice = random.Random(f"{self.seed}:{number}")
            for found in self._described.get_all_operations():
                operation = found.ok()
                self._renew()
                examples = (
                    EXAMPLES
                    if operation.path_parameters or operation.query or operation.body
                    else 1
                )
                for mode in MODES:
                    self._play(operation.as_strategy(generation_mode=mode), number, examples)
        self._session.close()
        assert not self.wrong, "\n\n".join(self.wrong.values())

    def _play(self, cases: Any, number: int, examples: int) -> None:
        # Without shrinking and replaying: the service is another one after every request.
        @seed(self.seed + number)
        @settings(
            max_examples=examples,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def play(case: Case) -> None:
            self._ask(case)

        play()

    def _ask(self, case: Case) -> None:
        self._name(case)
        answer = case.call(session=self._session, timeout=GUARD, allow_redirects=False)
        self.sent += 1
        self.succeeded += answer.status_code < 300
        try:
            case.validate_response(answer, checks=CHECKS)
        except* schemathesis.core.failures.Failure as failures:
            for each in failures.exceptions:
                kept = f"{case.method} {case.operation.path} {answer.status_code} {type(each)}"
                self.wrong.setdefault(kept, f"{each}\n{case.as_curl_command()}")

    def _name(self, case: Case) -> None:
        """Put names of what there is in the place of made-up ones."""
        dice = self._dice
        parts = {"properties": "P", "objects": "O", "tags": "T", "resource_types": "R"}
        there = {
            "image_id": self._images, "project": ["p1", "p2"], "tag": ["t1"], "namespace": ["N"],
            "name": [parts.get(case.path.split("/")[-2], "")], "store_id": ["fast", "cheap", "web"],
            "task_id": self._tasks,
        }  # fmt: skip
        for name in case.path_parameters:
            if dice.random() < 0.8:
                case.path_parameters[name] = dice.choice(there[name])
        # Most would be refused for one of these, and for nothing else.
        for name, values in STRICT.items():
            for part in (case.headers, case.query):
                if name in part and dice.random() < 0.9:
                    del part[name]
                    if values and dice.random() < 0.5:
                        part[name] = dice.choice(values)
        if "marker" in case.query and dice.random() < 0.5:
            case.query["marker"] = dice.choice([*self._images, "N", "O", "T"])
        if isinstance(case.body, list):
            for step in case.body:
                if isinstance(step, dict):
                    for key in step.keys() & {"path", "add", "replace", "remove"}:
                        if dice.random() < 0.6:
                            step[key] = dice.choice(FIELDS)

    def _renew(self) -> None:
        """Images in every state, and a namespace that holds something."""
        for image_id in self._images:
            patch = [{"op": "replace", "path": "/protected", "value": False}]
            self._post(f"/v2/images/{image_id}", patch, "PATCH", patches.V21)
            self.service.request("DELETE", f"/v2/images/{image_id}")
        service = self.service
        bare = service.create(disk_format=None, container_format=None)
        queued = service.create(tags=["t1"], custom="x")
        active = service.active(b"data", name="active", tags=["t1"])
        deactivated = service.active(b"more")
        service.request("POST", f"/v2/images/{deactivated}/actions/deactivate")
        for image_id in (queued, active):
            self._post(f"/v2/images/{image_id}/members", {"member": "p1"})
        self._images = [bare, queued, active, deactivated]
        octets = "Content-Type: application/octet-stream"
        staged = service.create()
        service.request("PUT", f"/v2/images/{staged}/stage", octets, body=b"data")
        self._post(f"/v2/images/{staged}/import", {"method": {"name": "glance-direct"}})
        self._tasks = [each["id"] for each in service.request("GET", "/v2/tasks").json["tasks"]]
        self._post(f"{NAMESPACES}/N", {"namespace": "N"}, "PUT")
        service.request("DELETE", f"{NAMESPACES}/N")
        self._post(
            NAMESPACES,
            {
                "namespace": "N",
                "properties": {"P": {"title": "P", "type": "string"}},
                "objects": [{"name": "O"}],
                "tags": [{"name": "T"}],
                "resource_type_associations": [{"name": "R", "prefix": "r_"}],
            },
        )

    def _post(
        self, path: str, body: object, method: str = "POST", kind: str = "application/json"
    ) -> None:
        data = json.dumps(body).encode()
        self.service.request(method, path, f"Content-Type: {kind}", body=data)


def campaign(start: Start, directory: Path, seed: int, rounds: Iterator[int]) -> None:
    service = start(env={**several_stores(directory), "OS_HEADRACE__STALL_TIMEOUT": "5"})
    running = Campaign(service, directory, seed)
    try:
        running.run(rounds)
    finally:
        print(f"{running.sent} requests, {running.succeeded} of them done")
    assert running.succeeded > running.sent / 5, "hardly anything was right"
    check_nothing_in_between(service)
    assert "Traceback" not in service.server.log.read_text()


def check_nothing_in_between(service: Service) -> None:
    """No upload and no check of data goes on; no image is on its way from one state to another."""
    wait_until(lambda: leases(service.server) == [], "the end of the uploads")
    database = sqlite3.connect(f"file:{service.server.state_dir}/headrace.db?mode=ro", uri=True)
    found = {row[0] for row in database.execute("SELECT DISTINCT status FROM images")}
    database.close()
    # What is uploading, and nobody is at it, has been staged.
    assert found <= {"queued", "uploading", "active", "deactivated", "deleted"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_described_requests(start: Start, tmp_path: Path) -> None:
    campaign(start, tmp_path, 1, iter(range(ROUNDS)))


@pytest.mark.long
@pytest.mark.timeout(4000)
def test_described_requests_for_an_hour(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen, end = int(time.time()), time.monotonic() + 3600
    with capsys.disabled():
        print(f"seed {chosen}")
    rounds = itertools.takewhile(lambda _: time.monotonic() < end, itertools.count())
    campaign(start, tmp_path, chosen, rounds)
