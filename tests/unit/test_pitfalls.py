"""The table of pitfalls names tests that exist."""

import re
from pathlib import Path

TREE = Path(__file__).parents[2]
TABLE = TREE / "docs" / "decisions" / "0010-pitfalls.md"


def test_every_test_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TABLE.read_text()))
    defined = {
        name
        for path in (TREE / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= defined


def test_every_pitfall_has_a_row() -> None:
    rows = re.findall(r"^\| K(\d+) \|", TABLE.read_text(), re.MULTILINE)
    assert rows == [str(number) for number in range(1, 26)]
