"""openstacksdk on a running server."""

from pathlib import Path

import pytest

from tests.compat.conftest import Call, Clients
from tools.serving import Serving

pytestmark = pytest.mark.slow


def test_round_trip(openstacksdk: Call, image_file: Path, tmp_path: Path) -> None:
    openstacksdk("round_trip", image_file, tmp_path / "down")


def test_members(openstacksdk: Call) -> None:
    openstacksdk("members")


def test_tags_and_actions(openstacksdk: Call, image_file: Path) -> None:
    openstacksdk("tags_and_actions", image_file)


def test_schemas(openstacksdk: Call) -> None:
    openstacksdk("schemas")


def test_waiting(openstacksdk: Call) -> None:
    openstacksdk("waiting")


def test_stores(clients: Clients, several: Serving, image_file: Path) -> None:
    clients.call("openstacksdk_calls.py", "stores", several.url, image_file)


def test_errors_are_its_own_classes(openstacksdk: Call, image_file: Path) -> None:
    openstacksdk("errors", image_file)


def test_imports(clients: Clients, several: Serving, image_file: Path) -> None:
    clients.call("openstacksdk_calls.py", "imports", several.url, image_file)


def test_tasks(clients: Clients, several: Serving, image_file: Path) -> None:
    clients.call("openstacksdk_calls.py", "tasks", several.url, image_file)
