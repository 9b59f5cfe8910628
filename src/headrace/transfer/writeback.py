"""Writing a file back while it still grows, so that the fsync at its end has little to wait for."""

import functools
from collections.abc import Callable

_SYNC_FILE_RANGE_WRITE = 2  # start, do not wait: linux/fs.h


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Have the kernel begin to write ``length`` bytes from ``offset`` of the file ``fd`` to disk.

    A hint: it promises nothing and reports nothing; fsync still does both.
    """
    if call := _sync_file_range():
        call(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """The C library's sync_file_range (glibc 2.6, musl 1.1); None where it has none."""
    import ctypes  # only a store needs it; importing it would cost every client command 8 ms

    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        function.restype = ctypes.c_int
    return function
