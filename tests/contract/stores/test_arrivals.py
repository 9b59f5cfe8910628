"""Files that a server in front has received: which are taken, and how they become images."""

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace import errors
from headrace.stores.arrivals import Arrivals
from headrace.stores.filesystem import FilesystemStore
from tests.contract.stores.storing import IMAGE_ID, OTHER_ID, descriptors, get, put
from tests.needs import require_root

NAME = "0000000042"


@pytest.fixture
def directory(datadir: Path) -> Path:
    return datadir / ".headrace-uploads"


@pytest.fixture
def arrivals(directory: Path) -> Arrivals:
    arrivals = Arrivals(str(directory))
    assert arrivals.refusal() is None
    return arrivals


@pytest.fixture
def store(datadir: Path) -> FilesystemStore:
    return FilesystemStore("file", datadir)


def arrived(directory: Path, content: bytes = b"data", name: str = NAME) -> Path:
    path = directory / name
    path.write_bytes(content)
    path.chmod(0o600)
    return path


# The directory


def test_the_directory_is_its_owners_only(arrivals: Arrivals, directory: Path) -> None:
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_others_may_write_is_refused(arrivals: Arrivals, directory: Path) -> None:
    directory.chmod(0o770)
    assert "may be written by others" in str(arrivals.refusal())


def test_the_directory_of_another_user_is_refused(arrivals: Arrivals, directory: Path) -> None:
    require_root()
    os.chown(directory, 33, 33)
    assert "belongs to user 33" in str(arrivals.refusal())


def test_what_is_no_directory_is_refused(datadir: Path, directory: Path) -> None:
    datadir.mkdir()
    directory.symlink_to("/tmp")
    assert "not a directory" in str(Arrivals(str(directory)).refusal())


def test_a_directory_that_cannot_be_made_is_refused(datadir: Path) -> None:
    datadir.write_bytes(b"in the way")
    assert "Not a directory" in str(Arrivals(str(datadir / "none" / "there")).refusal())


# Taking


def test_a_file_is_taken_and_its_name_is_gone_after(arrivals: Arrivals, directory: Path) -> None:
    path = arrived(directory, b"some data")
    before = descriptors()
    with arrivals.take(str(path)) as arrival:
        assert arrival.length == 9
        assert os.pread(arrival.fd, 100, 0) == b"some data"
    assert not path.exists()
    assert descriptors() == before


def test_it_is_gone_after_a_failure_too(arrivals: Arrivals, directory: Path) -> None:
    path = arrived(directory)
    with pytest.raises(RuntimeError), arrivals.take(str(path)):
        raise RuntimeError
    assert not path.exists()


@pytest.mark.parametrize(
    "name",
    [
        "../images",
        f"../{IMAGE_ID}",
        f"./{NAME}",
        f"deeper/{NAME}",
        "name",
        "",
        ".",
        "1\n",
        "\u0661",
    ],
)
def test_only_names_directly_in_the_directory(
    arrivals: Arrivals, directory: Path, datadir: Path, name: str
) -> None:
    (datadir / IMAGE_ID).write_bytes(b"somebody else's image")
    arrived(directory)
    with pytest.raises(errors.BadRequest):
        arrivals.take(f"{directory}/{name}")


@pytest.mark.parametrize("path", [NAME, "", "/etc/passwd", "/proc/self/fd/0", "/1"])
def test_only_paths_of_the_directory(arrivals: Arrivals, directory: Path, path: str) -> None:
    arrived(directory)
    with pytest.raises(errors.BadRequest):
        arrivals.take(path)


def _link_to_an_image(path: Path) -> None:
    (path.parent.parent / IMAGE_ID).write_bytes(b"somebody else's image")
    path.symlink_to(path.parent.parent / IMAGE_ID)


def _second_name_of_an_image(path: Path) -> None:
    (path.parent.parent / IMAGE_ID).write_bytes(b"somebody else's image")
    path.hardlink_to(path.parent.parent / IMAGE_ID)


def _socket(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY)  # the whole path may be too long for a socket's
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"/proc/self/fd/{directory}/{path.name}")
    os.close(directory)


def _for_others(path: Path) -> None:
    path.write_bytes(b"data")
    path.chmod(0o620)


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, os.mkfifo, _socket, _link_to_an_image, _second_name_of_an_image, _for_others],
    ids=lambda make: make.__name__.strip("_"),
)
def test_what_is_not_an_ordinary_file_of_ours_alone(
    arrivals: Arrivals, directory: Path, make: Callable[[Path], None]
) -> None:
    make(directory / NAME)
    before = descriptors()
    with pytest.raises(errors.BadRequest):
        arrivals.take(f"{directory}/{NAME}")
    assert descriptors() == before
    assert os.path.lexists(directory / NAME)


def test_the_file_of_another_user(arrivals: Arrivals, directory: Path) -> None:
    require_root()
    os.chown(arrived(directory), 33, 33)
    with pytest.raises(errors.BadRequest, match="not its owner's alone"):
        arrivals.take(f"{directory}/{NAME}")


# Becoming an image


def test_it_becomes_the_image_without_a_copy(
    store: FilesystemStore, arrivals: Arrivals, directory: Path
) -> None:
    path = arrived(directory, b"image data")
    inode = path.stat().st_ino
    with arrivals.take(str(path)) as arrival, contextlib.ExitStack() as stack:
        writer = store.adopt(IMAGE_ID, arrival.fd)
        assert writer is not None
        stack.callback(writer.abort)
        assert writer.landed == 10
        url = writer.commit()
    assert get(store, url) == b"image data"
    status = (Path(store.datadir) / IMAGE_ID).stat()
    assert (status.st_ino, status.st_nlink) == (inode, 1)


@pytest.mark.parametrize(("file_perm", "mode"), [(0, 0o640), (0o644, 0o644)])
def test_it_has_the_mode_of_every_image(
    datadir: Path, arrivals: Arrivals, directory: Path, file_perm: int, mode: int
) -> None:
    store = FilesystemStore("file", datadir, file_perm=file_perm)
    before = os.umask(0o027)
    try:
        with arrivals.take(str(arrived(directory))) as arrival:
            writer = store.adopt(IMAGE_ID, arrival.fd)
            assert writer is not None
            writer.commit()
            writer.abort()
    finally:
        os.umask(before)
    assert stat.S_IMODE((datadir / IMAGE_ID).stat().st_mode) == mode


def test_one_that_is_written_meanwhile_is_refused(
    store: FilesystemStore, arrivals: Arrivals, directory: Path
) -> None:
    path = arrived(directory)
    with arrivals.take(str(path)) as arrival:
        writer = store.adopt(IMAGE_ID, arrival.fd)
        assert writer is not None
        with path.open("r+b") as file:
            file.write(b"evil")
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # the clock of files may be coarse
        with pytest.raises(errors.UploadIncomplete, match="written to"):
            writer.commit()
    assert os.listdir(store.datadir) == [directory.name]


def test_one_of_another_file_system_must_be_copied(store: FilesystemStore) -> None:
    with open("/proc/self/status", "rb") as elsewhere:
        assert store.adopt(IMAGE_ID, elsewhere.fileno()) is None


def test_one_never_replaces_an_image(
    store: FilesystemStore, arrivals: Arrivals, directory: Path
) -> None:
    with arrivals.take(str(arrived(directory))) as arrival:
        late = store.adopt(IMAGE_ID, arrival.fd)
        assert late is not None
        url = put(store, b"first")
        with pytest.raises(errors.DataExists):
            store.adopt(IMAGE_ID, arrival.fd)
        with pytest.raises(errors.DataExists):
            late.commit()
    assert get(store, url) == b"first"


def test_a_failed_one_leaves_nothing(
    store: FilesystemStore, arrivals: Arrivals, directory: Path
) -> None:
    with arrivals.take(str(arrived(directory))) as arrival:
        writer = store.adopt(OTHER_ID, arrival.fd)
        assert writer is not None
        writer.abort()
        writer.abort()
    assert os.listdir(store.datadir) == [directory.name]
    assert os.listdir(directory) == []


# Leftovers


def test_what_nobody_writes_is_swept(
    arrivals: Arrivals, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    for number in range(3):
        arrived(directory, name=f"000000000{number}")
    with (directory / "0000000001").open("r+b"):  # as nginx has what it receives
        assert arrivals.sweep() == 2
        assert os.listdir(directory) == ["0000000001"]
    assert arrivals.sweep() == 1
    assert os.listdir(directory) == []


def test_a_reader_does_not_keep_it(arrivals: Arrivals, directory: Path) -> None:
    with arrived(directory).open("rb"):
        assert arrivals.sweep() == 1


def test_a_directory_that_is_refused_is_not_swept(
    arrivals: Arrivals, directory: Path, tmp_path: Path
) -> None:
    directory.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    arrived(elsewhere)
    directory.symlink_to(elsewhere)
    assert arrivals.sweep() == 0
    assert os.listdir(elsewhere) == [NAME]


def test_only_files_with_such_names_are_swept(arrivals: Arrivals, directory: Path) -> None:
    (directory / "README").touch()
    (directory / "0000000007").mkdir()
    (directory / "0000000008").symlink_to("README")
    assert arrivals.sweep() == 0
    assert sorted(os.listdir(directory)) == ["0000000007", "0000000008", "README"]
