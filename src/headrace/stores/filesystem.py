"""The filesystem store: one file per image, ``<datadir>/<image id>``.

A file appears under its name whole, durable and at once, or never: it is written without a name
(``O_TMPFILE``), made durable by fsync, given its name by linkat, which replaces nothing, and the
name is made durable by an fsync of the directory.  The kernel frees an unnamed file when its last
descriptor is closed, so that a crash leaves nothing.

Where a file system has no unnamed files or does not link them, the file is written under a name of
its own, ``.headrace-<uuid>.part``, which its writer keeps locked (flock) and which a sweep removes
once nobody does.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator

from headrace import errors
from headrace.model import IMAGE_ID, MIB
from headrace.stores.mountpoints import MountPoints
from headrace.transfer.engine import FileSink
from headrace.transfer.extent import Extent
from headrace.transfer.linux import umask
from headrace.transfer.writeback import start_writeback

_log = logging.getLogger(__name__)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_PART = re.compile(r"\.headrace-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.part")
_SCHEMES = frozenset({"file", "filesystem"})
_MODE = 0o666  # less the umask, as Glance's files

# Write-back starts every so many bytes.  1 GiB arriving at 400 MB/s on ext4 over virtio was durable
# after 2.70 s instead of 3.15 s, the fsync 0.01 s instead of 0.43 s (medians of 5); fdatasync in a
# thread behind the writer took as long, but flushes the disk's cache at every step.
_WRITEBACK_STEP = 8 * MIB


class FilesystemWriter:
    """A file on its way into a FilesystemStore; see ``stores.base.Writer``."""

    lost = range(0)

    def __init__(self, store: "FilesystemStore", image_id: str, fd: int, part: str | None) -> None:
        self._store = store
        self._image_id = image_id
        self._fd = fd
        self._part = part
        self._pushed = 0
        self.landed = 0

    @property
    def sink(self) -> FileSink:
        """The file, open for reading as well: digests and format inspection read it back."""
        return FileSink(self._open_fd())

    def advance(self, total: int) -> None:
        """Take note that the first ``total`` bytes have landed."""
        if total - self._pushed >= _WRITEBACK_STEP:
            start_writeback(self._open_fd(), self._pushed, total - self._pushed)
            self._pushed = total

    def follow(self, read: Callable[[], int]) -> None:
        """All stays until it is committed."""

    def commit(self) -> str:
        fd = self._open_fd()
        try:
            with _translated():
                if self._store.file_perm:
                    os.fchmod(fd, self._store.file_perm)
                os.fsync(fd)
                with _directory(self._store.datadir) as directory:
                    self._publish(fd, directory)
        except BaseException:
            self.abort()
            raise
        return self._store.url(self._image_id)

    def retract(self) -> None:
        # The file is still open, so its inode cannot have become another's.
        path = os.path.join(self._store.datadir, self._image_id)
        with _translated():
            if self._fd >= 0 and _is_at(self._fd, path):
                with _directory(self._store.datadir) as directory:
                    os.unlink(self._image_id, dir_fd=directory)
                    os.fsync(directory)

    def abort(self) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        if self._part is not None:
            _remove(os.path.join(self._store.datadir, self._part))
        with contextlib.suppress(OSError):  # commit has heard of any trouble by fsync
            os.close(fd)

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise ValueError("the writer is closed")
        return self._fd

    def _publish(self, fd: int, directory: int) -> None:
        """Give the file its name, durably or not at all."""
        try:
            _link(fd, self._part, self._image_id, directory)
        except FileExistsError:
            raise errors.DataExists(image_id=self._image_id) from None
        try:
            if self._part is not None:
                os.unlink(self._part, dir_fd=directory)
                self._part = None
            os.fsync(directory)
        except OSError:
            _remove(os.path.join(self._store.datadir, self._image_id))
            raise


class AdoptedFile(FilesystemWriter):
    """A file that was written elsewhere on the store's file system, to be linked into the store."""

    def __init__(self, store: "FilesystemStore", image_id: str, fd: int) -> None:
        super().__init__(store, image_id, fd, None)
        self._seen = _version(fd)
        self.landed = os.fstat(fd).st_size

    def commit(self) -> str:
        fd = self._open_fd()
        if _version(fd) != self._seen:
            self.abort()
            raise errors.UploadIncomplete(reason="its file was written to while it was hashed")
        with _translated():
            os.fchmod(fd, self._store.file_perm or _MODE & ~umask())
        return super().commit()


class FilesystemStore:
    """The files of one directory; see ``stores.base.Store``.

    ``file_perm`` is the mode of published files, 0 for what the umask leaves.  ``unnamed=False``
    never uses unnamed files, whatever the file system can do.  ``mountpoints`` are noted beside
    locations.  The directory is created if missing; one that may not be written makes a store that
    only reads.

    Raises ConfigurationError when ``datadir`` cannot be a directory or ``file_perm`` would keep the
    owner from reading.
    """

    kind = "file"
    local = True

    def __init__(
        self,
        id: str,
        datadir: str | os.PathLike[str],
        *,
        file_perm: int = 0,
        unnamed: bool = True,
        mountpoints: MountPoints | None = None,
    ) -> None:
        if file_perm and not file_perm & stat.S_IRUSR:
            raise errors.ConfigurationError(
                reason=f"file mode {file_perm:03o} keeps the owner from reading the images"
            )
        self._id = id
        self.datadir = os.path.abspath(datadir)
        self.file_perm = file_perm
        self._unnamed = unnamed
        self._mountpoints = mountpoints or MountPoints()
        self._prefix = f"file://{self.datadir}/"
        self._components = _components(self.datadir)
        self.writable = self._prepare()

    @property
    def id(self) -> str:
        return self._id

    @property
    def properties(self) -> dict[str, object]:
        # Reading and writing are not cut into chunks; the name is Glance's.
        return {"data_dir": self.datadir, "chunk_size": MIB, "thin_provisioning": False}

    def url(self, image_id: str) -> str:
        return f"file://{self._path(image_id)}"

    def holds(self, url: str) -> bool:
        if url.startswith(self._prefix) and IMAGE_ID.fullmatch(url, len(self._prefix)):
            return True  # as we write them ourselves
        directory, _, name = url.rpartition("/")
        scheme, separator, path = directory.partition("://")
        return bool(
            scheme in _SCHEMES
            and separator
            and IMAGE_ID.fullmatch(name)
            and _components(path) == self._components
        )

    def check(self, url: str) -> None:
        # Another image's file, or what somebody put beside it: only the store itself names files.
        raise errors.InvalidLocation()

    def metadata(self, url: str) -> dict[str, object]:
        return self._mountpoints.of(url.partition("://")[2])

    def create(self, image_id: str, size: int | None) -> FilesystemWriter:
        self._check_vacant(image_id)
        with _translated():
            if size is not None:
                self._check_room(size)
            fd, part = self._begin()
        return FilesystemWriter(self, image_id, fd, part)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[int]:
        """An empty file of no image, to be read and written, while the context lasts.

        Raises StoreFull, StoreUnwritable.
        """
        with _translated():
            fd, part = self._begin()
        try:
            yield fd
        finally:
            os.close(fd)
            if part is not None:
                _remove(os.path.join(self.datadir, part))

    def adopt(self, image_id: str, fd: int) -> AdoptedFile | None:
        self._check_vacant(image_id)
        with _translated():
            if os.fstat(fd).st_dev != os.stat(self.datadir).st_dev:
                return None
            return AdoptedFile(self, image_id, os.dup(fd))

    def _check_vacant(self, image_id: str) -> None:
        """Raises StoreUnwritable, DataExists."""
        if not self.writable:
            raise errors.StoreUnwritable()
        with _translated():
            if os.path.lexists(self._path(image_id)):
                raise errors.DataExists(image_id=image_id)

    def open(self, url: str) -> Extent:
        path = self._located(url)
        try:
            # O_NONBLOCK, or opening a FIFO would wait for its writer.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                raise errors.NotFound() from None
            raise errors.ServiceUnavailable(reason=f"store {self._id} cannot be read") from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise errors.NotFound()
            os.set_blocking(fd, True)
            return Extent(fd, 0, status.st_size, path)
        except BaseException:
            os.close(fd)
            raise

    def delete(self, url: str) -> None:
        path = self._located(url)
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise errors.NotFound()
            os.unlink(path)
            with _directory(self.datadir) as directory:
                os.fsync(directory)
        except FileNotFoundError:
            raise errors.NotFound() from None
        except OSError as error:
            raise errors.Forbidden(reason=f"store {self._id} may not be written") from error

    def held(self) -> Iterator[str]:
        with os.scandir(self.datadir) as entries:
            for entry in entries:
                if IMAGE_ID.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry.name

    def sweep(self) -> int:
        if not self.writable:
            return 0
        with _translated(), os.scandir(self.datadir) as entries:
            parts = [entry.path for entry in entries if _PART.fullmatch(entry.name)]
        return sum(_sweep(part) for part in parts)

    def _path(self, image_id: str) -> str:
        """Where an image's data lies; nothing but an image id ever becomes a file name."""
        if not IMAGE_ID.fullmatch(image_id):
            raise errors.BadRequest(reason="not an image id")
        return os.path.join(self.datadir, image_id)

    def _located(self, url: str) -> str:
        """The path a location URL means, which lies directly inside the directory.

        Repeated slashes are one: Glance joins the directory as it was configured.  Raises NotFound
        for what cannot be an image's file, StoreNotFound for another directory: its data may exist.
        """
        scheme, _, path = url.partition("://")
        directory, _, name = path.rpartition("/")
        if not (scheme in _SCHEMES and path.startswith("/") and IMAGE_ID.fullmatch(name)):
            raise errors.NotFound()
        if _components(directory) != self._components:
            raise errors.StoreNotFound(store=self._id)
        return os.path.join(self.datadir, name)

    def _check_room(self, size: int) -> None:
        """Refuse early what cannot fit.

        Nothing is reserved with posix_fallocate: holes of the image would take up room for good.
        """
        room = os.statvfs(self.datadir)
        # No blocks at all: a file system that does not count them (tmpfs without a limit, FUSE).
        if room.f_blocks and size > room.f_bavail * room.f_frsize:
            raise errors.StoreFull()

    def _prepare(self) -> bool:
        """Make the directory ready and learn what its file system can do; False: only read."""
        try:
            os.makedirs(self.datadir, exist_ok=True)
            self._open_directory_to_readers()
            if self._unnamed:
                self._unnamed = self._can_publish()
            return self._unnamed or self._can_publish()
        except OSError as error:
            if error.errno in _READ_ONLY:
                return self._only_read(error)
            raise errors.ConfigurationError(reason=f"store {self._id}: {error}") from error

    def _can_publish(self) -> bool:
        """Whether a file made the present way can be given a name.

        Raises OSError when the named way fails.
        """
        probe = _part_name()
        try:
            fd, part = self._begin()
            try:
                with _directory(self.datadir) as directory:
                    _link(fd, part, probe, directory)
            finally:
                os.close(fd)
                for name in filter(None, (part, probe)):
                    _remove(os.path.join(self.datadir, name))
        except OSError as error:
            if error.errno in _FULL:
                return not self._unnamed  # nothing learnt: the named way works everywhere
            if not self._unnamed:
                raise
            return False
        return True

    def _only_read(self, error: OSError) -> bool:
        _log.warning("store %s may not be written, only read: %s", self._id, error.strerror)
        return False

    def _open_directory_to_readers(self) -> None:
        """Let those into the directory whom ``file_perm`` lets read its files."""
        mode = stat.S_IMODE(os.stat(self.datadir).st_mode)
        wanted = mode
        if self.file_perm & stat.S_IRWXG:
            wanted |= stat.S_IXGRP
        if self.file_perm & stat.S_IRWXO:
            wanted |= stat.S_IXOTH
        if wanted != mode:
            try:
                os.chmod(self.datadir, wanted)
            except PermissionError:
                _log.warning("store %s: the mode of its directory cannot be changed", self._id)

    def _begin(self) -> tuple[int, str | None]:
        """A new empty file of no image yet: its descriptor, and its name if it has one."""
        if self._unnamed:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            return os.open(self.datadir, flags, _MODE), None
        return _begin_part(self.datadir)


def _begin_part(datadir: str) -> tuple[int, str]:
    """A new file under a name of its own, locked: its descriptor and its name.

    Between its creation and its lock a sweep may take it for a leftover.  It then holds the lock,
    or has removed the name: a locked file that still has its name is out of every sweep's reach,
    and anything else is given up for a new one.
    """
    while True:
        name = _part_name()
        path = os.path.join(datadir, name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, _MODE)
        try:
            if _lock(fd) and _is_at(fd, path):
                return fd, name
        except OSError:
            os.close(fd)
            _remove(path)
            raise
        os.close(fd)
        _remove(path)


def _is_at(fd: int, path: str) -> bool:
    """Whether ``path`` is a name of the open file; its link count would not tell on NFS."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _sweep(part: str) -> bool:
    """Remove a ``.part`` file that no writer holds; whether it was there to be removed."""
    try:
        # For writing too: NFS carries flock as a record lock, which wants that.
        fd = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # gone by now, or not ours
    try:
        if not (stat.S_ISREG(os.fstat(fd).st_mode) and _lock(fd)):
            return False
        os.unlink(part)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _lock(fd: int) -> bool:
    """Take the lock that marks a file as being written; False when another has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _link(fd: int, part: str | None, name: str, directory: int) -> None:
    """Give the file ``fd``, known as ``part`` so far, its ``name``; never replaces.

    Without a directory descriptor os.link would call link(2), which does not follow the link in
    /proc (CPython before 3.15).
    """
    if part is None:
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
    else:
        os.link(part, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)


def _version(fd: int) -> tuple[int, int]:
    """What of a file changes whenever it is written."""
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns


def _part_name() -> str:
    return f".headrace-{uuid.uuid4()}.part"


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _components(path: str) -> list[str]:
    return [component for component in path.split("/") if component]


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn what the file system says of a write into StoreFull or StoreUnwritable."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise errors.StoreFull() from error
        _log.error("writing to a store failed: %s", error.strerror)
        raise errors.StoreUnwritable() from error
