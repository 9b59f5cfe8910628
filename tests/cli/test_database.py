"""headrace db: the way back to Glance."""

import sqlite3
import subprocess
from pathlib import Path

from tools.serving import COMMAND, environment, serving


def own_objects(file: Path) -> set[str]:
    with sqlite3.connect(file) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'headrace%'")
        return {name for (name,) in names}


def hand_back(state_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "db", "hand-back", "--state-dir", state_dir, *options],
        capture_output=True, text=True, timeout=60, env=environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_what_is_ours_goes_and_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "headrace.db"
    with serving(tmp_path):
        ours = own_objects(file)
        assert ours
    refused = hand_back(tmp_path)
    assert refused.returncode != 0
    assert own_objects(file) == ours
    done = hand_back(tmp_path, "--force")
    assert done.returncode == 0, done.stderr
    assert own_objects(file) == set()
    with serving(tmp_path):
        assert own_objects(file) == ours
