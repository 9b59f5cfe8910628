"""Disk images for tests: good ones by the tools that make them, bad ones by hand."""

import struct
import subprocess
from pathlib import Path
from typing import TypedDict

from tests.needs import require_command

SECTOR = 512
VIRTUAL_SIZE = 4 << 20


class Rules(TypedDict):
    """What the inspection of a service can be told."""

    require_match: bool
    vmdk_allowed_types: list[str]
    gpt_safety_nonfatal: list[str]


RULES = Rules(
    require_match=True,
    vmdk_allowed_types=["streamOptimized", "monolithicSparse"],
    gpt_safety_nonfatal=[],
)
"""As a service has them that was told nothing."""


def qemu_image(path: Path, disk_format: str, *options: str, size: int = VIRTUAL_SIZE) -> Path:
    """An image of ``size`` bytes in one of qemu's formats, some of them written."""
    qemu_img = require_command("qemu-img")
    raw = path.with_suffix(".source")
    with raw.open("wb") as file:
        file.write(bytes(range(256)) * 1024)
        file.truncate(size)
    command = [qemu_img, "convert", "-f", "raw", "-O", disk_format]
    for option in options:
        command += ["-o", option]
    subprocess.run([*command, raw, path], check=True, capture_output=True)
    raw.unlink()
    return path


def luks_image(path: Path, version: int) -> Path:
    """A LUKS volume of 16 MiB."""
    cryptsetup = require_command("cryptsetup")
    with path.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(
        [cryptsetup, "-q", "luksFormat", "--type", f"luks{version}", "--pbkdf", "pbkdf2",
         "--pbkdf-force-iterations", "1000", path, "-"],
        input=b"secret", check=True, capture_output=True,
    )  # fmt: skip
    return path


def iso_image(path: Path) -> Path:
    genisoimage = require_command("genisoimage")
    content = path.with_suffix(".d")
    content.mkdir()
    (content / "hello").write_bytes(b"hello" * 1000)
    subprocess.run([genisoimage, "-o", path, content], check=True, capture_output=True)
    return path


def partitioned_image(path: Path) -> Path:
    """A disk with a GUID partition table and one partition."""
    sgdisk = require_command("sgdisk")
    with path.open("wb") as file:
        file.truncate(VIRTUAL_SIZE)
    subprocess.run([sgdisk, "-n", "1:0:0", path], check=True, capture_output=True)
    return path


def qcow2(
    *, version: int = 3, backing_offset: int = 0, incompatible: int = 0, size: int = VIRTUAL_SIZE
) -> bytes:
    header = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing_offset, 0, 16, size)
    header = header.ljust(72, b"\0") + struct.pack(">Q", incompatible)
    return header.ljust(65536, b"\0")


GOOD_DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=1234abcd
parentCID=ffffffff
createType="{create_type}"

# Extent description
RW 8192 SPARSE "disk.vmdk"

# The Disk Data Base
ddb.adapterType = "ide"
"""

GD_AT_END = (1 << 64) - 1


def descriptor(create_type: str = "monolithicSparse") -> str:
    return GOOD_DESCRIPTOR.format(create_type=create_type)


def _vmdk_header(
    *, version: int = 1, sectors: int = 8192, descriptor_sectors: int = 20, gd_offset: int = 21
) -> bytes:
    header = struct.pack(
        "<4sIIQQQQIQQ", b"KDMV", version, 3, sectors, 128, 1, descriptor_sectors, 512, 0, gd_offset
    )
    return header.ljust(SECTOR, b"\0")


def vmdk(text: str, *, version: int = 1, sectors: int = 8192) -> bytes:
    """A hosted sparse extent with an embedded descriptor."""
    header = _vmdk_header(version=version, sectors=sectors)
    return header + text.encode("latin-1").ljust(20 * SECTOR, b"\0") + bytes(64 * SECTOR)


def stream_vmdk(
    *, padding: int = 0, footer_version: int = 1, footer_gd: int = 99, end_marker: int = 0
) -> bytes:
    """A stream-optimised extent, its footer ``padding`` bytes behind its descriptor."""
    text = descriptor("streamOptimized").encode().ljust(20 * SECTOR, b"\0")
    marker = struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0")
    footer = _vmdk_header(version=footer_version, gd_offset=footer_gd)
    end = struct.pack("<QII", 0, 0, end_marker).ljust(SECTOR, b"\0")
    return _vmdk_header(gd_offset=GD_AT_END) + text + bytes(padding) + marker + footer + end


def partition(
    *, boot: int = 0x80, chs: tuple[int, int, int] = (0, 2, 0), kind: int = 0x83, start: int = 1
) -> bytes:
    """One entry of a master boot record."""
    return struct.pack("<B3BB3BII", boot, *chs, kind, 0, 0, 0, start, 2048)


def mbr(*partitions: bytes, code: bytes = b"") -> bytes:
    entries = b"".join(partitions).ljust(64, b"\0")
    return code.ljust(446, b"\0") + entries + b"\x55\xaa"


def iso(boot_sector: bytes = b"", *, blocks: int = 20, block_size: int = 2048) -> bytes:
    """The system area and primary volume descriptor of an ISO 9660 image, then empty blocks."""
    volume = bytearray(2048)
    volume[:7] = b"\x01CD001\x01"
    volume[80:88] = struct.pack("<I", blocks) + struct.pack(">I", blocks)
    volume[128:132] = struct.pack("<H", block_size) + struct.pack(">H", block_size)
    return boot_sector.ljust(32768, b"\0") + bytes(volume) + bytes(3 * 2048)


def fixed_vhd() -> bytes:
    """A VHD of fixed size: the disk, then a footer."""
    return bytes(8192) + b"conectix".ljust(SECTOR, b"\0")
