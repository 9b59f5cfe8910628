"""A real bootable image: from a Debian package where there is apt, else built here."""

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Small packages with an image that boots a PC from its first sector: package, file name.
PACKAGES = [
    ("memtest86+", "memtest86+x64.iso"),
    ("ipxe", "ipxe.iso"),
    ("grub-rescue-pc", "grub-rescue-cdrom.iso"),
]
APT_GUARD = 45  # seconds for each apt-get

SECTOR = 512
SIGNATURE = b"\x55\xaa"


@dataclass(frozen=True)
class BootImage:
    """An image file and where it came from."""

    path: Path
    origin: str


def boots(path: Path) -> bool:
    """Whether a PC's firmware would start the file's first sector."""
    with path.open("rb") as image:
        return image.read(SECTOR)[-2:] == SIGNATURE


def boot_image(directory: Path) -> BootImage:
    """A bootable image below ``directory``; nothing is installed."""
    try:
        return _from_debian(directory)
    except (OSError, subprocess.SubprocessError, LookupError) as error:
        reason = str(error) or type(error).__name__
    path = directory / "boot-sector.img"
    path.write_bytes(_built())
    return BootImage(path, f"built here, since no Debian package could be had ({reason})")


def _from_debian(directory: Path) -> BootImage:
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise LookupError(f"there is no {program}")
    apt = _private_apt(directory)
    _run([*apt, "update"], directory)
    for package, name in PACKAGES:
        try:
            _run([*apt, "download", package], directory)
        except subprocess.SubprocessError:
            continue  # not for this architecture or release
        archive = next(directory.glob(f"{package}_*.deb"))
        _run(["dpkg", "-x", str(archive), str(directory / package)], directory)
        for path in sorted((directory / package).rglob(name)):
            if boots(path):
                return BootImage(path, f"{name} of the Debian package {archive.name}")
    raise LookupError("apt has none of " + ", ".join(package for package, _ in PACKAGES))


def _private_apt(directory: Path) -> list[str]:
    """apt-get with lists and cache of its own: no root needed, the system's left alone."""
    state, cache = directory / "apt" / "state", directory / "apt" / "cache"
    (state / "lists" / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    options = [
        f"Dir::State={state}",
        "Dir::State::status=/var/lib/dpkg/status",
        f"Dir::Cache={cache}",
        "Acquire::Languages=none",
        "Acquire::Retries=1",
        "Acquire::http::Timeout=15",
        "APT::Sandbox::User=root",  # the user _apt could not enter the directory
    ]
    return ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]


def _run(words: list[str], directory: Path) -> None:
    subprocess.run(
        words, cwd=directory, check=True, capture_output=True, timeout=APT_GUARD, text=True
    )


def _built() -> bytes:
    """A disk of 1 MiB whose boot sector prints a line through the BIOS and halts."""
    code = bytes.fromhex(
        "31c0"  # xor ax, ax
        "8ed8"  # mov ds, ax
        "be157c"  # mov si, 0x7c15: the text behind this code, loaded at 0x7c00
        "ac"  # next: lodsb
        "84c0"  # test al, al
        "7406"  # jz halt
        "b40e"  # mov ah, 0x0e: teletype output
        "cd10"  # int 0x10
        "ebf5"  # jmp next
        "f4"  # halt: hlt
        "ebfd"  # jmp halt
    )
    disk_sectors = (1 << 20) // SECTOR
    # One bootable partition over the rest of the disk; zeros for CHS: only LBA counts.
    partition = struct.pack("<B3xB3xII", 0x80, 0x83, 1, disk_sectors - 1)
    text = code + b"Booted an image that Headrace carried.\r\n\0"
    sector = text.ljust(446, b"\0") + partition.ljust(64, b"\0") + SIGNATURE
    return sector.ljust(disk_sectors * SECTOR, b"\0")
