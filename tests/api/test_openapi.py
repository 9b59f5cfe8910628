"""The API's description says all that is routed, and refers to nothing that is not there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from falcon import inspect, testing

from headrace import config, errors
from headrace.api import app
from headrace.api.gate import Application
from headrace.api.openapi import METHODS, OPERATIONS
from headrace.api.openapi.operation import ALWAYS

# Raised where nobody is answered: at start, by the client, after the head of an answer has left.
UNANSWERED = {
    *errors.tree(errors.ConfigurationError), *errors.tree(errors.ClientError),
    errors.PeerGone, errors.FileTruncated,
    errors.UserExists, errors.UserNotFound,
    # Said by the task of an import.
    errors.ExpandsTooMuch, errors.NotDecompressible, errors.NotConvertible, errors.ServiceStops,
}  # fmt: skip
# Those of no operation: unknown paths and methods; defects, wherever they come from.
EVERYWHERE = {
    errors.Error, errors.TransferError, errors.MethodNotAllowed, errors.NotYetSupported,
}  # fmt: skip


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    directory = str(tmp_path_factory.mktemp("state"))
    built = app.build(config.load([], {("headrace", "state_dir"): directory}))
    yield built
    built.close()


@pytest.fixture(scope="module")
def document(application: Application) -> Any:
    answer = testing.simulate_get(
        application, "/v2/openapi.json", host="localhost", remote_addr="127.0.0.1"
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json


def test_every_route_is_described(application: Application, document: Any) -> None:
    routed = {
        (method.method, route.path)
        for route in inspect.inspect_routes(application._app)
        for method in route.methods
        if method.method in METHODS and not method.internal
    }
    described = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item.keys() - {"parameters"}
    }
    assert described == routed
    assert described == OPERATIONS.keys()


def test_it_is_openapi(document: Any) -> None:
    schemathesis.openapi.from_dict(document).validate()


def test_every_reference_leads_somewhere(document: Any) -> None:
    found = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert found
    for each in found:
        target = document
        for step in each.removeprefix("#/").split("/"):
            target = target[step]


def test_every_component_is_referred_to(document: Any) -> None:
    text = json.dumps(document)
    for kind, components in document["components"].items():
        for name in components:
            assert f'"$ref": "#/components/{kind}/{name}"' in text, (kind, name)


def test_every_error_is_described() -> None:
    described = {kind for operation in OPERATIONS.values() for kind in operation.refusals}
    unsaid = set(errors.tree()) - described - UNANSWERED - EVERYWHERE
    assert unsaid == set(ALWAYS) - described


def test_the_page_is_what_is_served(document: Any) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "openapi.yaml"
    assert yaml.safe_load(page.read_text(encoding="utf-8")) == document
