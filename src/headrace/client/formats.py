"""Which disk_format a file has, told by its signature: what a client says when nobody said it."""

import os
import struct

_VDI_SIGNATURE = 0xBEDA107F
_SECTOR = 512
_ISO_DESCRIPTOR, _ISO_DESCRIPTOR_SIZE = 32768, 2048
_ISO_IDENTIFIERS = (b"CD001", b"NSR02", b"NSR03")  # ISO 9660, UDF


def detect(fd: int, size: int) -> str:
    """The disk_format of the ``size`` bytes in the file ``fd``: one of qcow2, vmdk, … or raw.

    Reads by pread and leaves the position alone.  The answer is what an Image API server, which
    inspects the data, will agree to, and therefore raw for
    - a fixed-size VHD, whose only mark is a footer: servers take it for raw and refuse it as vhd;
    - a partition table, a LUKS volume: not among the formats a server takes by default.
    """
    if size < _SECTOR:
        return "raw"
    head = os.pread(fd, _SECTOR, 0)
    if head.startswith(b"QFI\xfb"):
        return "qcow2"
    if head.startswith(b"KDMV"):
        return "vmdk"
    if head.startswith(b"conectix"):
        return "vhd"
    if head.startswith(b"vhdxfile"):
        return "vhdx"
    if head[64:68] == struct.pack("<I", _VDI_SIGNATURE):
        return "vdi"
    if size >= _ISO_DESCRIPTOR + _ISO_DESCRIPTOR_SIZE:
        identifier = os.pread(fd, 5, _ISO_DESCRIPTOR + 1)
        if identifier in _ISO_IDENTIFIERS:
            return "iso"
    return "raw"
