"""Files that administrators register in place: those below the directories that are listed for it.

Nothing of such a file is copied, and it is never removed: it stays its owner's.  It is reached
from the listed directory downwards, one directory after the other and through no link, so that
nothing that is put below it leads anywhere else.
"""

import errno
import os
import stat
from collections.abc import Sequence

from headrace import errors
from headrace.stores.base import ReadOnly
from headrace.transfer.extent import Extent

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK, or opening a FIFO would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)


class ListedFiles(ReadOnly):
    """The files below ``directories``, as ``file://`` URLs; see ``stores.base.Store``.

    Raises ConfigurationError when a directory is not absolute or is, or lies in or around, one of
    ``apart``: the images of a store could be registered as another image's data.
    """

    kind = "file"
    local = True

    def __init__(self, id: str, directories: Sequence[str], apart: Sequence[str]) -> None:
        super().__init__(id)
        for directory in directories:
            if not os.path.isabs(directory):
                raise errors.ConfigurationError(
                    reason=f"location directory {directory!r} is not an absolute path"
                )
            mine = os.path.realpath(directory)
            for other in map(os.path.realpath, apart):
                if os.path.commonpath([mine, other]) in (mine, other):
                    raise errors.ConfigurationError(
                        reason=f"location directory {directory!r} and {other!r} are not apart"
                    )
        self._directories = [os.path.normpath(each) for each in directories]

    def holds(self, url: str) -> bool:
        return self._found(url) is not None

    def check(self, url: str) -> None:
        if self._found(url) is None:
            raise errors.InvalidLocation()

    def open(self, url: str) -> Extent:
        found = self._found(url)
        if found is None:
            raise errors.NotFound()
        try:
            fd = _open(*found)
        except OSError as error:
            if error.errno in _MISSING:
                raise errors.NotFound() from None
            raise errors.ServiceUnavailable(reason="a registered file cannot be read") from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise errors.NotFound()
            os.set_blocking(fd, True)
            return Extent(fd, 0, status.st_size)
        except BaseException:
            os.close(fd)
            raise

    def _found(self, url: str) -> tuple[str, list[str]] | None:
        """The listed directory that a URL leads into, and the names on the way down from it."""
        scheme, separator, path = url.partition("://")
        if scheme != "file" or not separator or "?" in path or "#" in path:
            return None
        names = path.split("/")
        if names[0] or any(name in (".", "..") or "\0" in name for name in names):
            return None
        for directory in self._directories:
            if path.startswith(f"{directory}/"):
                below = [name for name in path[len(directory) :].split("/") if name]
                return (directory, below) if below and names[-1] else None
        return None


def _open(directory: str, names: list[str]) -> int:
    """A descriptor of the file ``names`` down from the directory; raises OSError for any link."""
    # The listed directory itself is the operator's word, links and all.
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            inner = os.open(name, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(names[-1], _FILE, dir_fd=at)
    finally:
        os.close(at)
