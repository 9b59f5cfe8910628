"""What filesystem_store_metadata_file has noted beside locations."""

import json
from pathlib import Path

import pytest

from headrace import errors
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.mountpoints import MountPoints
from headrace.stores.registry import Label, Registry
from tests.contract.stores.storing import IMAGE_ID, put


def read(tmp_path: Path, document: object) -> MountPoints:
    file = tmp_path / "metadata.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return MountPoints.read(str(file))


def test_the_first_mountpoint_that_holds_the_file(tmp_path: Path) -> None:
    entries = [
        {"id": "none", "mountpoint": "/mnt"},
        {"id": "a", "mountpoint": f"{tmp_path}/"},
        {"id": "b", "mountpoint": f"{tmp_path}/images"},
    ]
    found = read(tmp_path, entries)
    assert found.of(f"{tmp_path}/images/x") == entries[1]
    assert found.of("/mnt2/x") == {}
    assert read(tmp_path, entries[2]).of(f"{tmp_path}/images/x") == entries[2]
    assert MountPoints().of("/x") == {}


def test_it_is_noted_beside_the_location(tmp_path: Path) -> None:
    entry = {"id": "a", "mountpoint": str(tmp_path)}
    store = FilesystemStore("fast", tmp_path / "images", mountpoints=read(tmp_path, entry))
    url = put(store, b"data")
    assert Registry([store], "fast").place(store, url).metadata == entry
    several = Registry([store], "fast", {"fast": Label()})
    assert several.place(store, url).metadata == {**entry, "store": "fast"}
    assert several.for_location(several.place(store, store.url(IMAGE_ID))) is store


@pytest.mark.parametrize(
    "document", ["no JSON", "5", "[5]", {"id": "a"}, [{"id": 1, "mountpoint": ""}]]
)
def test_what_cannot_be_read_is_refused_at_start(tmp_path: Path, document: object) -> None:
    with pytest.raises(errors.ConfigurationError, match="metadata_file"):
        read(tmp_path, document)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="metadata_file"):
        MountPoints.read(str(tmp_path / "none"))
