"""What a Ceph is connected to with, where there is none."""

from pathlib import Path

import pytest

from headrace import errors
from headrace.stores import ceph


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"nowhere\.conf"):
        ceph.Cluster(str(tmp_path / "nowhere.conf"), None, 1.0)


def test_modules_that_are_not_there_are_named() -> None:
    with pytest.raises(errors.ConfigurationError, match=r"rados_of_nobody.*python3-rados"):
        ceph._load("rados_of_nobody")


def test_modules_that_are_not_whole_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rados_in_part.py").write_text("import librados_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with pytest.raises(errors.ConfigurationError, match="librados_that_is_not_there"):
            ceph._load("rados_in_part")
