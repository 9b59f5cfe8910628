"""Import plugins: what becomes of data before it is stored, and what is refused."""

import gzip
import hashlib
import io
import os
import random
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace import errors
from headrace.model import Image, Status, TaskStatus
from headrace.service.conversion import Conversion
from headrace.service.decompression import Decompression
from headrace.service.imports import ImportRequest
from headrace.service.jobs import JobRules
from headrace.service.plugins import Injection, Plugin, Staged, Work, no_op
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.registry import Label, Registry
from tests.image_files import RULES, VIRTUAL_SIZE, descriptor, iso_image, qcow2, qemu_image, vmdk
from tests.needs import require_command
from tests.service.callers import OWNER
from tests.service.conftest import ADMIN, Service, serving
from tests.service.test_imports import (
    DIRECT,
    GUARD,
    download,
    imported,
    nothing_left,
    sending,
    settled,
    stage,
    task,
)
from tests.service.test_races import Paused
from tests.service.test_regions import RECORD, REQUEST, Region, downloaded, region
from tests.service.test_stores import read

MIB = 1 << 20
DATA = random.Random(5).randbytes(3 * MIB)
DISK = bytes(range(256)) * 1024 + bytes(VIRTUAL_SIZE - 256 * 1024)
"""What is in the disks of ``qemu_image``."""

With = Callable[..., Service]


@pytest.fixture
def with_plugins(tmp_path: Path) -> Iterator[With]:
    """A service with some plugins, and with the stores fast and cheap."""
    stores = [FilesystemStore("fast", tmp_path / "images")]
    stores.append(FilesystemStore("cheap", tmp_path / "cheap"))
    made = []

    def make(*plugins: Plugin, at_a_time: int = 1) -> Service:
        registry = Registry(stores, "fast", {"fast": Label(), "cheap": Label()})
        made.append(serving(tmp_path, registry, job_rules=JobRules(2, at_a_time, plugins)))
        return next(made[0])

    yield make
    for each in made:
        assert next(each, None) is None


def decompression(cap: int = 1 << 30, ratio: int = 200) -> Decompression:
    return Decompression(cap, ratio)


def conversion(to: str = "raw", cap: int = 1 << 30, ratio: int = 200) -> Conversion:
    for program in ("qemu-img", "setpriv", "prlimit"):
        require_command(program)
    return Conversion(to, cap, ratio, RULES["vmdk_allowed_types"], ())


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run([require_command("qemu-img"), *arguments], check=True, capture_output=True)


def zipped(*members: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for number, member in enumerate(members):
            archive.writestr(f"member {number}", member)
    return file.getvalue()


def refused(service: Service, image_id: str, request: ImportRequest = DIRECT) -> str:
    """Why an import failed that left nothing behind."""
    image = imported(service, image_id, request)
    assert (image.status, image.size, image.virtual_size) == (Status.QUEUED, None, None)
    assert nothing_left(service)
    failed = task(service, image_id)
    assert failed.status is TaskStatus.FAILURE
    return failed.message


def stored(service: Service, image: Image) -> bytes:
    assert image.status is Status.ACTIVE, task(service, image.id).message
    data = read(service, image.id)[1]
    assert image.size == len(data)
    assert image.os_hash_value == hashlib.sha256(data).hexdigest()
    return data


# --- no_op, injection


def test_no_op_changes_nothing(with_plugins: With) -> None:
    service = with_plugins(no_op)
    image_id = stage(service, DATA)
    inode = (service.datadir.parent / "staging" / image_id).stat().st_ino
    image = imported(service, image_id)
    assert stored(service, image) == DATA
    assert (service.datadir / image_id).stat().st_ino == inode  # still no copy
    assert os.listdir(service.datadir.parent / "staging") == []


def test_properties_are_injected(with_plugins: With) -> None:
    """Not what is the service's own, and not for callers with one of the roles."""
    injected = {"origin": "import", "note": "ours", "os_glance_import_task": "x", "OS_GLANCE": "x"}
    service = with_plugins(Injection(injected, ["Admin"]))
    for caller, expected in (
        (OWNER, {"origin": "import", "note": "ours"}),
        (replace(OWNER, roles=OWNER.roles | {"admin"}), {"note": "theirs"}),
    ):
        image_id = service.images.create(
            OWNER,
            {"disk_format": "raw", "container_format": "bare", "note": "theirs"},
        ).id
        service.staging.stage(OWNER, image_id, Paused(DATA), None, lambda _: None)
        service.imports.begin(caller, image_id, DIRECT)
        found = settled(service, image_id).properties
        assert {key: value for key, value in found.items() if "os_glance" not in key} == expected
        assert "os_glance_import_task" not in found


@pytest.mark.parametrize("name", ["status", "owner", "locations", "x" * 256])
def test_what_is_no_custom_property_is_not_injected(name: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=name):
        Injection({name: "x"}, [])


def test_what_failed_is_not_injected(with_plugins: With) -> None:
    service = with_plugins(Injection({"a": "b"}, []), decompression())
    image_id = stage(service, gzip.compress(DATA)[:-1])
    refused(service, image_id)
    assert "a" not in service.images.show(ADMIN, image_id).properties


# --- decompression


@pytest.mark.parametrize(
    "packed",
    [
        lambda: gzip.compress(DATA),
        lambda: gzip.compress(DATA[:5]) + gzip.compress(DATA[5:]),
        lambda: gzip.compress(DATA) + bytes(1000),
        lambda: zipped(DATA),
        lambda: zipped(DATA, how=zipfile.ZIP_STORED),
    ],
    ids=["gzip", "two members", "padding", "zip", "stored"],
)
def test_compressed_data_is_decompressed(with_plugins: With, packed: Callable[[], bytes]) -> None:
    service = with_plugins(decompression())
    assert stored(service, imported(service, stage(service, packed()))) == DATA


def test_fetched_data_is_decompressed(with_plugins: With) -> None:
    service = with_plugins(decompression())
    packed = gzip.compress(DATA)
    assert stored(service, download(service, sending(packed))) == DATA
    assert os.listdir(service.datadir.parent / "staging") == []


def test_other_data_stays_as_it_is(with_plugins: With) -> None:
    service = with_plugins(decompression())
    assert stored(service, imported(service, stage(service, DATA))) == DATA
    packed = gzip.compress(DATA)
    image = imported(service, stage(service, packed, container_format="compressed"))
    assert stored(service, image) == packed


def test_zeros_become_holes(with_plugins: With) -> None:
    service = with_plugins(decompression(ratio=1 << 20))
    data = DATA + bytes(8 * MIB) + DATA[:5] + bytes(3 * MIB)
    image = imported(service, stage(service, gzip.compress(data)))
    assert stored(service, image) == data
    assert (service.datadir / image.id).stat().st_blocks * 512 < len(data) - 8 * MIB


def test_decompressed_data_goes_to_all_stores(with_plugins: With) -> None:
    service = with_plugins(decompression())
    image_id = stage(service, gzip.compress(DATA))
    image = imported(service, image_id, ImportRequest("glance-direct", all_stores=True))
    assert [each.metadata["store"] for each in image.locations] == ["fast", "cheap"]
    assert (service.datadir.parent / "cheap" / image_id).read_bytes() == DATA


def test_a_copy_is_not_touched(with_plugins: With) -> None:
    """What is in a store is what the image's hash is of."""
    service = with_plugins(decompression())
    image_id, packed = service.record(), gzip.compress(DATA)
    service.content.upload(ADMIN, image_id, Paused(packed))
    imported(service, image_id, ImportRequest("copy-image", stores=("cheap",)))
    assert (service.datadir.parent / "cheap" / image_id).read_bytes() == packed


def lying(archive: bytes) -> bytes:
    """A zip file whose headers say that its member has one byte."""
    told = bytearray(archive)
    struct.pack_into("<I", told, 22, 1)
    struct.pack_into("<I", told, archive.rindex(b"PK\x01\x02") + 24, 1)
    return bytes(told)


BOMB = bytes(64 * MIB)


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: gzip.compress(BOMB),
        lambda: zipped(BOMB),
        lambda: gzip.compress(b"x") + gzip.compress(BOMB),
    ],
    ids=["gzip", "zip", "second member"],
)
def test_ossa_2013_029_zip_bombs_end_at_the_ratio(
    with_plugins: With, bomb: Callable[[], bytes]
) -> None:
    service = with_plugins(decompression())
    assert "expansion_ratio" in refused(service, stage(service, bomb()))


@pytest.mark.parametrize("pack", [gzip.compress, zipped])
def test_zip_bombs_end_at_image_size_cap(
    with_plugins: With, pack: Callable[[bytes], bytes]
) -> None:
    service = with_plugins(decompression(cap=8 * MIB, ratio=1 << 20))
    assert "image_size_cap" in refused(service, stage(service, pack(BOMB)))


def test_a_zip_file_that_lies_about_its_size_is_refused(with_plugins: With) -> None:
    service = with_plugins(decompression(ratio=1 << 20))
    assert "cannot be decompressed" in refused(service, stage(service, lying(zipped(BOMB))))


def encrypted(archive: bytes) -> bytes:
    told = bytearray(archive)
    for offset in (6, archive.rindex(b"PK\x01\x02") + 8):
        told[offset] |= 1
    return bytes(told)


def long_directory() -> bytes:
    """A zip file whose directory is longer than it may be in memory."""
    archive = zipped(b"x")
    start = archive.rindex(b"PK\x01\x02")
    end = archive.rindex(b"PK\x05\x06")
    entry = archive[start:end]
    directory = entry * (2 * MIB // len(entry))
    told = bytearray(archive[end:])
    struct.pack_into("<HHI", told, 8, 1, 1, len(directory))
    return archive[:start] + directory + bytes(told)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lambda: gzip.compress(DATA)[:-9], "ends early"),
        (lambda: gzip.compress(DATA)[:-8] + bytes(8), "cannot be decompressed"),
        (lambda: gzip.compress(DATA) + b"x" * 100, "cannot be decompressed"),
        (lambda: gzip.compress(b"") * 70_000, "too many members"),
        (lambda: b"\x1f\x8b\x08", "cannot be decompressed"),
        (lambda: zipped(DATA)[:-30], "cannot be decompressed"),
        (lambda: zipped(b"1", b"2"), "exactly one member"),
        (lambda: zipped(DATA, how=zipfile.ZIP_BZIP2), "another way"),
        (lambda: zipped(DATA, how=zipfile.ZIP_LZMA), "another way"),
        (lambda: encrypted(zipped(DATA)), "encrypted"),
        (long_directory, "directory is too long"),
        (lambda: b"\x20\x00-lh5-" + bytes(100), "lha is not supported"),
    ],
)
def test_what_cannot_be_decompressed_is_refused(
    with_plugins: With, data: Callable[[], bytes], why: str
) -> None:
    service = with_plugins(decompression())
    assert why in refused(service, stage(service, data()))


def test_what_comes_out_is_inspected(with_plugins: With) -> None:
    service = with_plugins(decompression(ratio=1 << 20))
    evil = gzip.compress(qcow2(backing_offset=512))
    assert "backing" in refused(service, stage(service, evil, disk_format="qcow2"))


# --- conversion


@pytest.mark.parametrize(
    ("disk_format", "qemu_format", "options"),
    [
        ("qcow2", "qcow2", ()),
        ("vmdk", "vmdk", ()),
        ("vmdk", "vmdk", ("subformat=streamOptimized",)),
        ("vhd", "vpc", ("force_size",)),
        ("vhdx", "vhdx", ()),
        ("vdi", "vdi", ()),
    ],
)
def test_disks_become_raw(
    with_plugins: With, tmp_path: Path, disk_format: str, qemu_format: str, options: tuple[str, ...]
) -> None:
    service = with_plugins(conversion())
    data = qemu_image(tmp_path / "disk", qemu_format, *options).read_bytes()
    image = imported(service, stage(service, data, disk_format=disk_format))
    assert stored(service, image) == DISK
    assert (image.disk_format, image.container_format) == ("raw", "bare")
    assert image.virtual_size == VIRTUAL_SIZE
    # Its holes are holes, and it became the store's without a copy.
    assert (service.datadir / image.id).stat().st_blocks * 512 < VIRTUAL_SIZE


@pytest.mark.parametrize("to", ["qcow2", "vmdk"])
def test_disks_become_what_is_wanted(with_plugins: With, to: str, tmp_path: Path) -> None:
    service = with_plugins(conversion(to))
    image = imported(service, stage(service, DISK))
    data = stored(service, image)
    assert (image.disk_format, image.virtual_size) == (to, VIRTUAL_SIZE)
    back, file = tmp_path / "back", tmp_path / "stored"
    file.write_bytes(data)
    qemu_img("convert", "-f", to, "-O", "raw", file, back)
    assert back.read_bytes() == DISK


def test_a_disk_is_decompressed_and_converted(with_plugins: With, tmp_path: Path) -> None:
    service = with_plugins(decompression(ratio=1 << 20), conversion())
    packed = gzip.compress(qemu_image(tmp_path / "disk", "qcow2").read_bytes())
    image = download(service, sending(packed), disk_format="qcow2")
    assert stored(service, image) == DISK
    assert os.listdir(service.datadir.parent / "staging") == []


def test_what_is_no_disk_or_as_wanted_stays(with_plugins: With, tmp_path: Path) -> None:
    service = with_plugins(conversion())
    data = iso_image(tmp_path / "disc").read_bytes()
    image = imported(service, stage(service, data, disk_format="iso"))
    assert (stored(service, image), image.disk_format) == (data, "iso")
    image = imported(service, stage(service, DATA, disk_format="aki", container_format="aki"))
    assert (stored(service, image), image.disk_format) == (DATA, "aki")
    image_id = stage(service, DATA)
    inode = (service.datadir.parent / "staging" / image_id).stat().st_ino
    assert stored(service, imported(service, image_id)) == DATA
    assert (service.datadir / image_id).stat().st_ino == inode


def test_an_unknown_format_is_not_converted(with_plugins: With) -> None:
    service = with_plugins(conversion())
    assert "ploop" in refused(service, stage(service, DATA, disk_format="ploop"))


def external_data(tmp_path: Path) -> bytes:
    """A qcow2 whose data is a file of the host, made by qemu-img itself."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"the host's" * 1000)
    disk = tmp_path / "disk"
    options = f"data_file={secret},data_file_raw=on"
    qemu_img("create", "-f", "qcow2", "-o", options, disk, str(VIRTUAL_SIZE))
    return disk.read_bytes()


def test_cve_2024_32498_external_data_is_refused(with_plugins: With, tmp_path: Path) -> None:
    service = with_plugins(conversion())
    image_id = stage(service, external_data(tmp_path), disk_format="qcow2")
    assert "safety check" in refused(service, image_id)


def test_cve_2024_32498_inside_a_disk_it_is_refused_after_conversion(
    with_plugins: With, tmp_path: Path
) -> None:
    """What is in the disk would be taken for a disk by who guesses its format."""
    inner = tmp_path / "inner"
    inner.write_bytes(external_data(tmp_path).ljust(VIRTUAL_SIZE, b"\0"))
    outer = tmp_path / "outer"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", inner, outer)
    service = with_plugins(conversion())
    assert refused(service, stage(service, outer.read_bytes(), disk_format="qcow2"))


def test_ossa_2024_003_data_is_what_it_is_said_to_be(with_plugins: With, tmp_path: Path) -> None:
    """Raw that is a disk of another format is not handed to qemu-img."""
    service = with_plugins(conversion("qcow2"))
    data = qemu_image(tmp_path / "disk", "vmdk").read_bytes()
    assert "vmdk" in refused(service, stage(service, data, disk_format="raw"))
    assert "vmdk" in refused(service, stage(service, data, disk_format="qcow2"))


@pytest.mark.parametrize(
    ("disk_format", "why"), [("qcow2", "backing"), ("vmdk", "refers to another file")]
)
def test_ossa_2015_014_a_backing_file_is_not_converted(
    with_plugins: With, tmp_path: Path, disk_format: str, why: str
) -> None:
    backing, disk = qemu_image(tmp_path / "backing", disk_format), tmp_path / "disk"
    qemu_img("create", "-f", disk_format, "-b", backing, "-F", disk_format, disk)
    service = with_plugins(conversion())
    image_id = stage(service, disk.read_bytes(), disk_format=disk_format)
    assert why in refused(service, image_id)


@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentFlat", "vmfs"])
def test_ossa_2023_002_vmdk_sub_types_are_refused(with_plugins: With, kind: str) -> None:
    service = with_plugins(conversion())
    data = vmdk(descriptor(kind).replace('SPARSE "disk.vmdk"', 'FLAT "/etc/passwd" 0'))
    assert refused(service, stage(service, data, disk_format="vmdk"))


def test_ossa_2013_029_a_huge_disk_is_refused(with_plugins: With, tmp_path: Path) -> None:
    """Before anything is made of it."""
    service = with_plugins(conversion(cap=1 << 30))
    data = qemu_image(tmp_path / "disk", "qcow2", size=(1 << 30) + 512).read_bytes()
    assert "image_size_cap" in refused(service, stage(service, data, disk_format="qcow2"))


def test_a_disk_that_fills_up_is_bounded_by_the_ratio(with_plugins: With, tmp_path: Path) -> None:
    """Compressed clusters stand for much more than they take."""
    raw, disk = tmp_path / "raw", tmp_path / "disk"
    raw.write_bytes(b"x" * (96 * MIB))
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, disk)
    service = with_plugins(conversion(ratio=1))
    image_id = stage(service, disk.read_bytes(), disk_format="qcow2")
    assert "expansion_ratio" in refused(service, image_id)


def broken() -> bytes:
    """A qcow2 whose first level is said to be as long as there can be, and is not there."""
    header = bytearray(qcow2())
    struct.pack_into(">IQ", header, 36, 1 << 22, 65536)
    return bytes(header)


def test_ossa_2016_012_qemu_img_has_limits(
    with_plugins: With, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of memory, time and size are what it runs under, with a clean environment."""
    program = tmp_path / "bin" / "qemu-img"
    program.parent.mkdir()
    said = tmp_path / "said"
    program.write_text(
        f'#!/bin/sh\ncat /proc/self/limits >{said}\necho "$@" >>{said}\nenv >>{said}\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("OS_PASSWORD", "hush")
    service = with_plugins(conversion())
    image_id = stage(service, qcow2(), disk_format="qcow2")
    assert "qemu-img failed" in refused(service, image_id)
    lines = [line for line in said.read_text().splitlines() if line.startswith("Max ")]
    limits = {line[:26].strip(): line[26:].split()[0] for line in lines}
    assert limits["Max address space"] == str(1 << 30)
    assert limits["Max cpu time"] == "2"
    assert limits["Max file size"] == str(64 << 10)
    assert limits["Max core file size"] == "0"
    text = said.read_text()
    assert "-f qcow2 /proc/self/fd/" in text  # OSSA-2026-002: it never guesses
    assert "hush" not in text


def test_qemu_img_breaks_on_nothing_of_ours(with_plugins: With) -> None:
    """What it cannot read ends the import, without its words."""
    service = with_plugins(conversion())
    message = refused(service, stage(service, broken(), disk_format="qcow2"))
    assert "/proc" not in message


def test_conversion_needs_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(errors.ConfigurationError, match="qemu-img"):
        Conversion("raw", 1 << 30, 200, (), ())


# --- what ends an import in the middle of a plugin


def test_ossa_2015_004_what_plugins_made_goes_with_the_image(with_plugins: With) -> None:
    def deleting(staged: Staged, _: Work) -> Staged:
        service.images.delete(ADMIN, staged.image.id)
        return staged

    service = with_plugins(decompression(), deleting)
    image_id = stage(service, gzip.compress(DATA))
    with pytest.raises(errors.ImageNotFound):
        imported(service, image_id)
    assert nothing_left(service)


def test_a_stop_ends_qemu_img(
    with_plugins: With, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and the import is undone."""
    pid = tmp_path / "pid"
    program = tmp_path / "bin" / "qemu-img"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $$ >{pid}.new\nmv {pid}.new {pid}\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    service = with_plugins(conversion())
    image_id = stage(service, qcow2(), disk_format="qcow2")
    service.imports.begin(ADMIN, image_id, DIRECT)
    deadline = time.monotonic() + GUARD
    while not pid.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    service.jobs.stop()
    assert settled(service, image_id).status is Status.QUEUED
    assert nothing_left(service)
    assert task(service, image_id).message == errors.ServiceStops.text
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


# --- images of other regions


def elsewhere(data: bytes, **values: object) -> Region:
    """A region whose image has this data."""
    digest = hashlib.sha512(data).hexdigest()
    known = {"size": len(data), "os_hash_value": digest, "checksum": None, "disk_format": "raw"}
    return Region({**RECORD, **known, **values}, data)


def own(image: Image) -> dict[str, str]:
    """The image's properties but for those of imports."""
    return {key: value for key, value in image.properties.items() if "os_glance" not in key}


def test_another_regions_image_is_decompressed(with_plugins: With) -> None:
    """However often its connection breaks; what is taken with it is as without plugins."""
    east = elsewhere(gzip.compress(DATA))
    east.cut = [70_000, 1_000_000]
    service = with_plugins(decompression())
    image = downloaded(service, east, note="ours")
    assert stored(service, image) == DATA
    assert own(image) == {"note": "ours", "hw_disk_bus": "virtio", "os_type": "linux"}
    assert os.listdir(service.datadir.parent / "staging") == []


def test_another_regions_image_is_converted_from_its_format(
    with_plugins: With, tmp_path: Path
) -> None:
    """Which is not the one that the image had here."""
    file = qemu_image(tmp_path / "disk", "qcow2")
    service = with_plugins(conversion("raw"))
    image = downloaded(service, elsewhere(file.read_bytes(), disk_format="qcow2"))
    assert stored(service, image) == DISK
    assert image.disk_format == "raw"


def test_another_regions_image_goes_to_all_stores_with_what_is_injected(
    with_plugins: With,
) -> None:
    service = with_plugins(Injection({"origin": "elsewhere", "os_type": "mine"}, []), no_op)
    image_id = service.record()
    with region(elsewhere(DATA)) as caller:
        service.imports.begin(caller, image_id, replace(REQUEST, all_stores=True))
        image = settled(service, image_id)
    assert stored(service, image) == DATA
    assert own(image) == {"hw_disk_bus": "virtio", "os_type": "mine", "origin": "elsewhere"}
    assert [each.metadata["store"] for each in image.locations] == ["fast", "cheap"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: elsewhere(gzip.compress(DATA), os_hash_value="0" * 128),
        lambda: elsewhere(gzip.compress(DATA)[:-1]),
        lambda: elsewhere(gzip.compress(bytes(100 * MIB))),
    ],
    ids=["another hash", "damaged", "expands"],
)
def test_another_regions_image_that_is_not_right_leaves_nothing(
    with_plugins: With, answer: Callable[[], Region]
) -> None:
    service = with_plugins(decompression())
    image = downloaded(service, answer())
    assert (image.status, image.size, own(image)) == (Status.QUEUED, None, {})
    assert nothing_left(service)
    assert task(service, image.id).status is TaskStatus.FAILURE
