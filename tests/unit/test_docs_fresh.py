"""docs/reference says what the program says."""

from tools import reference


def test_the_reference_is_fresh() -> None:
    assert not [path.name for path in reference.stale()], "run: make docs"
