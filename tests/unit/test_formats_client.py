"""The client's guess at a disk_format: what the server's inspection will agree to."""

import os
from pathlib import Path

import pytest

from headrace.client.formats import detect
from headrace.service.formats import inspect
from tests import image_files as images


def detected(path: Path) -> str:
    """What the client says of a file, after the server's inspection has agreed."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = path.stat().st_size
        disk_format = detect(fd, size)
        inspect(fd, size, "bare", disk_format, **images.RULES)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    finally:
        os.close(fd)
    return disk_format


@pytest.mark.parametrize(
    ("qemu_format", "options", "disk_format"),
    [
        ("raw", (), "raw"),
        ("qcow2", (), "qcow2"),
        ("qcow2", ("compat=0.10",), "qcow2"),
        ("vmdk", ("subformat=monolithicSparse",), "vmdk"),
        ("vmdk", ("subformat=streamOptimized",), "vmdk"),
        ("vdi", (), "vdi"),
        ("vpc", ("subformat=dynamic",), "vhd"),
        ("vpc", ("subformat=fixed",), "raw"),
        ("vhdx", (), "vhdx"),
    ],
)
def test_images_made_by_qemu(
    tmp_path: Path, qemu_format: str, options: tuple[str, ...], disk_format: str
) -> None:
    assert detected(images.qemu_image(tmp_path / "image", qemu_format, *options)) == disk_format


def test_images_made_by_other_tools(tmp_path: Path) -> None:
    assert detected(images.iso_image(tmp_path / "iso")) == "iso"
    assert detected(images.partitioned_image(tmp_path / "gpt")) == "raw"
    assert detected(images.luks_image(tmp_path / "luks", 1)) == "raw"


@pytest.mark.parametrize(
    ("content", "disk_format"),
    [
        (b"", "raw"),
        (b"Q", "raw"),
        (bytes(40_000), "raw"),
        (images.iso(images.mbr(images.partition())), "iso"),
        (images.iso()[:32774], "raw"),
        (images.qcow2()[:511], "raw"),
        (images.fixed_vhd(), "raw"),
    ],
)
def test_made_by_hand(tmp_path: Path, content: bytes, disk_format: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(content)
    assert detected(image) == disk_format


def test_only_the_given_size_counts(tmp_path: Path) -> None:
    """The client may have no more than the first bytes of a stream."""
    image = tmp_path / "image"
    image.write_bytes(images.iso())
    fd = os.open(image, os.O_RDONLY)
    try:
        assert detect(fd, 32000) == "raw"
        assert detect(fd, 1) == "raw"
    finally:
        os.close(fd)
