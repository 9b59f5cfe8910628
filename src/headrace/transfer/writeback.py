"""To the disk: files while they still grow, so that an fsync has little to wait for, and names."""

import functools
import os
from collections.abc import Callable

_SYNC_FILE_RANGE_WRITE = 2  # start, do not wait: linux/fs.h


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Have the kernel begin to write ``length`` bytes from ``offset`` of the file ``fd`` to disk.

    A hint: it promises nothing and reports nothing; fsync still does both.
    """
    if call := _sync_file_range():
        call(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Have the names in a directory on the disk, as fsync has a file's data.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """The C library's sync_file_range (glibc 2.6, musl 1.1); None where it has none."""
    import ctypes  # only a store needs it; importing it would cost every client command 8 ms

    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        function.restype = ctypes.c_int
    return function
