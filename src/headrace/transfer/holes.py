"""Giving back the room of what has been read of a file that is still being written."""

import functools
import os
from collections.abc import Callable

# linux/falloc.h
_KEEP_SIZE = 1
_PUNCH_HOLE = 2


def punch(fd: int, offset: int, length: int) -> None:
    """Make a hole of ``length`` bytes from ``offset`` of the file ``fd``, whose size stays.

    They read as zeros from then on.  Raises OSError where the file system has no holes.
    """
    call = _fallocate()
    if call(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length) != 0:
        import ctypes

        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int]:
    """The C library's fallocate; os has only posix_fallocate, which punches nothing."""
    import ctypes  # only what writes to remote stores needs it, and it takes 8 ms

    function = ctypes.CDLL(None, use_errno=True).fallocate64
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int
    return function
