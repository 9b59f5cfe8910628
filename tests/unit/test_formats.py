"""Format inspection: the decision table over generated images."""

import io
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headrace import errors
from headrace.service.formats import inspect
from tests import image_files as images
from tests.image_files import RULES, VIRTUAL_SIZE

BARE_FORMATS = ["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ploop", "ami", "aki", "ari"]


@pytest.fixture
def landed(tmp_path: Path) -> Iterator["Landed"]:
    with Landed(tmp_path / "landed") as file:
        yield file


class Landed:
    """A file that data can be put into, to be inspected."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "Landed":
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)

    def inspect(
        self, data: bytes | Path, disk_format: str, container: str = "bare", **rules: object
    ) -> int | None:
        content = data.read_bytes() if isinstance(data, Path) else data
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, content, 0)
        told: Any = {**RULES, **rules}
        return inspect(self.fd, len(content), container, disk_format, **told)


@pytest.mark.parametrize(
    ("qemu_format", "options", "disk_format"),
    [
        ("qcow2", (), "qcow2"),
        ("qcow2", ("compat=0.10",), "qcow2"),
        ("qcow2", ("compression_type=zstd",), "qcow2"),
        ("vmdk", ("subformat=monolithicSparse",), "vmdk"),
        ("vmdk", ("subformat=streamOptimized",), "vmdk"),
        ("vdi", (), "vdi"),
        ("vpc", ("force_size",), "vhd"),
        ("vhdx", (), "vhdx"),
    ],
)
def test_images_made_by_qemu_are_accepted_with_their_virtual_size(
    landed: Landed, tmp_path: Path, qemu_format: str, options: tuple[str, ...], disk_format: str
) -> None:
    image = images.qemu_image(tmp_path / "image", qemu_format, *options)
    assert landed.inspect(image, disk_format) == VIRTUAL_SIZE
    assert landed.inspect(image, "raw") == image.stat().st_size
    for other in set(BARE_FORMATS) - {disk_format, "raw"}:
        with pytest.raises(errors.FormatMismatch, match=f"is {disk_format}, not {other}"):
            landed.inspect(image, other)


def test_luks_1_is_accepted_and_luks_2_refused_under_either_name(
    landed: Landed, tmp_path: Path
) -> None:
    first = images.luks_image(tmp_path / "luks1", 1)
    payload = struct.unpack_from(">I", first.read_bytes(), 104)[0] * 512
    assert landed.inspect(first, "luks") == first.stat().st_size - payload
    assert landed.inspect(first, "raw") == first.stat().st_size
    second = images.luks_image(tmp_path / "luks2", 2)
    for disk_format in ("luks", "raw"):
        with pytest.raises(errors.UnsafeImage, match="version 2"):
            landed.inspect(second, disk_format)


def test_an_iso_is_accepted_with_the_size_of_its_volume(landed: Landed, tmp_path: Path) -> None:
    image = images.iso_image(tmp_path / "image")
    size = landed.inspect(image, "iso")
    assert size == struct.unpack_from("<I", image.read_bytes(), 32768 + 80)[0] * 2048
    assert landed.inspect(images.iso(), "iso") == 20 * 2048


def test_a_partitioned_disk_is_gpt_and_a_raw_disk_too(landed: Landed, tmp_path: Path) -> None:
    image = images.partitioned_image(tmp_path / "image")
    assert landed.inspect(image, "gpt") == image.stat().st_size
    assert landed.inspect(image, "raw") == image.stat().st_size
    with pytest.raises(errors.FormatMismatch, match="is gpt, not qcow2"):
        landed.inspect(image, "qcow2")


@pytest.mark.parametrize("content", [b"", b"\0", b"Q", bytes(100_000), b"hello\n" * 1000])
@pytest.mark.parametrize("disk_format", BARE_FORMATS)
def test_data_without_any_signature_is_raw(
    landed: Landed, content: bytes, disk_format: str
) -> None:
    if disk_format == "raw":
        assert landed.inspect(content, disk_format) == len(content)
    elif disk_format in ("ami", "aki", "ari", "ploop"):
        assert landed.inspect(content, disk_format) is None
    else:
        with pytest.raises(errors.FormatMismatch, match=f"is raw, not {disk_format}"):
            landed.inspect(content, disk_format)


GOOD_MBR = images.mbr(images.partition())
PROTECTIVE = images.partition(kind=0xEE)
ENTRY_OF_FAT = bytearray(images.mbr(images.partition(boot=0x12)))
ENTRY_OF_FAT[0x10], ENTRY_OF_FAT[0x15] = 2, 0xF8
BIG_FEATURE_BITS = [4, 7, 8, 31, 63]

UNSAFE = {
    "qcow2 with a backing file": ("qcow2", images.qcow2(backing_offset=512)),
    "qcow2 2 with a backing file": ("qcow2", images.qcow2(version=2, backing_offset=512)),
    "qcow2 with a data file": ("qcow2", images.qcow2(incompatible=1 << 2)),
    **{
        f"qcow2 with feature bit {bit}": ("qcow2", images.qcow2(incompatible=1 << bit))
        for bit in BIG_FEATURE_BITS
    },
    "qcow2 version 1": ("qcow2", images.qcow2(version=1)),
    "qcow2 version 4": ("qcow2", images.qcow2(version=4)),
    "vmdk monolithicFlat": ("vmdk", images.vmdk(images.descriptor("monolithicFlat"))),
    "vmdk vmfs": ("vmdk", images.vmdk(images.descriptor("vmfs"))),
    "vmdk without a type": ("vmdk", images.vmdk('RW 8192 SPARSE "disk.vmdk"\n')),
    "vmdk without a descriptor": ("vmdk", images.vmdk("")),
    "vmdk with a path in an extent": (
        "vmdk",
        images.vmdk(images.descriptor().replace("disk.vmdk", "/etc/passwd")),
    ),
    "vmdk without an extent": (
        "vmdk",
        images.vmdk(images.descriptor().replace('RW 8192 SPARSE "disk.vmdk"', "")),
    ),
    "vmdk with an unknown line": ("vmdk", images.vmdk(images.descriptor() + "LOOK elsewhere\n")),
    "vmdk with a descriptor not ASCII": ("vmdk", images.vmdk(images.descriptor() + "\xe9\n")),
    "vmdk cut short": ("vmdk", images.vmdk(images.descriptor())[:2000]),
    "vmdk of an unknown version": ("vmdk", images.vmdk(images.descriptor(), version=9)),
    "vmdk with another version in its footer": ("vmdk", images.stream_vmdk(footer_version=2)),
    "vmdk with a footer after its footer": ("vmdk", images.stream_vmdk(footer_gd=images.GD_AT_END)),
    "vmdk with a wrong end marker": ("vmdk", images.stream_vmdk(end_marker=2)),
    "vmdk with a far footer that differs": (
        "vmdk",
        images.stream_vmdk(padding=9 << 20, footer_version=2),
    ),
    "vmdk descriptor alone, flat": (
        "vmdk",
        images.descriptor("monolithicFlat").ljust(600, "\n").encode(),
    ),
    "vmdk descriptor alone, not ASCII": (
        "vmdk",
        images.descriptor("monolithicFlat").ljust(600, "\n").encode() + b"\xff",
    ),
    "qed": ("qed", b"QED\0".ljust(4096, b"\0")),
    "junk partitions": ("gpt", images.mbr(*[b"\x5a" * 16] * 4)),
    "no partitions": ("gpt", images.mbr()),
    "protective entry not alone": ("gpt", images.mbr(PROTECTIVE, images.partition())),
    "protective entry not first": ("gpt", images.mbr(bytes(16), PROTECTIVE)),
    "protective entry starts late": ("gpt", images.mbr(images.partition(kind=0xEE, start=2))),
    "protective entry at a wrong CHS": (
        "gpt",
        images.mbr(images.partition(kind=0xEE, chs=(0, 1, 0))),
    ),
    "vhdx without its region table": ("vhdx", b"vhdxfile".ljust(1 << 20, b"\0")),
    "vhdx cut short": ("vhdx", b"vhdxfile"),
    "vhd cut short": ("vhd", b"conectix"),
    "luks cut short": ("luks", b"LUKS\xba\xbe\x00\x01"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_data_is_refused_under_its_own_name_and_as_raw(landed: Landed, name: str) -> None:
    detected, content = UNSAFE[name]
    for disk_format in (detected, "raw"):
        with pytest.raises(errors.UnsafeImage):
            landed.inspect(content, disk_format)
    with pytest.raises(errors.UnsafeImage):
        landed.inspect(content, detected, require_match=False)
    for disk_format in {"aki", "vdi"} - {detected}:
        with pytest.raises((errors.FormatMismatch, errors.UnsafeImage)):
            landed.inspect(content, disk_format)


SAFE = {
    "qcow2 2": ("qcow2", images.qcow2(version=2), VIRTUAL_SIZE),
    "qcow2 3": ("qcow2", images.qcow2(), VIRTUAL_SIZE),
    "qcow2 with every known feature": ("qcow2", images.qcow2(incompatible=0b1011), VIRTUAL_SIZE),
    "vmdk sparse": ("vmdk", images.vmdk(images.descriptor()), VIRTUAL_SIZE),
    "vmdk stream": ("vmdk", images.stream_vmdk(), VIRTUAL_SIZE),
    "vmdk with a far footer": ("vmdk", images.stream_vmdk(padding=9 << 20), VIRTUAL_SIZE),
    "mbr": ("gpt", GOOD_MBR, 512),
    "protective mbr": ("gpt", images.mbr(PROTECTIVE), 512),
    "iso": ("iso", images.iso(), 20 * 2048),
    "iso with a boot sector": ("iso", images.iso(GOOD_MBR), 20 * 2048),
    "iso with a junk boot sector": ("iso", images.iso(images.mbr()), 20 * 2048),
    "fat boot sector": ("raw", bytes(ENTRY_OF_FAT), 512),
    "fixed-size vhd": ("raw", images.fixed_vhd(), 8704),
    "text": ("raw", "Grüße aus dem Oberwasserkanal\n".encode() * 100, 3200),
}


@pytest.mark.parametrize("name", SAFE)
def test_safe_data_is_accepted_with_its_virtual_size(landed: Landed, name: str) -> None:
    disk_format, content, virtual_size = SAFE[name]
    assert landed.inspect(content, disk_format) == virtual_size
    assert landed.inspect(content, "raw") == len(content)


def test_a_known_format_declared_raw_is_warned_of(
    landed: Landed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    landed.inspect(bytes(512), "raw")
    assert not caplog.records
    landed.inspect(images.qcow2(), "raw")
    assert "an image declared as raw holds qcow2" in caplog.text


@pytest.mark.parametrize("disk_format", ["qcow2", "iso", "raw"])
def test_several_formats_at_once_are_refused(landed: Landed, disk_format: str) -> None:
    with pytest.raises(errors.UnsafeImage, match="iso and qcow2 at once"):
        landed.inspect(images.iso(images.qcow2()[:512]), disk_format, require_match=False)


def test_only_bare_images_are_inspected(landed: Landed) -> None:
    assert landed.inspect(images.qcow2(backing_offset=1), "qcow2", container="ovf") is None


def test_without_require_match_a_mismatch_is_accepted_without_a_size(landed: Landed) -> None:
    assert landed.inspect(images.qcow2(), "vmdk", require_match=False) is None
    assert landed.inspect(bytes(4096), "qcow2", require_match=False) is None


def test_the_allowed_vmdk_types_can_be_narrowed(landed: Landed) -> None:
    sparse = images.vmdk(images.descriptor())
    assert landed.inspect(sparse, "vmdk", vmdk_allowed_types=["MonolithicSparse"]) == VIRTUAL_SIZE
    for allowed in ([], ["streamOptimized"]):
        with pytest.raises(errors.UnsafeImage, match="monolithicsparse is not allowed"):
            landed.inspect(sparse, "vmdk", vmdk_allowed_types=allowed)
    flat = images.vmdk(images.descriptor("monolithicFlat"))
    with pytest.raises(errors.UnsafeImage):
        landed.inspect(flat, "vmdk", vmdk_allowed_types=["monolithicFlat"])


def test_named_partition_checks_may_fail_but_no_others(landed: Landed) -> None:
    junk = images.mbr()
    assert landed.inspect(junk, "raw", gpt_safety_nonfatal=["mbr"]) == 512
    with pytest.raises(errors.UnsafeImage):
        landed.inspect(junk, "raw", gpt_safety_nonfatal=["other"])
    bad = images.qcow2(backing_offset=1)
    with pytest.raises(errors.UnsafeImage):
        landed.inspect(bad, "raw", gpt_safety_nonfatal=["backing_file"])


@pytest.mark.parametrize(
    ("disk_format", "content"),
    [
        ("qcow2", images.qcow2(size=1 << 63)),
        ("vmdk", images.vmdk(images.descriptor(), sectors=1 << 62)),
    ],
)
def test_a_size_that_no_database_holds_is_refused(
    landed: Landed, disk_format: str, content: bytes
) -> None:
    with pytest.raises(errors.UnsafeImage, match="impossible size"):
        landed.inspect(content, disk_format)


def test_a_size_of_zero_is_unknown(landed: Landed) -> None:
    assert landed.inspect(images.qcow2(size=0), "qcow2") is None


@pytest.mark.parametrize("disk_format", ["qcow2", "raw"])
def test_a_huge_sparse_file_is_inspected_where_it_matters(tmp_path: Path, disk_format: str) -> None:
    """Read through, 8 TiB would take hours: the time limit of the suite is the assertion."""
    size = 8 << 40
    with Landed(tmp_path / "landed") as file:
        os.pwrite(file.fd, images.qcow2(), 0)
        os.ftruncate(file.fd, size)
        expected = VIRTUAL_SIZE if disk_format == "qcow2" else size
        assert inspect(file.fd, size, "bare", disk_format, **RULES) == expected


def test_a_vhdx_whose_metadata_lie_far_behind_is_followed(tmp_path: Path) -> None:
    """The regions of a VHDX may lie anywhere; here its metadata are moved 1 TiB into the file."""
    image = images.qemu_image(tmp_path / "image", "vhdx").read_bytes()
    metadata = struct.pack(
        "<IHH8B", 0x8B7CA206, 0x4790, 0x4B9A, *b"\xb8\xfe\x57\x5f\x05\x0f\x88\x6e"
    )
    entry = image.index(metadata, 192 << 10) + 16
    (near,) = struct.unpack_from("<Q", image, entry)
    far = 1 << 40
    with Landed(tmp_path / "landed") as file:
        os.pwrite(file.fd, image[:entry] + struct.pack("<Q", far) + image[entry + 8 : near], 0)
        os.pwrite(file.fd, image[near : near + (1 << 20)], far)
        assert inspect(file.fd, far + (1 << 20), "bare", "vhdx", **RULES) == VIRTUAL_SIZE


@pytest.mark.parametrize("name", [*SAFE, *UNSAFE])
def test_reading_regions_finds_what_reading_the_whole_stream_finds(
    landed: Landed, name: str
) -> None:
    """The peer's way, through every byte, must not see a format that ours misses."""
    from oslo_utils.imageutils.format_inspector import InspectWrapper

    _, content, *_ = SAFE.get(name) or UNSAFE[name]
    wrapper = InspectWrapper(io.BytesIO(content))
    while wrapper.read(1 << 20):
        pass
    wrapper.close()
    try:
        streamed = {str(inspector) for inspector in wrapper.formats or ()} - {"raw", "gpt"}
    except AttributeError:
        streamed = {"vmdk"}  # its inspector breaks over a descriptor that is not ASCII
    for disk_format in {"qcow2", "vmdk", "vhd", "vhdx", "qed", "luks", "iso"} - streamed:
        with pytest.raises((errors.FormatMismatch, errors.UnsafeImage)):
            landed.inspect(content, disk_format)
    for disk_format in streamed:
        try:
            landed.inspect(content, disk_format)
        except errors.FormatMismatch:
            pytest.fail(f"the {disk_format} data of {name!r} are not recognised")
        except errors.UnsafeImage:
            assert name in UNSAFE


def test_the_position_of_the_descriptor_is_left_alone(landed: Landed) -> None:
    landed.inspect(images.qcow2(), "qcow2")
    assert os.lseek(landed.fd, 0, os.SEEK_CUR) == 0


SIGNATURES = [
    b"QFI\xfb", b"QED\0", b"conectix", b"vhdxfile", b"KDMV\1\0\0\0", b"LUKS\xba\xbe", b"# Disk",
    bytes(64) + struct.pack("<I", 0xBEDA107F), bytes(510) + b"\x55\xaa", bytes(32769) + b"CD001",
    images.vmdk(images.descriptor())[:700], images.stream_vmdk(), images.qcow2()[:104],
    images.descriptor().encode().ljust(600), b"vhdxfile".ljust(192 << 10, b"\0") + b"regi",
]  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.sampled_from([b"", *SIGNATURES]),
    body=st.binary(max_size=2048),
    padding=st.sampled_from([0, 1, 512, 70_000]),
    disk_format=st.sampled_from([*BARE_FORMATS, "gpt", "luks", "qed"]),
    require_match=st.booleans(),
)
@example(b"", b"", 0, "raw", True)
def test_arbitrary_bytes_are_accepted_or_refused_and_nothing_else(
    landed: Landed,
    prefix: bytes,
    body: bytes,
    padding: int,
    disk_format: str,
    require_match: bool,
) -> None:
    content = prefix + body + bytes(padding)
    try:
        size = landed.inspect(content, disk_format, require_match=require_match)
    except (errors.FormatMismatch, errors.UnsafeImage):
        return
    assert size is None or 0 <= size < 1 << 63
    if disk_format == "raw":
        assert size == len(content)
