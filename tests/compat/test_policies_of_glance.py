"""The usual rules are those that Glance 33 registers, letter for letter."""

import json
import subprocess
from pathlib import Path

import pytest

from headrace.api.rules import RULES
from tests.needs import require_environment

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "programs" / "glance_policies.py"


def test_names_and_checks_are_glances() -> None:
    python = require_environment(".venv-glance") / "python"
    done = subprocess.run([python, PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    theirs = {name: tuple(checks) for name, checks in json.loads(done.stdout).items()}
    ours = {name: (rule.check, rule.old) for name, rule in RULES.items()}
    assert ours == theirs
