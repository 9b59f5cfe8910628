"""Every operation for every kind of caller: personas.yaml is what each of them is answered.

``HEADRACE_WRITE_PERSONAS=1 pytest tests/api/test_personas.py`` writes the table anew, for what is
changed in it to be read.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from headrace import config
from headrace.api import app
from tests.api.personas import (
    IMAGE_ROWS,
    NAMESPACE_ROWS,
    OTHER_ROWS,
    PERSONAS,
    Caller,
    Row,
    believe,
    new_image,
    new_namespace,
    settings,
)

FILE = Path(__file__).with_name("personas.yaml")
WRITING = "HEADRACE_WRITE_PERSONAS" in os.environ
IMAGES = ("private", "shared", "community", "public")
NAMESPACES = ("private", "public")
HEAD = f"""\
# What each persona is answered: anonymous (no project, no role); roleless, reader and member of the
# project that owns the image or namespace; a stranger, that is, a member of another project;
# members of projects that have accepted, not yet answered or rejected the image; an administrator
# and a service, both of projects of their own.  400 is past the policy: the request itself is
# refused.  tests/api/personas.py has the requests, test_personas.py asks them.
# {" ".join(PERSONAS)}
"""
# What a stranger finds behind the service's own doors is no business of policies.
ELSEWHERE = re.compile(r"/metrics.*|/v2/schemas/.*|/")


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    directory = tmp_path_factory.mktemp("personas")
    application = app.build(config.load([], settings(directory)), believe)
    yield Caller(application)
    application.close()


def outcome(caller: Caller, row: Row, kind: str) -> str:
    """The statuses for all personas; what a success has changed is made anew."""
    statuses = []
    thing = ""
    for persona in PERSONAS:
        if not thing:
            thing = made(caller, row, kind)
        path = row.path.format(id=thing, name=thing)
        body = row.body_of(caller, thing) if row.body_of else row.body
        answer = caller.ask(persona, row.method, path, body, row.content_type)
        statuses.append(str(answer.status))
        if answer.status < 300 and row.method != "GET":
            discard(caller, row)
            thing = ""
    return " ".join(statuses)


def made(caller: Caller, row: Row, kind: str) -> str:
    if "{id}" in row.path:
        return new_image(caller, kind, row.state)
    return new_namespace(caller, kind) if "{name}" in row.path else "none"


def discard(caller: Caller, row: Row) -> None:
    """What is not made anew by the next one."""
    if row.path == "/v2/metadefs/namespaces":
        caller.must("DELETE", "/v2/metadefs/namespaces/New")


def kinds(row: Row) -> tuple[str, ...]:
    if "{id}" in row.path:
        return IMAGES
    return NAMESPACES if "{name}" in row.path else ()


def observed(caller: Caller, row: Row) -> object:
    if found := kinds(row):
        return {kind: outcome(caller, row, kind) for kind in found}
    return outcome(caller, row, "")


ROWS = [*OTHER_ROWS, *IMAGE_ROWS, *NAMESPACE_ROWS]


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, object]]:
    if not WRITING:
        yield yaml.safe_load(FILE.read_text())
        return
    written: dict[str, object] = {}
    yield written
    text = yaml.safe_dump(written, sort_keys=False, width=200)
    FILE.write_text(f"{HEAD}\n{text}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_every_persona_is_answered_as_is_written(
    caller: Caller, table: dict[str, object], row: Row
) -> None:
    found = observed(caller, row)
    if WRITING:
        table[row.title] = found
    assert found == table[row.title], f"written down for {' '.join(PERSONAS)}"


def test_the_table_has_every_operation(caller: Caller, table: dict[str, object]) -> None:
    document = caller.must("GET", "/v2/openapi.json")
    described = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item.keys() - {"parameters", "head"}
        if not ELSEWHERE.fullmatch(path)
    }
    patterns = {
        (method, path, re.compile(re.sub(r"\{\w+\}", "[^/]+", path))) for method, path in described
    }
    asked = {(row.method, row.path.partition("?")[0]) for row in ROWS}
    missing = {
        (method, path)
        for method, path, pattern in patterns
        if not any(method == each and pattern.fullmatch(way) for each, way in asked)
    }
    assert not missing
    assert table.keys() == {row.title for row in ROWS}
