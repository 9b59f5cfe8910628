"""The file a download lands in, beside its target, until it is whole and right."""

import contextlib
import fcntl
import hashlib
import os
import stat
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from headrace.errors import ClientError, DataCorrupt
from headrace.transfer.writeback import sync_directory


@dataclass(frozen=True, slots=True)
class Expected:
    """What an image's record says its data is; ``algorithm`` is None if it names no hash.

    ``prefer`` are the stores that it should rather come from.
    """

    image_id: str
    size: int | None
    algorithm: str | None
    digest: str
    prefer: tuple[str, ...] = ()

    @classmethod
    def of(cls, image: Mapping[str, object], prefer: Sequence[str] = ()) -> Self:
        size = image.get("size")
        algorithm, digest = image.get("os_hash_algo"), image.get("os_hash_value")
        if not (isinstance(algorithm, str) and algorithm in hashlib.algorithms_available):
            algorithm, digest = "md5", image.get("checksum")
        if not (isinstance(digest, str) and digest):
            algorithm, digest = None, ""
        return cls(
            str(image["id"]),
            size if isinstance(size, int) else None,
            algorithm,
            digest.lower(),
            tuple(prefer),
        )

    def verify(self, actual: str) -> None:
        if actual != self.digest:
            raise DataCorrupt(algorithm=self.algorithm, expected=self.digest, actual=actual)


def partial_name(expected: Expected) -> str:
    """The hidden name under which the image lands: tied to the image and to its hash."""
    return f".headrace-{expected.image_id}-{expected.digest[:16]}.part"


class Partial:
    """The file in which a download lands, until it gets its name.

    One that is ``resumable`` outlives a cut; it is locked, so that no two downloads share it.
    """

    def __init__(self, fd: int, path: Path, *, resumable: bool) -> None:
        self.fd = fd
        self._path: Path | None = path
        self._resumable = resumable

    @classmethod
    def open(cls, directory: Path, expected: Expected, *, resume: bool) -> Self:
        """The image's own partial file; one of a random name if that is none, or in use."""
        try:
            if expected.algorithm is not None:
                path = directory / partial_name(expected)
                fd = _locked(path)
                if fd is not None:
                    partial = cls(fd, path, resumable=True)
                    size = os.fstat(fd).st_size
                    if not resume or (expected.size is not None and size > expected.size):
                        partial.empty()
                    return partial
            path = directory / f".headrace-{uuid.uuid4()}.part"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return cls(os.open(path, flags, 0o666), path, resumable=False)
        except OSError as error:
            raise ClientError(reason=f"cannot write in {directory}: {error.strerror}") from error

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def empty(self) -> None:
        os.ftruncate(self.fd, 0)

    def publish(self, target: Path) -> None:
        """Give the file, now whole, its name for good; what had the name before is replaced."""
        assert self._path is not None
        try:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(self.fd, stat.S_IMODE(target.stat().st_mode))
            os.fsync(self.fd)
            os.rename(self._path, target)
            self._path = None
            sync_directory(target.parent)
        except OSError as error:
            raise ClientError(reason=f"cannot write {target}: {error.strerror}") from error

    def discard(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def close(self) -> None:
        """Close the file; remove it unless it has its name, or a later download can go on."""
        if not self._resumable or not self.size:
            self.discard()
        os.close(self.fd)


def _locked(path: Path) -> int | None:
    """Open and lock the partial file ``path``; None if it is in use, or not to be trusted."""
    try:
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            if _lock(fd):
                return fd
            gone = not os.fstat(fd).st_nlink  # published between open and lock
            os.close(fd)
            if not gone:
                return None
    except OSError:
        return None  # a link, or somebody else's


def _lock(fd: int) -> bool:
    """Lock ``fd`` if it is a file of this user alone: others could still change one of theirs."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    status = os.fstat(fd)
    mine = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    return mine and status.st_nlink == 1
