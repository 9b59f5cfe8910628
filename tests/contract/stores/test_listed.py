"""Files that are registered in place, and what is not among them."""

import contextlib
import os
from pathlib import Path

import pytest

from headrace import errors
from headrace.stores.listed import ListedFiles
from tests.contract.stores.storing import descriptors


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "listed"
    (found / "sub").mkdir(parents=True)
    (found / "image").write_bytes(b"data")
    (found / "sub" / "image").write_bytes(b"data")
    (tmp_path / "secret").write_bytes(b"secret")
    return found


@pytest.fixture
def store(directory: Path) -> ListedFiles:
    return ListedFiles("", [str(directory)], [str(directory.parent / "images")])


@pytest.mark.parametrize("path", ["{d}/image", "{d}/sub/image", "{d}//sub//image"])
def test_what_is_below_a_listed_directory(store: ListedFiles, directory: Path, path: str) -> None:
    with contextlib.closing(store.open(f"file://{path.format(d=directory)}")) as extent:
        assert extent.read() == b"data"
        assert extent.path == ""  # a server in front is not told of it


@pytest.mark.parametrize(
    "url",
    [
        "file://{d}/../secret", "file://{d}/sub/../../secret", "file://{d}/./image",
        "file://{d}/%2e%2e/secret", "file://{d}x/image", "file://{d}", "file://{d}/",
        "file://{d}/sub/", "file://{d}/image?x", "file://{d}/image#x", "FILE://{d}/image",
        "filesystem://{d}/image", "file:{d}/image", "file://localhost{d}/image", "{d}/image",
        "file:///etc/passwd", "file:///", "file://", "file://{d}/image\0", "swift+config://{d}/image",
    ],
)  # fmt: skip
def test_ossa_2014_041_and_2015_002_nothing_else(
    store: ListedFiles, directory: Path, url: str
) -> None:
    url = url.format(d=directory)
    if "%2e" not in url:  # which is a name, of no file
        assert not store.holds(url)
        with pytest.raises(errors.InvalidLocation):
            store.check(url)
    with pytest.raises(errors.NotFound):
        store.open(url)


def test_ossa_2014_041_and_2015_002_no_link_leads_out(store: ListedFiles, directory: Path) -> None:
    (directory / "link").symlink_to(directory.parent / "secret")
    (directory / "inner").symlink_to("image")
    (directory / "up").symlink_to(directory.parent)
    (directory / "sub" / "root").symlink_to("/")
    before = descriptors()
    for path in ("link", "inner", "up/secret", "sub/root/etc/passwd", "image/x", "sub", "none"):
        with pytest.raises(errors.NotFound):
            store.open(f"file://{directory}/{path}")
    assert descriptors() == before


def test_the_listed_directory_itself_may_be_a_link(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(directory)
    store = ListedFiles("", [f"{tmp_path}/alias/"], [])
    with contextlib.closing(store.open(f"file://{tmp_path}/alias/image")) as extent:
        assert extent.read() == b"data"


def test_only_regular_files(store: ListedFiles, directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    for path in ("fifo", "sub"):
        with pytest.raises(errors.NotFound):
            store.open(f"file://{directory}/{path}")


@pytest.mark.parametrize("inside", ["", "/images", "/images/inner", "/elsewhere/../images"])
def test_no_store_is_registered_in_place(tmp_path: Path, inside: str) -> None:
    """Neither around a store's directory nor within it: its images are each one image's."""
    (tmp_path / "images").mkdir()
    with pytest.raises(errors.ConfigurationError, match="not apart"):
        ListedFiles("", [f"{tmp_path}{inside}"], [str(tmp_path / "images")])
    ListedFiles("", [f"{tmp_path}/images2"], [str(tmp_path / "images")])


def test_a_relative_directory_is_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="absolute"):
        ListedFiles("", ["images"], [])
