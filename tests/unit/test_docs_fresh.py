"""The documents say what the program says, and point at what exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat import compatibility
from tools import reference

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
_PATH = re.compile(r"`((?:tests|docs|demo|tools|benchmarks|requirements)/[\w./-]*)`")


def test_the_reference_is_fresh() -> None:
    assert not [path.name for path in reference.stale()], "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_at_exists(page: Path) -> None:
    assert not [target for target in _targets(page) if not target.exists()]


def _targets(page: Path) -> Iterator[Path]:
    text = page.read_text(encoding="utf-8")
    for link in _LINK.findall(text):
        yield page.parent / link
    for path in _PATH.findall(text):
        yield ROOT / path


def test_the_page_of_compatibility_is_of_these_clients_and_tests() -> None:
    """What it says of them is checked by the tests that it names, whenever they run."""
    text = compatibility.PAGE.read_text(encoding="utf-8")
    assert compatibility.versions(text) == compatibility.locked(), "run: make compatibility"
    for name in compatibility.said(text):
        module, _, test = name.partition("::")
        source = (ROOT / "tests" / "compat" / f"{module}.py").read_text(encoding="utf-8")
        assert f"def {test.partition('[')[0]}(" in source, name


def test_every_decision_is_listed() -> None:
    directory = ROOT / "docs" / "decisions"
    listed = set(_LINK.findall((directory / "README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in directory.glob("[0-9]*.md")}
