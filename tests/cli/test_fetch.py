"""`headrace fetch` as a host uses it, against a real server."""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cache.conversions import entry_id
from tests.cli.conftest import COMMAND, GUARD, Outcome, run
from tests.cli.terminal import on_terminal
from tests.client.peer import Wire, peer
from tests.faults.service import Service
from tests.image_files import qemu_image
from tests.needs import require, require_command, require_root, require_strace
from tools import strace
from tools.serving import Serving, environment

MIB = 1 << 20
SIZE = 8 * MIB + 5
NOWHERE = "http://127.0.0.1:9"


class Host:
    """A compute host: a cache, and the words to use it."""

    def __init__(self, url: str, cache: Path) -> None:
        self.cache = cache
        self.env = {"HEADRACE_URL": url, "HEADRACE_CACHE_DIR": str(cache)}

    def __call__(self, *words: str | Path, **how: object) -> Outcome:
        return run(*words, env=self.env, **how)  # type: ignore[arg-type]

    def told(self, *words: str | Path, **how: object) -> dict[str, object]:
        """What `headrace --json fetch …` says."""
        done = self("--json", "fetch", *words, **how)
        assert done.status == 0, done.err
        found: dict[str, object] = json.loads(done.out)
        return found


@pytest.fixture
def host(server: Serving, tmp_path: Path) -> Host:
    return Host(server.url, tmp_path / "cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "image"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def image_id(server: Serving, data: Path) -> str:
    return Service(server).active(data.read_bytes(), name=uuid.uuid4().hex)


@contextlib.contextmanager
def xfs(directory: Path) -> Iterator[Path]:
    """A small disk whose files may share blocks."""
    require_root()
    file, disk = directory / "xfs", directory / "disk"
    with file.open("wb") as image:
        image.truncate(400 * MIB)
    make = subprocess.run([require_command("mkfs.xfs"), "-q", file], capture_output=True)
    require(make.returncode == 0, f"needs mkfs.xfs with reflinks: {make.stderr.decode()}")
    disk.mkdir()
    mount = subprocess.run(["mount", "-o", "loop", file, disk], capture_output=True)
    require(mount.returncode == 0, f"needs to mount a file: {mount.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def downloads(server: Serving, image_id: str) -> int:
    """How often the service was asked for an image's data."""
    return server.log.read_text().count(f"GET /v2/images/{image_id}/file")


def test_an_image_is_fetched_once(server: Serving, host: Host, data: Path, image_id: str) -> None:
    targets = [host.cache.parent / name for name in ("one", "two")]
    first, second = (host.told(image_id, "--to", target) for target in targets)
    assert all(target.read_bytes() == data.read_bytes() for target in targets)
    assert (first["cache"], second["cache"]) == ("fetched", "hit")
    assert (second["id"], second["size"]) == (image_id, SIZE)
    assert (second["path"], second["verified"]) == (str(targets[1]), "sha512")
    assert second["delivered"] in {"reflink", "copy_file_range"}
    assert downloads(server, image_id) == 1


def test_without_a_target_the_cache_s_file_is_told(host: Host, data: Path, image_id: str) -> None:
    path = Path(host("fetch", image_id).out.strip())
    assert path.read_bytes() == data.read_bytes()
    assert path == host.cache / image_id


def test_on_a_terminal_a_bar_is_drawn(host: Host, image_id: str) -> None:
    status, text = on_terminal(["fetch", image_id], host.env)
    assert status == 0
    assert "Fetching" in text
    assert str(host.cache / image_id) in text.replace("\r\n", "")


@pytest.mark.slow
def test_many_at_once_download_once(
    server: Serving, host: Host, data: Path, image_id: str, tmp_path: Path
) -> None:
    targets = [tmp_path / str(number) for number in range(5)]
    processes = [
        subprocess.Popen(
            [COMMAND, "--json", "fetch", image_id, "--to", target],
            env=environment(host.env),
            stdout=subprocess.PIPE,
        )
        for target in targets
    ]
    found = [json.loads(process.communicate(timeout=GUARD)[0])["cache"] for process in processes]
    assert all(target.read_bytes() == data.read_bytes() for target in targets)
    assert found.count("fetched") == 1
    assert downloads(server, image_id) == 1


def test_a_target_is_an_ordinary_file(host: Host, image_id: str, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        host.told(image_id, "--to", tmp_path / "disk")
    finally:
        os.umask(before)
    assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "disk").stat().st_nlink == 1


def test_a_target_that_is_there_stays_unless_forced(
    host: Host, data: Path, image_id: str, tmp_path: Path
) -> None:
    target, name = tmp_path / "disk", tmp_path / "name"
    target.write_bytes(b"precious")
    target.chmod(0o600)
    name.symlink_to(target)
    done = host("fetch", image_id, "--to", name)
    assert (done.status, target.read_bytes()) == (2, b"precious")
    assert "--force" in done.err
    assert not host.cache.exists()  # it was said before anything was done
    host.told(image_id, "--to", name, "--force")
    assert name.is_symlink()
    assert target.read_bytes() == data.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600
    host.told(image_id, "--to", name, "--force", "--link")
    host.told(image_id, "--to", name, "--force", "--link")  # where it is the same file already
    assert target.stat().st_nlink == 2
    assert {each.name for each in tmp_path.iterdir()} == {"cache", "disk", "name"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--to", "missing/disk"], "there is no directory"),
        (["--to", "."], "is a directory"),
        (["--to", "/dev/null", "--force"], "no regular file"),
        (["--to", "disk/"], "names a directory"),
        (["--link"], "goes with --to"),
        (["--force"], "goes with --to"),
        (["--max-size", "much"], "expected a size"),
    ],
)
def test_what_cannot_be_is_a_wrong_call(
    host: Host, image_id: str, words: list[str], reason: str
) -> None:
    done = host("fetch", image_id, *words)
    assert (done.status, done.out) == (2, "")
    assert reason in done.err


def test_a_link_is_the_cache_s_own_file(host: Host, image_id: str, tmp_path: Path) -> None:
    told = host.told(image_id, "--to", tmp_path / "base", "--link")
    assert told["delivered"] == "hard link"
    assert (tmp_path / "base").samefile(host.cache / image_id)
    assert (tmp_path / "base").stat().st_mode & 0o777 == 0o444


def test_where_no_link_can_be_the_kernel_copies(
    host: Host, data: Path, image_id: str, tmp_path: Path
) -> None:
    require_root()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", elsewhere], check=True)
    try:
        done = host("--json", "fetch", image_id, "--to", elsewhere / "disk", "--link")
        assert (elsewhere / "disk").read_bytes() == data.read_bytes()
    finally:
        subprocess.run(["umount", "--lazy", elsewhere], check=True)
    assert "no link" in done.err
    assert json.loads(done.out)["delivered"] in {"copy_file_range", "copy"}


@pytest.mark.parametrize("way", ["away", "offline"])
def test_without_the_service_the_cache_gives_what_it_has(
    host: Host, data: Path, image_id: str, tmp_path: Path, way: str
) -> None:
    words: list[str] = ["--offline"] if way == "offline" else ["--url", NOWHERE]
    missing = host("fetch", image_id, *words)
    assert (missing.status, missing.out) == (1, "")
    assert "by its id only" not in missing.err
    assert "by its id only" in host("fetch", "noble", *words).err
    host.told(image_id)
    done = host("--json", "fetch", image_id, "--to", tmp_path / "disk", *words)
    assert (tmp_path / "disk").read_bytes() == data.read_bytes()
    assert ("cannot reach" in done.err) is (way == "away")
    assert json.loads(done.out)["cache"] == "hit"


def test_what_the_service_refuses_the_cache_does_not_give(host: Host, image_id: str) -> None:
    host.told(image_id)
    assert host("deactivate", image_id).status == 0
    assert "deactivated" in host("fetch", image_id).err
    assert host("delete", image_id, "--force").status == 0
    done = host("fetch", image_id)
    assert (done.status, done.out) == (1, "")
    assert "not found" in done.err


@pytest.mark.slow
def test_what_was_fetched_can_be_listed_and_removed(host: Host, image_id: str) -> None:
    assert host("fetched", "list").out == ""
    host.told(image_id)
    assert re.search(rf"^{image_id} .* {SIZE} ", host("fetched", "list").out, re.MULTILINE)
    listed = json.loads(host("fetched", "list", "--json").out)
    assert json.loads(host("--json", "fetched", "list").out) == listed
    assert [each["id"] for each in listed["images"]] == [image_id]
    assert listed["used"] == SIZE
    assert host("fetched", "prune").out == "Removed 0 files, 0 bytes\n"
    small = host("fetched", "prune", "--max-size", "1M")
    assert small.out == f"Removed 1 files, {SIZE} bytes\n"
    assert host("fetched", "list").out == ""
    host.told(image_id)
    assert host("fetched", "delete", image_id).status == 0
    assert host("fetched", "delete", image_id).status == 1
    assert host("fetched", "delete", "../cache.db").status == 2


@pytest.mark.parametrize("link", [False, True])
def test_neither_fetching_nor_delivering_copies(
    host: Host, image_id: str, tmp_path: Path, link: bool
) -> None:
    prefix, target = tmp_path / "trace", tmp_path / "disk"
    words = ["--link"] if link else []
    told = host.told(
        image_id, "--to", target, *words, under=strace.command(require_strace(), prefix)
    )
    carried = strace.on_sockets(prefix)
    assert carried.bytes["splice"] >= SIZE - 64 * 1024  # what came with the head is copied
    assert sum(carried.bytes.values()) - carried.bytes["splice"] <= MIB
    moved = strace.on_file(prefix, image_id)  # the entry, and what is noted of it
    delivered = 0 if link or told["delivered"] == "reflink" else SIZE
    assert moved["copy_file_range"] == delivered
    assert moved["preadv2"] == SIZE  # hashing, as it lands
    assert moved["write"] + moved["pwrite64"] + moved["read"] + moved["pread64"] <= 64 * 1024


@pytest.mark.slow
def test_blocks_are_shared_where_they_can_be(
    server: Serving, image_id: str, data: Path, tmp_path: Path
) -> None:
    with xfs(tmp_path) as disk:
        host = Host(server.url, disk / "cache")
        assert host.told(image_id, "--to", disk / "disk")["delivered"] == "reflink"
        assert (disk / "disk").read_bytes() == data.read_bytes()
        with (disk / "disk").open("r+b") as file:
            file.write(b"a guest's")
        assert host.told(image_id, "--to", disk / "other")["cache"] == "hit"
        assert (disk / "other").read_bytes() == data.read_bytes()


@pytest.fixture
def qcow2(server: Serving, tmp_path: Path) -> tuple[str, bytes]:
    """An image that is a disk with holes, and the disk."""
    path = qemu_image(tmp_path / "qcow2", "qcow2", size=16 * MIB)
    disk = (bytes(range(256)) * 1024).ljust(16 * MIB, b"\0")
    env = {"HEADRACE_URL": server.url}
    return run("add", f"name={uuid.uuid4()}", f"path={path}", env=env).image_id, disk


def test_a_disk_is_converted_once(
    server: Serving, host: Host, qcow2: tuple[str, bytes], tmp_path: Path
) -> None:
    image_id, disk = qcow2
    first = host.told(image_id, "--convert", "raw", "--to", tmp_path / "one")
    second = host.told(image_id, "--convert", "raw", "--to", tmp_path / "two", "--url", NOWHERE)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == disk
    assert (first["cache"], second["cache"]) == ("fetched", "hit")
    assert (first["converted_to"], first["size"]) == ("raw", len(disk))
    assert (tmp_path / "two").stat().st_blocks * 512 <= 2 * MIB  # holes stay
    listed = json.loads(host("fetched", "list", "--json").out)["images"]
    assert {(each["id"], each["converted_to"]) for each in listed} == {
        (image_id, None), (image_id, "raw"),
    }  # fmt: skip
    assert downloads(server, image_id) == 1
    made = entry_id(image_id, "raw")
    assert host("fetch", made, "--offline").status == 1, "no image has this id"
    assert host("fetched", "delete", image_id).status == 0
    assert host("fetched", "list").out == ""


@pytest.mark.slow
def test_many_at_once_convert_once(host: Host, qcow2: tuple[str, bytes], tmp_path: Path) -> None:
    targets = [tmp_path / str(number) for number in range(4)]
    words = ["fetch", qcow2[0], "--convert", "raw", "--to"]
    processes = [
        subprocess.Popen([COMMAND, *words, target], env=environment(host.env)) for target in targets
    ]
    assert [process.wait(GUARD) for process in processes] == [0] * 4
    assert all(target.read_bytes() == qcow2[1] for target in targets)
    assert {each.name for each in host.cache.iterdir() if each.is_file()} == {
        "cache.db", "converting.lock", qcow2[0], entry_id(qcow2[0], "raw"),
    }  # fmt: skip


@pytest.mark.slow
def test_what_a_killed_conversion_left_is_removed(
    host: Host, qcow2: tuple[str, bytes], tmp_path: Path
) -> None:
    left = host.cache / "converting"
    host.told(qcow2[0])
    left.write_bytes(b"half")
    assert host("fetched", "prune").status == 0
    assert not left.exists()
    left.write_bytes(b"half")
    host.told(qcow2[0], "--convert", "raw", "--to", tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == qcow2[1]


def test_what_is_in_the_format_already_is_not_converted(host: Host, image_id: str) -> None:
    told = host.told(image_id, "--convert", "raw")
    assert (told["path"], told["converted_to"]) == (str(host.cache / image_id), None)


@pytest.mark.slow
@pytest.mark.parametrize("flaw", ["refers elsewhere", "is another format"])
def test_what_is_not_safe_is_not_converted(
    server: Serving, host: Host, tmp_path: Path, flaw: str
) -> None:
    """A service that lets it in is not this host's judge."""
    path = tmp_path / "image"
    if flaw == "refers elsewhere":
        require_command("qemu-img")
        words = ["-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "-u", path, "1M"]
        subprocess.run(["qemu-img", "create", *words], check=True, capture_output=True)
        wanted = "qcow2"
    else:
        qemu_image(path, "qcow2")
        wanted = "raw"
    data = path.read_bytes()
    record = {
        "id": str(uuid.uuid4()),
        "status": "active",
        "disk_format": wanted,
        "size": len(data),
        "os_hash_algo": "sha256",
        "os_hash_value": hashlib.sha256(data).hexdigest(),
    }

    def lax(wire: Wire) -> None:
        wire.head()
        wire.answer_json(record)
        wire.head()
        wire.answer("200 OK", data)

    target = tmp_path / "disk"
    with peer(lax) as found:
        host = Host(found.url, host.cache)
        done = host("fetch", str(record["id"]), "--convert", "raw", "--to", target)
    assert (done.status, done.out) == (1, "")
    assert "upload." in done.err  # the code of the inspection
    assert not target.exists()
    assert not (host.cache / "converting").exists()


def test_a_disk_larger_than_the_cache_is_refused(host: Host, qcow2: tuple[str, bytes]) -> None:
    done = host("fetch", qcow2[0], "--convert", "raw", "--max-size", "8M")
    assert (done.status, done.out) == (1, "")
    assert "more bytes than all of the cache" in done.err
