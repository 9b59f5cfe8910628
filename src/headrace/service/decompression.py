"""The plugin image_decompression: data that came compressed is stored as it is meant to be.

What it is, is told by its first bytes.  A few bytes may stand for any number (a "zip bomb"), and
what they say of that number is not believed: it is counted while they are made.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO, cast

from headrace import errors
from headrace.model import MIB
from headrace.service.plugins import Staged, Work
from headrace.transfer.engine import FileSink, pump

_BLOCK = MIB  # what is made at a time, and the most that a zip file's directory may have
_PIECE = 64 << 10  # what is read at a time; read again from where a member of a gzip file ends
_MEMBERS = 1 << 16  # of a gzip file: bgzip makes one of every 64 KiB, so this is 4 GiB
_PLAIN_OR_DEFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1  # APPNOTE.TXT 4.4.4

_GZIP, _ZIP = b"\x1f\x8b\x08", b"PK\x03\x04"
_LHA, _LHA_OFFSET = b"-lh", 2  # behind the length of the header and its checksum

Blocks = Iterator[bytes]


class Decompression:
    """Decompresses gzip, and zip with one member, up to ``size_cap`` bytes and ``ratio`` times what
    came in; data of images whose container_format is ``compressed`` stays as it is.

    Raises NotDecompressible, ImageTooLarge, ExpandsTooMuch, StoreFull.
    """

    def __init__(self, size_cap: int, ratio: int) -> None:
        self._size_cap = size_cap
        self._ratio = ratio

    def __call__(self, staged: Staged, work: Work) -> Staged:
        if staged.image.container_format == "compressed":
            return staged
        way = _way(os.pread(staged.fd, 8, 0))
        if way is None:
            return staged
        fd, total = work.new_file(), 0
        for block in way(staged.fd, staged.size):
            self._check(total + len(block), staged.size)
            if block != bytes(len(block)):  # else it stays a hole
                pump(block, FileSink(fd, total))
            total += len(block)
            work.progress(total)
        os.ftruncate(fd, total)
        return replace(staged, fd=fd, size=total)

    def _check(self, total: int, size: int) -> None:
        if total > self._size_cap:
            raise errors.ImageTooLarge(cap=self._size_cap)
        if total > size * self._ratio:
            raise errors.ExpandsTooMuch(ratio=self._ratio)


def _way(head: bytes) -> Callable[[int, int], Blocks] | None:
    """How data is decompressed that begins like this; None when it is not compressed."""
    if head.startswith(_GZIP):
        return _gunzipped
    if head.startswith(_ZIP):
        return _unzipped
    if head[_LHA_OFFSET:].startswith(_LHA):
        return _refuse_lha
    return None


def _refuse_lha(fd: int, size: int) -> Blocks:
    raise errors.NotDecompressible(reason="lha is not supported; gzip and zip are")


def _gunzipped(fd: int, size: int) -> Blocks:
    """The members of a gzip file one after the other; zeros behind the last are padding.

    zlib reads their headers, too: the standard library's own reader would do that byte by byte.
    """
    offset, members = 0, 0
    while offset < size and (members == 0 or not _is_padding(fd, offset)):
        members += 1
        if members > _MEMBERS:
            raise errors.NotDecompressible(reason="it has too many members")
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not member.eof:
            piece = os.pread(fd, _PIECE, offset)
            if not piece:
                raise errors.NotDecompressible(reason="it ends early")
            offset += len(piece)
            yield from _inflated(member, piece)
        offset -= len(member.unused_data)


def _inflated(member: "zlib._Decompress", piece: bytes) -> Blocks:
    """What a piece stands for, in blocks: however much it is, it is not in memory at once."""
    try:
        while not member.eof:
            block = member.decompress(piece, _BLOCK)
            if block:
                yield block
            piece = member.unconsumed_tail
            if not piece and len(block) < _BLOCK:
                return
    except zlib.error as error:
        raise errors.NotDecompressible(reason=str(error)) from None


def _is_padding(fd: int, offset: int) -> bool:
    return os.pread(fd, 1, offset) == b"\0"


def _unzipped(fd: int, size: int) -> Blocks:
    """The only member of a zip file."""
    try:
        with (
            open(fd, "rb", closefd=False) as file,
            zipfile.ZipFile(cast(BinaryIO, _Reader(file))) as archive,
        ):
            yield from _member(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise errors.NotDecompressible(reason=str(error) or "it ends early") from None


class _Reader:
    """A zip file as zipfile wants it, which would read a directory of any length at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(_BLOCK + 1 if size < 0 else size) if size <= _BLOCK else None
        if data is None or len(data) > _BLOCK:
            raise zipfile.BadZipFile("its directory is too long")
        return data


def _member(archive: zipfile.ZipFile) -> Blocks:
    if len(archive.infolist()) != 1:
        raise errors.NotDecompressible(reason="a zip file must have exactly one member")
    (info,) = archive.infolist()
    if info.flag_bits & _ENCRYPTED:
        raise errors.NotDecompressible(reason="it is encrypted")
    if info.compress_type not in _PLAIN_OR_DEFLATED:
        # Those of bzip2 and lzma are not bounded in memory, by one block and by a header.
        raise errors.NotDecompressible(reason="its member is compressed by another way than zip's")
    with archive.open(info) as member:
        while block := member.read(_BLOCK):
            yield block
