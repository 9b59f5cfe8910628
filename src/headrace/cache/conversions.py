"""Kept images in other formats: each is converted once, and kept as an image of its own.

Its entry's id is made of the image's and the format's.  One conversion is under way at a time, for
all processes; what it makes lies beside the entries and becomes one by a rename.
"""

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping

from headrace.cache import entry
from headrace.cache.directory import Directory
from headrace.cache.records import Record, Records
from headrace.transfer.extent import Extent

Convert = Callable[[int, int, str, int], bool]
"""The file and size of an image, its format, an empty file: fills that, unless the image is in the
wanted format as it is, which False says.  It judges whether the image is safe before it does."""

_NAMESPACE = uuid.UUID("5a1d9c0e-6a0b-4a43-9a3e-4c6f1c5b7d11")
_NEW = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_LOOK = 0.05  # seconds
_PATIENCE = 10.0  # seconds; a follower that stopped would hold it up for ever


def entry_id(image_id: str, format: str) -> str:
    """Under which id an image is kept in another format."""
    return str(uuid.uuid5(_NAMESPACE, f"{image_id.lower()}/{format}"))


class Conversions:
    """Those in ``directory``, of which ``records`` are kept."""

    def __init__(self, directory: Directory, records: Records) -> None:
        self._directory = directory
        self._records = records
        self._path = os.path.join(directory.path, "converting")

    def open(self, image: Mapping[str, object], format: str) -> tuple[Record, Extent] | None:
        """An image in a format, as it was made; None when it is not there."""
        made = entry_id(str(image["id"]), format)
        record = self._records.read(made)
        if record is None or record.converted_to != format or not record.is_of(image):
            return None
        extent = self._directory.open(made, record.size)
        if extent is None:
            return None
        if os.fstat(extent.fileno()).st_mtime_ns == record.mtime_ns:
            return record, extent
        extent.close()  # somebody wrote to it, by a link of it
        self._directory.delete(made)
        return None

    def make(
        self, image: Mapping[str, object], source: Extent, format: str, convert: Convert
    ) -> bool:
        """Have an image, whose data ``source`` is, in a format; False when it is as it is.

        Whoever else makes something is waited for.  Raises StoreFull, StoreUnwritable, and what
        ``convert`` does.
        """
        with self._workshop() as fd:
            if (there := self.open(image, format)) is not None:
                there[1].close()
                return True
            _wait_for_followers(source.fileno())
            if not convert(source.fileno(), source.length, str(image.get("disk_format")), fd):
                return False
            status = os.fstat(fd)
            made = entry_id(str(image["id"]), format)
            self._directory.delete(made)  # of what the image was before
            record = Record.of(
                image, status.st_size, mtime_ns=status.st_mtime_ns, converted_to=format
            )
            adopted = self._directory.adopt(made, self._path, fd)
            if adopted is not None:
                try:
                    self._records.write(made, record)
                    adopted.publish()
                finally:
                    adopted.discard()
            return True

    def clean(self) -> None:
        """Remove what a process left that was killed while it converted."""
        with self._alone(wait=False) as alone:
            if alone:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)

    @contextlib.contextmanager
    def _workshop(self) -> Iterator[int]:
        """An empty file to convert into, at ``_path``; there is one, and it is ours alone."""
        with self._alone(wait=True):
            fd = os.open(self._path, _NEW, 0o600)
            try:
                entry.take(fd)
                yield fd
            finally:
                if entry.is_at(fd, self._path):
                    os.unlink(self._path)
                os.close(fd)

    @contextlib.contextmanager
    def _alone(self, *, wait: bool) -> Iterator[bool]:
        """While nobody else converts; whether that is so."""
        fd = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if wait:
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield wait or entry.take(fd)
        finally:
            os.close(fd)


def _wait_for_followers(fd: int) -> None:
    """Until those are gone who waited for the image: qemu-img takes their locks for a writer's."""
    until = time.monotonic() + _PATIENCE
    while entry.is_followed(fd) and time.monotonic() < until:
        time.sleep(_LOOK)
