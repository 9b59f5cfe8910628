"""The same requests to a real Glance 33 and to Headrace, and what they answer, side by side.

The requests are in requests.yaml: scenarios of steps that follow each other.  Whatever differs in
status, in a header that matters or in a body must be in differences.yaml, with the reason; and what
is there must still differ.
"""

import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import glance
from tests.needs import require_environment
from tools.serving import serving

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SCENARIOS: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / "requests.yaml").read_text())
LISTED: list[dict[str, Any]] = yaml.safe_load((HERE / "differences.yaml").read_text())

GUARD = 120.0
DASHBOARD = "https://dashboard.example.org"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEADERS = (
    "content-type", "location", "content-md5", "content-range", "openstack-image-store-ids",
    "openstack-image-import-methods", "access-control-allow-origin",
    "access-control-allow-credentials", "access-control-max-age",
)  # fmt: skip
# Their order is of no matter.
LISTS = (
    "allow", "accept-patch", "vary", "access-control-allow-methods",
    "access-control-allow-headers", "access-control-expose-headers",
)  # fmt: skip

_VARIABLE = re.compile(r"<(\w+)>")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass
class Side:
    """One of the two services, and what it has answered that later steps refer to."""

    url: str
    values: dict[str, str] = field(default_factory=dict)

    def ask(self, step: Mapping[str, Any]) -> dict[str, Any]:
        """What it answers, as far as that is to be the same: by the place in the answer."""
        (method,) = [each for each in METHODS if each in step]
        body, headers = step.get("data"), {"Accept": "application/json", **step.get("headers", {})}
        if "json" in step:
            headers.setdefault("Content-Type", "application/json")
            body = json.dumps(step["json"])
        elif body is not None:
            headers.setdefault("Content-Type", "application/octet-stream")
        given = None if body is None else self._filled(body).encode()
        filled = {name: self._filled(value) for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=GUARD)
        try:
            connection.request(method, self._filled(step[method]), given, filled)
            answer = connection.getresponse()
            return self._told(answer, answer.read(), step)
        except ConnectionError:
            return {"status": "none"}
        finally:
            connection.close()

    def _told(
        self, answer: http.client.HTTPResponse, data: bytes, step: Mapping[str, Any]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"status": answer.status}
        for name in HEADERS:
            if (value := answer.headers.get(name)) is not None and (data or name != "content-type"):
                found[f"header {name}"] = self._plain(value).partition(";")[0]
        for name in LISTS:
            if (value := answer.headers.get(name)) is not None:
                found[f"header {name}"] = sorted(value.replace(" ", "").split(","))
        found["header x-openstack-request-id"] = bool(answer.headers.get("x-openstack-request-id"))
        if answer.headers.get_content_type() == "application/json" and data:
            document = json.loads(data)
            for name, key in step.get("save", {}).items():
                self.values[name] = document[key]
            if answer.status >= 400:
                document["message"] = "(words)"
            found |= flat(self._plain(document), "body")
        elif answer.status < 300:
            found["body"] = data
        return found

    def _filled(self, text: str) -> str:
        return _VARIABLE.sub(lambda found: self.values[found[1]], text)

    def _plain(self, value: Any) -> Any:
        """Without what each makes up by itself: ids, times, addresses."""
        if isinstance(value, dict):
            return {key: self._plain(each) for key, each in value.items()}
        if isinstance(value, list):
            plain = [self._plain(each) for each in value]
            # Lists of words are sets: tags, and what a schema requires.
            return sorted(plain) if all(isinstance(each, str) for each in plain) else plain
        if not isinstance(value, str):
            return value
        for name, found in [("base", self.url), *self.values.items()]:
            value = value.replace(found, f"<{name}>")
        return _UUID.sub("<uuid>", _TIME.sub("<time>", value))


def flat(value: Any, place: str) -> dict[str, Any]:
    """A document by the places of what it holds; what is empty counts as a value."""
    if isinstance(value, dict) and value:
        parts = {f"{place}.{key}": each for key, each in value.items()}
    elif isinstance(value, list) and value:
        parts = {f"{place}[{number}]": each for number, each in enumerate(value)}
    else:
        return {place: value}
    return {key: each for name, part in parts.items() for key, each in flat(part, name).items()}


@dataclass(frozen=True)
class Difference:
    step: str
    place: str
    glance: object
    headrace: object

    def __str__(self) -> str:
        return f"{self.step}: {self.place}: Glance {self.glance!r}, Headrace {self.headrace!r}"

    def is_listed(self, entry: Mapping[str, Any]) -> bool:
        steps = entry["steps"] if isinstance(entry["steps"], list) else [entry["steps"]]
        return any(fnmatchcase(self.step, each) for each in steps) and any(
            fnmatchcase(self.place, each.replace("[", "[[]")) for each in entry["places"]
        )


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URLs of a Glance and a Headrace with the same settings: two stores, locations shown."""
    require_environment(".venv-glance")
    directory = tmp_path_factory.mktemp("differential")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    glance.prepare(directory / "glance", port)
    conf = directory / "glance" / "glance-api.conf"
    text = conf.read_text().replace("= file:file", "= file:file, cheap:file")

    # Its filter for web pages looks for [cors] in /etc alone, or beside its name in the pipeline.
    pipeline, filters = directory / "glance" / "paste.ini", Path(_option(text, "config_file"))
    elsewhere = "oslo_config_project = glance\noslo_config_program = glance-api\n\n[filter:http"
    assert elsewhere in filters.read_text()
    here = f"allowed_origin = {DASHBOARD}\n\n[filter:http"
    pipeline.write_text(filters.read_text().replace(elsewhere, here))
    text = text.replace(str(filters), str(pipeline))
    conf.write_text(f"{text}[cheap]\nfilesystem_store_datadir = {directory}/glance/cheap\n")
    (directory / "glance" / "cheap").mkdir()
    env = {
        "OS_DEFAULT__ENABLED_BACKENDS": "file:file,cheap:file",
        "OS_GLANCE_STORE__DEFAULT_BACKEND": "file",
        "OS_CORS__ALLOWED_ORIGIN": DASHBOARD,
        "OS_FILE__FILESYSTEM_STORE_DATADIR": f"{directory}/headrace/file",
        "OS_CHEAP__FILESYSTEM_STORE_DATADIR": f"{directory}/headrace/cheap",
    }
    with (
        glance.serving(directory / "glance") as peer,
        serving(directory / "headrace", env=env) as headrace,
    ):
        yield peer.url, headrace.url


def _option(text: str, name: str) -> str:
    """The value of an option in a configuration."""
    found = re.search(rf"^{name} = (.*)$", text, re.M)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def differences(sides: tuple[str, str]) -> dict[str, list[Difference]]:
    """All differences, by their scenarios."""
    return {name: list(played(sides, name)) for name in SCENARIOS}


def played(sides: tuple[str, str], scenario: str) -> Iterator[Difference]:
    theirs, ours = map(Side, sides)
    for step in SCENARIOS[scenario]:
        name = f"{scenario}: {step['step']}"
        first, second = theirs.ask(step), ours.ask(step)
        if first["status"] != second["status"]:
            yield Difference(name, "status", first["status"], second["status"])
            continue
        for place in dict.fromkeys([*first, *second]):
            pair = first.get(place), second.get(place)
            if pair[0] != pair[1]:
                yield Difference(name, place, *pair)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_differs_is_listed(scenario: str, differences: dict[str, list[Difference]]) -> None:
    unlisted = [each for each in differences[scenario] if not any(map(each.is_listed, LISTED))]
    assert not unlisted, "\n".join(map(str, unlisted))


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: entry["id"])
def test_what_is_listed_differs(
    entry: dict[str, Any], differences: dict[str, list[Difference]]
) -> None:
    assert entry["reason"]
    assert any(each.is_listed(entry) for found in differences.values() for each in found)
