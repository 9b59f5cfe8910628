"""Room on a disk for a file that is still to be written."""

import ctypes
import errno
import functools
import os
from collections.abc import Callable

_KEEP_SIZE = 1  # linux/falloc.h


def allocate(fd: int, size: int) -> None:
    """Have the file system set ``size`` bytes aside for the file, whose size stays what it is.

    Where it cannot, nothing is done.  Raises OSError (ENOSPC) when there is not as much room.
    """
    call = _fallocate()
    if call is None or not size:
        return
    while call(fd, _KEEP_SIZE, 0, size) != 0:
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """The C library's fallocate, whose offsets have 64 bits; None where it has none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        function.restype = ctypes.c_int
    return function
