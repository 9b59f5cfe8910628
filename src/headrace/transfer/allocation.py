"""The room a file takes on a disk: set aside before it is written, given back once it is read."""

import ctypes
import errno
import functools
import os
from collections.abc import Callable

# linux/falloc.h
_KEEP_SIZE = 1
_PUNCH_HOLE = 2


def allocate(fd: int, size: int) -> None:
    """Have the file system set ``size`` bytes aside for the file, whose size stays what it is.

    Where it cannot, nothing is done.  Raises OSError (ENOSPC) when there is not as much room.
    """
    if size:
        _call(fd, _KEEP_SIZE, 0, size)


def punch(fd: int, offset: int, length: int) -> bool:
    """Give back the room of ``length`` bytes from ``offset``, which read as zeros from then on.

    The file's size stays what it is.  False where the file system cannot; raises OSError.
    """
    return _call(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length)


def _call(fd: int, mode: int, offset: int, length: int) -> bool:
    """fallocate(2), until a signal lets it through; False where there is no such thing."""
    call = _fallocate()
    if call is None:
        return False
    while call(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """The C library's fallocate, whose offsets have 64 bits; None where it has none.

    os.posix_fallocate lets the file grow, and writes zeros where the file system cannot.
    """
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        function.restype = ctypes.c_int
    return function
