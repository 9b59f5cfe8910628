"""Delivering to a file while others look after its directory."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from headrace.cache import target
from headrace.cache.directory import Directory
from tests.contract.cache.caching import content, fill, image

SIZE = 1000


def test_a_name_that_another_has_swept_away_is_made_again(
    directory: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who delivers a link cannot lock it: it is the cache's file."""
    swept: list[str] = []
    rename = os.rename

    def late(source: Path, name: Path) -> None:
        if not swept:
            target._sweep(tmp_path)
            swept.append(source.name)
        rename(source, name)

    fill(directory, image(1), SIZE)
    extent = directory.open(image(1), SIZE)
    assert extent is not None
    (tmp_path / "disk").write_bytes(b"old")
    monkeypatch.setattr(os, "rename", late)
    with closing(extent):
        assert target.deliver(extent, tmp_path / "disk", replace=True, link=True) == target.LINK
    assert swept
    assert (tmp_path / "disk").read_bytes() == content(image(1), SIZE)
    assert set(os.listdir(tmp_path)) == {"cache", "disk"}
