"""Files that are not in the page cache, for measurements that are to read from the disk."""

import errno
import os
import time

from headrace.errors import ClientError

_SAMPLES = 64
_FETCHED = 0.05  # seconds for as many pages to have come
_REMAINS = 0.01
"""The share of a file that may still be there: its pages also come and go by themselves."""


def drop(fd: int, name: str) -> None:
    """Drop a file from the page cache, written first what is not; ClientError if it stays there.

    It does where others have it mapped, and on a file system that is memory (tmpfs).
    """
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        left = resident(fd)
        time.sleep(_FETCHED)  # what is on its way cannot be dropped
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise ClientError(reason=f"{name}: {error.strerror}") from error
    if left is None:
        raise ClientError(
            reason=f"{name} cannot be dropped from the page cache: its file system does not say "
            "whether it was"
        )
    if left > _REMAINS:
        raise ClientError(
            reason=f"{name} cannot be dropped from the page cache: {left:.0%} of it stays"
        )


def resident(fd: int) -> float | None:
    """The share of a file that is in the page cache, by samples: 0 to 1; None if nobody says.

    preadv2(2) with RWF_NOWAIT reads what is there and refuses to wait for what is not, though it
    has that page fetched.
    """
    size = os.fstat(fd).st_size
    if not size:
        return 0.0
    offsets = range(0, size, max(1, size // _SAMPLES))
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # that page, and none after it
    try:
        return sum(_is_there(fd, offset) for offset in offsets) / len(offsets)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise
    finally:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NORMAL)


def _is_there(fd: int, offset: int) -> bool:
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
