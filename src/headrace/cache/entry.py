"""A file of a cache, and what its inode tells every process that has it open.

Its size is how much has landed: it is written from front to back.  Its mode is its state.  Whoever
fills it holds an exclusive flock, so that one that is free of a file that is not whole says that
its filler died.  Whoever sends from it holds it, too: a whole one by a shared flock; one that is
being filled, where the filler has the flock, by a record lock of the open file description, which
is a lock of another kind (fcntl(2)).  So the cache lies on a local file system: NFS makes one kind
of the two.  A server in front that sends a whole one by its name takes no lock; a lease, which is
given to nobody while others have the file open, tells that it does.
"""

import contextlib
import fcntl
import os
import stat
import struct
from enum import Enum, auto

from headrace.transfer.linux import is_open_elsewhere

FILLING = 0o600
FAILED = 0o000
WHOLE = 0o444
"""The modes of its states; of a whole one as far as the umask leaves it."""

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_RECORD = "hhqqi"  # struct flock: l_type, l_whence, l_start, l_len, l_pid


class State(Enum):
    """What the mode of an entry says."""

    FILLING = auto()
    WHOLE = auto()
    FAILED = auto()
    STRANGE = auto()  # not a regular file


def state(status: os.stat_result) -> State:
    if not stat.S_ISREG(status.st_mode):
        return State.STRANGE
    if status.st_mode & stat.S_IWUSR:
        return State.FILLING
    return State.WHOLE if status.st_mode & stat.S_IRUSR else State.FAILED


def state_at(path: str) -> State | None:
    """The state of the entry of that name; None when there is none."""
    try:
        return state(os.lstat(path))
    except FileNotFoundError:
        return None


def open_to_read(path: str) -> int | None:
    """A descriptor; None when there is no such entry, or it failed."""
    try:
        return os.open(path, _READ)
    except OSError:
        return None


def open_to_fill(path: str, *, create: bool) -> int | None:
    """A descriptor; None when there is no such entry and it is not to be made."""
    try:
        return os.open(path, _WRITE | (os.O_CREAT if create else 0), FILLING)
    except FileNotFoundError:
        return None


def take(fd: int) -> bool:
    """Take the exclusive flock; False when another has it, or a shared one."""
    return _flock(fd, fcntl.LOCK_EX)


def pin(fd: int) -> bool:
    """Take a shared flock; False when another has the exclusive one."""
    return _flock(fd, fcntl.LOCK_SH)


def follow(fd: int) -> bool:
    """Take a shared record lock; False when the entry is being removed."""
    return _lock_record(fd, fcntl.F_RDLCK)


def is_followed(fd: int) -> bool:
    """Whether anybody else follows it."""
    asked = struct.pack(_RECORD, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    found: int = struct.unpack(_RECORD, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return found != fcntl.F_UNLCK


def is_open(fd: int) -> bool:
    """Whether anybody else has the file open, by no other name than ours.

    A file with more names keeps its room on the disk whatever becomes of ours.
    """
    if os.fstat(fd).st_nlink > 1:
        return False
    try:
        return is_open_elsewhere(fd)
    except OSError:  # another's file, or a file system that has no leases
        return False


def is_used(fd: int) -> bool:
    """Whether anybody else follows it or has it open."""
    return is_followed(fd) or is_open(fd)


def keep_followers_out(fd: int) -> bool:
    """Have ``follow`` fail from now on; False when somebody follows it.  ``fd`` is writable."""
    return _lock_record(fd, fcntl.F_WRLCK)


def is_at(fd: int, path: str) -> bool:
    """Whether ``path`` is its name."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _flock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_record(fd: int, kind: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_RECORD, kind, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):  # either, says fcntl(2)
        return False
    return True


def close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)
