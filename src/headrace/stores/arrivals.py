"""Files that a server in front has received for us, in one directory beside the store.

Such a file may become an image's as it is, by a link.  It then has to be ours alone: nobody else
may have it open for writing, or be able to open it so.  F_SETLEASE, which would tell, cannot: the
server in front keeps its descriptor until it has our answer.  Instead the directory is its owner's
only, and so is every file that is taken from it; and what changes while it is hashed is refused.
"""

import contextlib
import os
import re
import stat
from typing import Self

from headrace import errors
from headrace.transfer.linux import is_open_elsewhere

_NAME = re.compile(r"[0-9]+")  # as nginx names what it receives
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Arrival:
    """A file that has arrived, open for reading as ``fd``, of ``length`` bytes.

    As a context it ends with the file's name gone: the data is an image's by then, or nobody's.
    """

    def __init__(self, path: str, fd: int, length: int) -> None:
        self._path = path
        self.fd = fd
        self.length = length

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        os.close(self.fd)


class Arrivals:
    """The directory; it is made when it is missing, with room on the disk that it lies on."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def refusal(self) -> str | None:
        """Why nothing can be taken from the directory, if so: it must belong to this user alone."""
        try:
            with contextlib.suppress(FileExistsError):
                os.makedirs(self._directory, 0o700)
            status = os.stat(self._directory, follow_symlinks=False)
        except OSError as error:
            return f"{self._directory}: {error.strerror}"
        if not stat.S_ISDIR(status.st_mode):
            return f"{self._directory} is not a directory"
        if status.st_uid != os.geteuid():
            return (
                f"{self._directory} belongs to user {status.st_uid}, and this is {os.geteuid()}: "
                "the workers of the server in front must run as the same user"
            )
        if status.st_mode & _FOR_OTHERS:
            return f"{self._directory} may be written by others"
        return None

    def take(self, path: str) -> Arrival:
        """The file that ``path`` names, directly in the directory.

        Raises BadRequest for anything that is not a regular file there, of this user alone.
        """
        directory, _, name = path.rpartition("/")
        if directory != self._directory or not _NAME.fullmatch(name):
            raise errors.BadRequest(reason="the upload's file is not where uploads arrive")
        try:
            fd = os.open(path, _OPEN)
        except OSError as error:
            reason = f"the upload's file: {error.strerror}"
            raise errors.BadRequest(reason=reason) from error
        status = os.fstat(fd)
        if not _is_ours_alone(status):
            os.close(fd)
            raise errors.BadRequest(reason="the upload's file is not its owner's alone")
        return Arrival(path, fd, status.st_size)

    def sweep(self) -> int:
        """Remove what a server in front that died has left; returns how many files."""
        if self.refusal() is not None:
            return 0
        try:
            with os.scandir(self._directory) as entries:
                paths = [entry.path for entry in entries if _NAME.fullmatch(entry.name)]
        except OSError:
            return 0
        return sum(map(_sweep, paths))


def _is_ours_alone(status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and status.st_nlink == 1
        and not status.st_mode & _FOR_OTHERS
    )


def _sweep(path: str) -> bool:
    """Remove a file that nobody is writing; whether it was one."""
    try:
        fd = os.open(path, _OPEN)
    except OSError:
        return False
    try:
        # A server in front has it open for writing as long as it receives.
        if not (_is_ours_alone(os.fstat(fd)) and not is_open_elsewhere(fd, to_write=True)):
            return False
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
