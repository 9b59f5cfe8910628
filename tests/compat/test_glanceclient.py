"""python-glanceclient as a library, on a running server."""

import shutil
from pathlib import Path

import pytest

from tests.compat.conftest import Call, Clients
from tools.serving import Serving

pytestmark = pytest.mark.slow


def test_round_trip(glanceclient: Call, image_file: Path) -> None:
    glanceclient("round_trip", image_file)


def test_pages(glanceclient: Call) -> None:
    glanceclient("pages")


def test_members(glanceclient: Call) -> None:
    glanceclient("members")


def test_tags_and_actions(glanceclient: Call, image_file: Path) -> None:
    glanceclient("tags_and_actions", image_file)


def test_hidden_and_visible(glanceclient: Call) -> None:
    glanceclient("hidden_and_visible")


def test_schema(glanceclient: Call) -> None:
    glanceclient("schema")


def test_stores_and_locations(clients: Clients, several: Serving, image_file: Path) -> None:
    registered = several.state_dir / "listed" / "glanceclient.img"
    shutil.copy(image_file, registered)
    clients.call("glanceclient_calls.py", "stores", several.url, image_file, registered)


def test_errors_are_its_own_classes(glanceclient: Call, image_file: Path) -> None:
    glanceclient("errors", image_file)


def test_too_large(clients: Clients, small_server: Serving, image_file: Path) -> None:
    clients.call("glanceclient_calls.py", "too_large", small_server.url, image_file)
