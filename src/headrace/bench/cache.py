"""Files that are not in the page cache, for measurements that are to read from the disk."""

import os
import time

from headrace.errors import ClientError
from headrace.transfer import linux

_FETCHED = 0.05  # seconds for what looking has fetched to have come
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
    """The share of a file that is in the page cache, 0 to 1; None if the system does not say."""
    size = os.fstat(fd).st_size
    return linux.resident(fd, 0, size) if size else 0.0
