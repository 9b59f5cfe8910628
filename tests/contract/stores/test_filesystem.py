"""What the filesystem store promises beyond every store: names, modes, order of calls, crashes."""

import contextlib
import filecmp
import logging
import os
import re
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.stores.base import Store
from headrace.stores.filesystem import FilesystemStore
from headrace.transfer.engine import pump
from headrace.transfer.extent import Extent
from tests.contract.stores.conftest import StartWriting
from tests.contract.stores.storing import (
    IMAGE_ID,
    OTHER_ID,
    descriptors,
    finish,
    get,
    published,
    put,
)
from tests.contract.stores.variants import VARIANTS
from tests.needs import require, require_command, require_root, require_strace

Mount = Callable[[str], None]


@pytest.fixture(params=["unnamed", "named"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Names and URLs


def test_data_lie_under_the_image_id_and_a_file_url(store: Store, datadir: Path) -> None:
    assert put(store, b"data") == f"file://{datadir}/{IMAGE_ID}"
    assert (datadir / IMAGE_ID).read_bytes() == b"data"


def test_filesystem_urls_and_doubled_slashes_mean_the_same_file(
    store: Store, datadir: Path
) -> None:
    put(store, b"data")
    for url in (f"filesystem://{datadir}/{IMAGE_ID}", f"file:///{datadir}//{IMAGE_ID}"):
        assert get(store, url) == b"data"
    store.delete(f"filesystem://{datadir}/{IMAGE_ID}")
    assert os.listdir(datadir) == []


def test_a_relative_directory_makes_absolute_urls(
    datadir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(datadir.parent)
    store = FilesystemStore("file", datadir.name)
    assert put(store, b"data") == f"file://{datadir}/{IMAGE_ID}"


@pytest.mark.parametrize(
    "url",
    [
        "file://{datadir}/../victim",
        "file://{datadir}/../outside/{id}",
        "file://{datadir}/sub/{id}",
        "file://{datadir}/sub/../{id}",
        "file://{datadir}/./{id}",
        "file://{datadir}/.",
        "file://{datadir}",
        "file://{datadir}/",
        "file://{datadir}/{id}/../../victim",
        "file://{datadir}/{id}\0",
        "file://{datadir}/{id}?x",
        "file://localhost{datadir}/{id}",
        "file:{datadir}/{id}",
        "FILE://{datadir}/{id}",
        "file:///etc/passwd",
        "file://{id}",
        "{datadir}/{id}",
        "http://{datadir}/{id}",
        "file://{datadir}/%2e%2e/victim",
    ],
)
def test_no_url_leads_out_of_the_directory(store: Store, datadir: Path, url: str) -> None:
    put(store, b"data")
    for place in (datadir / "sub", datadir.parent / "outside"):
        place.mkdir()
        (place / IMAGE_ID).write_bytes(b"not an image of this store")
    victim = datadir.parent / "victim"
    victim.write_bytes(b"not an image")
    attack = url.format(datadir=datadir, id=IMAGE_ID)
    with pytest.raises((errors.NotFound, errors.StoreNotFound)):
        store.open(attack)
    with pytest.raises((errors.NotFound, errors.StoreNotFound)):
        store.delete(attack)
    assert victim.exists()
    assert (datadir.parent / "outside" / IMAGE_ID).exists()
    assert (datadir / "sub" / IMAGE_ID).exists()
    assert (datadir / IMAGE_ID).exists()


def test_only_regular_files_are_images(store: Store, datadir: Path) -> None:
    victim = datadir.parent / "victim"
    victim.write_bytes(b"not an image")
    makers: list[Callable[[Path], object]] = [
        lambda path: path.symlink_to(victim),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
    ]
    for make in makers:
        path = datadir / str(uuid.uuid4())
        make(path)
        with pytest.raises(errors.NotFound):
            store.open(f"file://{path}")
        with pytest.raises(errors.NotFound):
            store.delete(f"file://{path}")
        with pytest.raises(errors.DataExists):
            store.create(path.name, None)
        assert os.path.lexists(path)
    assert victim.read_bytes() == b"not an image"


def test_a_name_taken_by_a_symlink_is_not_written_through(store: Store, datadir: Path) -> None:
    writer = store.create(IMAGE_ID, None)
    os.write(writer.sink.fd, b"data")
    victim = datadir.parent / "victim"
    (datadir / IMAGE_ID).symlink_to(victim)
    with pytest.raises(errors.DataExists):
        writer.commit()
    assert not victim.exists()


# Modes


@pytest.mark.usefixtures("umask")
def test_the_mode_is_what_the_umask_leaves(store: Store, datadir: Path) -> None:
    put(store, b"data")
    assert mode_of(datadir / IMAGE_ID) == 0o640


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("file_perm", "directory_mode"), [(0o600, 0o700), (0o440, 0o710), (0o444, 0o711)]
)
@pytest.mark.parametrize("unnamed", [True, False])
def test_file_perm_is_the_mode_and_lets_its_readers_in(
    datadir: Path, file_perm: int, directory_mode: int, unnamed: bool
) -> None:
    datadir.mkdir()
    datadir.chmod(0o700)
    store = FilesystemStore("file", datadir, file_perm=file_perm, unnamed=unnamed)
    put(store, b"data")
    assert mode_of(datadir / IMAGE_ID) == file_perm
    assert mode_of(datadir) == directory_mode


def test_a_mode_that_keeps_the_owner_from_reading_is_refused(datadir: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="040"):
        FilesystemStore("file", datadir, file_perm=0o040)


def test_a_datadir_that_is_no_directory_is_refused(datadir: Path) -> None:
    datadir.write_bytes(b"")
    with pytest.raises(errors.ConfigurationError):
        FilesystemStore("file", datadir)


# The order of calls


def calls_of_commit(tmp_path: Path, start_writing: StartWriting) -> list[str]:
    """The file-system calls of a writing process, failed ones left out, as strace prints them."""
    trace = tmp_path / "trace"
    traced = "trace=fsync,fdatasync,linkat,unlink,unlinkat,rename,renameat,renameat2,openat,close"
    process = start_writing("data", require_strace(), "-f", "-y", "-o", str(trace), "-e", traced)
    assert finish(process) == "won"
    return [line for line in trace.read_text().splitlines() if " = -1 " not in line]


def test_commit_syncs_the_file_then_links_then_syncs_the_directory(
    tmp_path: Path, datadir: Path, start_writing: StartWriting, variant: str
) -> None:
    calls = calls_of_commit(tmp_path, start_writing)
    (link,) = (i for i, call in enumerate(calls) if "linkat(" in call and f'"{IMAGE_ID}"' in call)
    assert ("AT_SYMLINK_FOLLOW" in calls[link]) == (variant == "unnamed")
    syncs = [i for i, call in enumerate(calls) if re.search(r"\bfsync\(", call)]
    before = [calls[i] for i in syncs if i < link]
    after = [calls[i] for i in syncs if i > link]
    assert len(before) == 1
    assert re.search(rf"fsync\(\d+<{re.escape(str(datadir))}/", before[0])
    assert len(after) == 1
    assert re.search(rf"fsync\(\d+<{re.escape(str(datadir))}>\)", after[0])
    assert not [call for call in calls if "rename" in call]
    if variant == "named":
        assert [i for i, call in enumerate(calls) if "unlink" in call and link < i < syncs[-1]]


def test_progress_starts_the_write_back(tmp_path: Path, datadir: Path) -> None:
    script = (
        "import os, sys; from headrace.stores.filesystem import FilesystemStore\n"
        f"writer = FilesystemStore('file', {str(datadir)!r}).create({IMAGE_ID!r}, None)\n"
        "for total in range(1 << 20, 33 << 20, 1 << 20):\n"
        "    os.write(writer.sink.fd, bytes(1 << 20)); writer.advance(total)\n"
        "writer.commit()\n"
    )
    trace = tmp_path / "trace"
    subprocess.run(
        [require_strace(), "-o", trace, "-e", "trace=sync_file_range", sys.executable, "-c",
         script],
        check=True, timeout=120, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    ranges = re.findall(
        r"sync_file_range\(\d+, (\d+), (\d+), SYNC_FILE_RANGE_WRITE\)", trace.read_text()
    )
    eight = 8 << 20
    assert [(int(offset), int(length)) for offset, length in ranges] == [
        (number * eight, eight) for number in range(4)
    ]


# A disk that is full, or may not be written


def test_a_full_disk_leaves_nothing_and_gives_back_its_room(
    mount_tmpfs: Mount, datadir: Path, variant: str
) -> None:
    mount_tmpfs("size=1m")
    store = VARIANTS[variant].make(datadir)
    with pytest.raises(errors.StoreFull):
        store.create(IMAGE_ID, 2 << 20)
    writer = store.create(IMAGE_ID, None)
    os.write(writer.sink.fd, bytes(2 << 20))  # a short count: as much as there is room for
    with pytest.raises(OSError, match="No space left"):
        os.write(writer.sink.fd, b"one more")
    writer.abort()
    assert os.listdir(datadir) == []
    content = bytes(900 << 10)
    assert get(store, put(store, content)) == content


def test_no_inode_left_for_a_new_file(mount_tmpfs: Mount, datadir: Path, variant: str) -> None:
    mount_tmpfs("size=1m,nr_inodes=3")
    store = VARIANTS[variant].make(datadir)
    (datadir / "a").touch()
    (datadir / "b").touch()
    before = descriptors()
    with pytest.raises(errors.StoreFull):
        store.create(IMAGE_ID, None)
    assert descriptors() == before
    (datadir / "b").unlink()
    if variant == "named":
        # tmpfs counts a second name as an inode: this one fails when it is to be published.
        writer = store.create(IMAGE_ID, None)
        with pytest.raises(errors.StoreFull):
            writer.commit()
        assert descriptors() == before
        (datadir / "a").unlink()
    assert get(store, put(store, b"data")) == b"data"


def test_a_disk_full_at_start_is_no_read_only_store(
    mount_tmpfs: Mount, datadir: Path, variant: str
) -> None:
    mount_tmpfs("size=1m,nr_inodes=3")
    (datadir / "a").touch()
    (datadir / "b").touch()
    store = VARIANTS[variant].make(datadir)
    with pytest.raises(errors.StoreFull):
        store.create(IMAGE_ID, None)
    (datadir / "a").unlink()
    (datadir / "b").unlink()
    assert get(store, put(store, b"data")) == b"data"


def test_a_file_system_without_a_limit_has_room(
    mount_tmpfs: Mount, datadir: Path, variant: str
) -> None:
    mount_tmpfs("size=0")
    store = VARIANTS[variant].make(datadir)
    store.create(IMAGE_ID, 1 << 40).abort()


def test_a_read_only_directory_is_read_and_never_written(
    mount_tmpfs: Mount, datadir: Path, variant: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mount_tmpfs("size=1m")
    before = VARIANTS[variant].make(datadir)
    url = put(before, b"data")
    assert not caplog.records
    subprocess.run(["mount", "-o", "remount,ro", datadir], check=True)
    after = VARIANTS[variant].make(datadir)
    assert "may not be written" in caplog.text
    for store in (before, after):
        with pytest.raises(errors.StoreUnwritable):
            store.create(OTHER_ID, None)
        with pytest.raises(errors.Forbidden):
            store.delete(url)
        assert get(store, url) == b"data"
        assert store.sweep() == 0


def test_a_directory_that_vanishes_under_a_writer(store: Store, datadir: Path) -> None:
    writer = store.create(IMAGE_ID, None)
    datadir.rename(datadir.with_name("elsewhere"))
    with pytest.raises(errors.StoreUnwritable):
        writer.commit()
    with pytest.raises(errors.StoreUnwritable):
        store.create(IMAGE_ID, None)


# Without unnamed files


def test_without_proc_files_get_names_while_written(datadir: Path) -> None:
    """linkat publishes an unnamed file through /proc; a service may be kept from seeing it."""
    require_root()
    unshare = require_command("unshare")
    script = (
        "import os; from headrace.stores.filesystem import FilesystemStore\n"
        f"store = FilesystemStore('file', {str(datadir)!r})\n"
        f"writer = store.create({IMAGE_ID!r}, None)\n"
        "os.write(writer.sink.fd, b'data')\n"
        f"print(*os.listdir({str(datadir)!r}))\n"
        "writer.commit()\n"
    )
    result = subprocess.run(
        [unshare, "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh",
         sys.executable, "-c", script],
        capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    require("ermission denied" not in result.stderr, "may not make a mount namespace")
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"\.headrace-[0-9a-f-]{36}\.part\n", result.stdout)
    assert os.listdir(datadir) == [IMAGE_ID]
    assert (datadir / IMAGE_ID).read_bytes() == b"data"


def test_an_unnamed_file_has_no_name_while_written(datadir: Path) -> None:
    store = FilesystemStore("file", datadir)
    writer = store.create(IMAGE_ID, None)
    assert os.listdir(datadir) == []
    writer.abort()


# Leftovers


def test_sweep_leaves_what_is_not_its_own(store: Store, datadir: Path) -> None:
    part = f".headrace-{uuid.uuid4()}.part"
    (datadir / part).write_bytes(b"left over")
    others = [
        IMAGE_ID,
        part[1:],
        part + "x",
        ".headrace-x.part",
        f".glance-{uuid.uuid4()}.part",
        f"{IMAGE_ID}.part",
    ]
    for name in others:
        (datadir / name).write_bytes(b"not ours")
    odd = [f".headrace-{uuid.uuid4()}.part" for _ in range(3)]
    (datadir / odd[0]).mkdir()
    (datadir / odd[1]).symlink_to(IMAGE_ID)
    os.mkfifo(datadir / odd[2])
    assert store.sweep() == 1
    assert sorted(os.listdir(datadir)) == sorted([*others, *odd])


def test_a_leftover_that_was_published_already_loses_only_its_second_name(
    store: Store, datadir: Path
) -> None:
    """A crash between link and unlink leaves both names on one file."""
    url = put(store, b"data")
    os.link(datadir / IMAGE_ID, datadir / f".headrace-{uuid.uuid4()}.part")
    assert store.sweep() == 1
    assert get(store, url) == b"data"


@pytest.mark.parametrize("variant", ["named"], indirect=True)
def test_a_sweep_between_creation_and_lock_makes_the_writer_begin_anew(
    store: Store, datadir: Path, start_writing: StartWriting
) -> None:
    """The writer's flock is slowed down, so that its files stand there without a lock."""
    removed = 0

    def sweep_twice() -> None:
        nonlocal removed
        while removed < 2:
            removed += store.sweep()
            time.sleep(0.01)

    sweeper = threading.Thread(target=sweep_twice, daemon=True)
    sweeper.start()
    slowed = ("-f", "-o", os.devnull, "-e", "inject=flock:delay_enter=300000")
    process = start_writing("data", require_strace(), *slowed)
    sweeper.join(timeout=60)
    assert removed == 2
    assert store.sweep() == 0
    assert finish(process) == "won"
    assert os.listdir(datadir) == [IMAGE_ID]


def test_sweeps_without_pause_harm_no_writer_that_begins(datadir: Path) -> None:
    """Writers and sweeps meet in every order that chance brings."""
    store = FilesystemStore("file", datadir, unnamed=False)
    ended = threading.Event()

    def sweep() -> None:
        while not ended.is_set():
            store.sweep()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        ids = [str(uuid.uuid4()) for _ in range(300)]
        for image_id in ids:
            put(store, image_id.encode(), image_id)
    finally:
        ended.set()
        sweeper.join()
    for image_id in ids:
        assert get(store, store.url(image_id)) == image_id.encode()
    assert sorted(os.listdir(datadir)) == sorted(ids)


# Holes


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_holes_stay_holes(store: Store, datadir: Path) -> None:
    writer = store.create(IMAGE_ID, None)
    os.pwrite(writer.sink.fd, b"start", 0)
    os.pwrite(writer.sink.fd, b"end", 1 << 30)
    writer.advance((1 << 30) + 3)
    url = published(writer)
    assert allocated(datadir / IMAGE_ID) < 1 << 20
    with contextlib.closing(store.open(url)) as extent:
        assert extent.length == (1 << 30) + 3
        assert os.pread(extent.fd, 3, 1 << 30) == b"end"


def test_holes_of_a_file_that_is_pumped_in_stay_holes(
    store: Store, datadir: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        for offset in (0, 60 << 20, 128 << 20):
            file.seek(offset)
            file.write(os.urandom(1 << 20))
        file.truncate(200 << 20)
    require(allocated(source) < 8 << 20, "needs a file system with holes for temporary files")
    extent = Extent(os.open(source, os.O_RDONLY | os.O_CLOEXEC), 0, 200 << 20)
    writer = store.create(IMAGE_ID, 200 << 20)
    with contextlib.closing(extent):
        assert pump(extent, writer.sink, progress=writer.advance).bytes == 200 << 20
    published(writer)
    assert allocated(datadir / IMAGE_ID) < 8 << 20
    assert filecmp.cmp(source, datadir / IMAGE_ID, shallow=False)


def test_a_disk_that_fills_up_during_a_pump_leaves_nothing(
    mount_tmpfs: Mount, datadir: Path, variant: str
) -> None:
    mount_tmpfs("size=1m")
    store = VARIANTS[variant].make(datadir)
    writer = store.create(IMAGE_ID, None)
    with pytest.raises(errors.StoreFull):
        pump(bytes(2 << 20), writer.sink, progress=writer.advance)
    writer.abort()
    assert os.listdir(datadir) == []
    content = bytes(900 << 10)
    assert get(store, put(store, content)) == content
