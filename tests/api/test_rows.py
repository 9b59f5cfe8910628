"""The list of what the API promises (rows.yaml), and the cases that show it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from falcon import inspect

from headrace import config, errors
from headrace.api import app
from headrace.api.openapi import METHODS, OPERATIONS
from headrace.api.openapi.operation import ALWAYS, BODY

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GABBITS = HERE / "gabbits"
LISTED: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "rows.yaml").read_text())
CASES: dict[str, list[dict[str, Any]]] = {
    file.stem: yaml.safe_load(file.read_text())["tests"] for file in GABBITS.glob("*.yaml")
}

# What may be answered wherever there is a body, or whenever others are at work: not row by row.
EVERYWHERE = {*ALWAYS, *BODY, errors.TooLarge, errors.ImageChanged, errors.Error}
WITHOUT = ("later: ", "left out: ")

_VARIABLE = re.compile(r"{\w+}")


@dataclass(frozen=True)
class Row:
    """``shown`` is by what; ``endpoint`` and ``status`` only where it is about one path."""

    when: str
    shown: str
    endpoint: str = ""
    status: int = 0

    def __str__(self) -> str:
        return f"{self.endpoint} {self.status or ''}: {self.when}"


def rows() -> Iterator[Row]:
    for endpoint, statuses in LISTED["endpoints"].items():
        for status, found in statuses.items():
            for when, shown in found.items():
                yield Row(str(when), shown, endpoint, status)
    for rule, found in LISTED["rules"].items():
        for when, shown in found.items():
            yield Row(f"{rule}: {when}", shown)


ROWS = list(rows())


def in_gabbits(row: Row) -> bool:
    return not row.shown.startswith(("tests/", *WITHOUT))


def case_of(row: Row) -> dict[str, Any]:
    file, _, name = row.shown.partition("/")
    found = [each for each in CASES.get(file, []) if each["name"] == name]
    assert len(found) == 1, f"{row}: {len(found)} cases are called {row.shown}"
    return found[0]


@cache
def source(file: str) -> str:
    return (ROOT / file).read_text()


def asked(case: dict[str, Any]) -> tuple[str, str]:
    """Method and path of a case."""
    for method in METHODS:
        if method in case:
            return method, case[method].partition("?")[0]
    return case["method"], case["url"].partition("?")[0]


def test_each_row_has_its_case() -> None:
    for row in filter(in_gabbits, ROWS):
        case_of(row)


def test_a_case_is_about_its_row() -> None:
    wrong = []
    for row in filter(in_gabbits, ROWS):
        if not row.endpoint:
            continue
        case = case_of(row)
        method, path = asked(case)
        wanted, _, template = row.endpoint.partition(" ")
        pattern = "[^/]+".join(map(re.escape, _VARIABLE.split(template)))
        # Versions that there are not end at "/"; where $RESPONSE leads is in another answer.
        anywhere = template == "/" or path.startswith("$RESPONSE")
        if method != wanted or not (anywhere or re.fullmatch(pattern, path)):
            wrong.append(f"{row}: {row.shown} is about {method} {path}")
        if str(row.status) not in str(case.get("status", 200)).split(" || "):
            wrong.append(f"{row}: {row.shown} expects {case.get('status', 200)}")
    assert not wrong, "\n".join(wrong)


def test_each_test_is_there() -> None:
    for row in ROWS:
        if row.shown.startswith("tests/"):
            file, _, name = row.shown.partition("::")
            assert f"def {name}(" in source(file), str(row)


def test_what_has_no_case_has_a_reason() -> None:
    for row in ROWS:
        for beginning in WITHOUT:
            assert row.shown.strip() != beginning.strip(), str(row)


@pytest.mark.parametrize("file", CASES)
def test_names_of_cases_are_unique(file: str) -> None:
    twice = [name for name, n in Counter(each["name"] for each in CASES[file]).items() if n > 1]
    assert not twice


def test_every_route_and_every_status_of_it_has_a_row(tmp_path: Path) -> None:
    application = app.build(config.load([], {("headrace", "state_dir"): str(tmp_path)}))
    application.close()
    routed = {
        (method.method, route.path)
        for route in inspect.inspect_routes(application._app)
        for method in route.methods
        if method.method in METHODS and not method.internal
    }
    listed = {(row.endpoint, row.status) for row in ROWS}
    missing = []
    for method, path in sorted(routed):
        operation = OPERATIONS[method, path]
        refused = {kind.status for kind in operation.refusals if kind not in EVERYWHERE} - {500}
        for status in sorted({operation.status, *operation.also, *refused}):
            if (f"{method} {path}", status) not in listed:
                missing.append(f"{method} {path}: {status}")
    assert not missing, "\n".join(missing)


def test_what_is_listed_is_routed_or_to_come(tmp_path: Path) -> None:
    application = app.build(config.load([], {("headrace", "state_dir"): str(tmp_path)}))
    application.close()
    paths = {route.path for route in inspect.inspect_routes(application._app)}
    for row in ROWS:
        path = row.endpoint.partition(" ")[2]
        if path and path not in paths:
            assert row.shown.startswith(WITHOUT) or row.status == 404, str(row)
