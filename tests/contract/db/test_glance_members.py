"""Members on one database, with a real Glance beside us: each finds what the other made of them."""

import json
import subprocess
from pathlib import Path

import pytest

from headrace.db import images, members, schema
from headrace.db.engine import Database
from headrace.model import MemberStatus
from tests.contract.db.examples import LATER, NOW, image, stored
from tests.needs import require_environment

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "programs" / "glance_members.py"


def glance(database: Database, image_id: str, *acts: str) -> dict[str, str]:
    """Have Glance add=, accept= or remove= members; what members it then finds."""
    path = Path(str(database.engine.url.database))
    configuration = path.with_suffix(".conf")
    configuration.write_text(f"[database]\nconnection = sqlite:///{path}\n")
    python = require_environment(".venv-glance") / "python"
    done = subprocess.run(
        [python, PROGRAM, configuration, image_id, *acts],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def ours(database: Database, image_id: str) -> dict[str, str]:
    return {each.project: str(each.status) for each in members.list_all(database, image_id)}


def test_members_go_to_and_fro(sqlite: Database) -> None:
    shared = image()
    images.create(sqlite, shared)
    for project in ("kept", "gone"):
        members.create(sqlite, shared, project, -1, NOW)
    members.update(sqlite, shared.id, "kept", MemberStatus.ACCEPTED, NOW)
    members.delete(sqlite, shared, "gone", LATER)
    assert glance(sqlite, shared.id) == {"kept": "accepted"}

    # Each takes up the row that the other left.
    found = glance(sqlite, shared.id, "add=gone", "add=theirs", "accept=theirs", "remove=kept")
    assert found == ours(sqlite, shared.id) == {"gone": "pending", "theirs": "accepted"}
    members.create(sqlite, shared, "kept", -1, LATER)
    members.delete(sqlite, shared, "gone", LATER)
    found = glance(sqlite, shared.id, "remove=theirs", "add=gone", "accept=gone")
    assert found == ours(sqlite, shared.id) == {"kept": "pending", "gone": "accepted"}
    members.create(sqlite, shared, "theirs", -1, LATER)
    assert len(stored(sqlite, schema.image_members, shared.id)) == 3
