"""The file that an image is delivered to: there whole, or not at all.

It is written without a name, where the file system has such files, and gets it when all of it is on
the disk.  It shares the blocks of what it is made of where it can.

Where it has to have another name before, to be written or to replace a file, that is
``.headrace-<uuid>.fetch``, and the file is locked (flock), unless that is but one more name of a
file of the cache.  So what a killed process left is known, and the next that delivers to the
directory removes it.
"""

import contextlib
import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from headrace.cache import entry
from headrace.errors import ClientError, StoreFull, StoreUnwritable, TransferError, UsageError
from headrace.transfer.engine import FileSink, pump
from headrace.transfer.extent import Extent
from headrace.transfer.writeback import sync_directory

LINK = "hard link"

_PART = re.compile(r"\.headrace-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.fetch")
_NOT_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_NOT_LINKED = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES, errno.ENOENT}
)


def expect_free(target: Path, *, replace: bool) -> None:
    """Raises UsageError where nothing may be delivered to: found before anything is fetched."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise UsageError(reason=f"there is no directory {target.parent}") from None
        return
    except OSError as error:
        raise UsageError(reason=f"cannot write {target}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(reason=f"{target} is a directory")
    if not stat.S_ISREG(mode):
        raise UsageError(reason=f"{target} is no regular file; `headrace download` may write to it")
    if not replace:
        raise _exists(target)


def deliver(source: Extent, target: Path, *, replace: bool = False, link: bool = False) -> str:
    """Have ``target`` be a file with the data of ``source``, a whole file; how that was done.

    By a hard link if that is wanted and can be: then it is one file with the other names of it.
    Else by reflink, by copy_file_range or by copying, holes staying holes; what a symbolic link
    points to is replaced, not the link, and a file that is replaced leaves its mode.  Raises
    UsageError when it is there and not to be replaced, ClientError.
    """
    target = Path(os.path.realpath(target))
    expect_free(target, replace=replace)
    _sweep(target.parent)
    try:
        if link and _link(source.fileno(), target, replace=replace):
            return LINK
        with _new_file(target.parent) as (fd, part):
            how = pump(source, FileSink(fd)).how
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(fd, stat.S_IMODE(target.stat().st_mode))
            os.fsync(fd)
            if part is None:
                _name(fd, target, replace=replace)
            elif replace:
                os.rename(part, target)
            else:
                _link_at(str(part), target)
        sync_directory(target.parent)
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        raise ClientError(reason=f"cannot write {target}: {error.strerror}") from error
    except (StoreFull, StoreUnwritable, TransferError) as error:
        met = error.__cause__
        reason = met.strerror if isinstance(met, OSError) else str(error)
        raise ClientError(reason=f"cannot write {target}: {reason}") from error
    return str(how)


def _link(fd: int, target: Path, *, replace: bool) -> bool:
    """Give a file one more name; False where that cannot be."""
    try:
        _name(fd, target, replace=replace)
    except OSError as error:
        if error.errno in _NOT_LINKED:
            return False
        raise
    sync_directory(target.parent)
    return True


@contextlib.contextmanager
def _new_file(directory: Path) -> Iterator[tuple[int, Path | None]]:
    """A descriptor of an empty file, and its name if it has to have one meanwhile."""
    part = None
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        _lock(fd)
    except OSError as error:
        if error.errno not in _NOT_UNNAMED:
            raise
        fd, part = _named_file(directory)
    try:
        yield fd, part
    finally:
        os.close(fd)
        if part is not None:
            part.unlink(missing_ok=True)


def _named_file(directory: Path) -> tuple[int, Path]:
    while True:
        part = _part(directory)
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if _lock(fd) and entry.is_at(fd, str(part)):
            return fd, part
        os.close(fd)  # a sweep came before its lock, and has removed it or will


def _lock(fd: int) -> bool:
    """Have a file be left alone by sweeps; False when one has come before."""
    try:
        return entry.take(fd)
    except OSError:  # where there are no locks no sweep gets one, either
        return True


def _sweep(directory: Path) -> None:
    """Remove what killed processes left in a directory."""
    with contextlib.suppress(OSError), os.scandir(directory) as found:
        for each in found:
            if _PART.fullmatch(each.name) and (fd := entry.open_to_read(each.path)) is not None:
                with contextlib.suppress(OSError):
                    # Who loses one more name of a file makes it again.
                    if os.fstat(fd).st_nlink > 1 or entry.take(fd):
                        os.unlink(each.path)
                entry.close(fd)


def _name(fd: int, target: Path, *, replace: bool) -> None:
    """Give a file the name ``target``, in place of another file if that is wanted."""
    file = f"/proc/self/fd/{fd}"
    if not replace:
        _link_at(file, target)
        return
    while True:
        part = _part(target.parent)
        _link_at(file, part)
        try:
            os.rename(part, target)
            return
        except FileNotFoundError:  # a sweep has removed it
            continue
        finally:
            part.unlink(missing_ok=True)  # rename(2) leaves it where both are the same file


def _link_at(file: str, name: Path) -> None:
    directory = os.open(name.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:  # a descriptor is what has Python call linkat(2), which follows the link in /proc
        os.link(file, name.name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _part(directory: Path) -> Path:
    return directory / f".headrace-{uuid.uuid4()}.fetch"


def _exists(target: Path) -> UsageError:
    return UsageError(reason=f"{target} is there already; --force replaces it")
