"""The files of a cache, in one directory that many processes share; Glance's layout:

    <image id>             whole and verified
    incomplete/<image id>  being filled
    invalid/…              given up while somebody still sends from it
    queue/<image id>       an empty marker: to be filled when there is time
    cache.db               the index

What lies there and what is promised to fills is never more than ``max_size``: the whole size of an
image is reserved before its first byte lands.  Room is made by removing what was used least
recently, and nothing that is open: a removed file holds its room until it is closed.

Names come and go while the index is ours alone.  A process may be killed anywhere: what it filled
keeps its bytes and loses its lock, so that another goes on with it or ``clean`` removes it.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headrace import errors
from headrace.cache import entry
from headrace.cache.entry import State
from headrace.cache.index import Cached, Index, Ledger
from headrace.model import IMAGE_ID
from headrace.transfer.allocation import allocate
from headrace.transfer.extent import Extent
from headrace.transfer.linux import umask
from headrace.transfer.writeback import sync_directory

INDEX = "cache.db"
_INCOMPLETE, _INVALID, _QUEUE = "incomplete", "invalid", "queue"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL = _NO_ROOM | {errno.EFBIG}
_BLOCK = 512  # bytes, of st_blocks

_PRIVATE = 0o750  # who may have an image is decided at the service's door

# How exactly the last access is known: a crowd need not write the same inode a thousand times.
_TOUCH_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Held:
    """A file that takes up room."""

    path: str
    name: str
    status: os.stat_result


class Entry:
    """An image's data on its way into a cache; its lock is ours until it ends.

    It ends by ``publish``, ``discard`` or ``leave``.
    """

    def __init__(self, directory: "Directory", image_id: str, size: int, fd: int) -> None:
        self.image_id = image_id
        self.size = size
        self.fd = fd
        self._directory = directory

    @property
    def landed(self) -> int:
        """How many of its bytes are there."""
        return os.fstat(self.fd).st_size

    @property
    def wanted(self) -> bool:
        """Whether it is still to be filled: False once the image was removed from the cache."""
        return entry.state(os.fstat(self.fd)) is State.FILLING

    def publish(self, checksum: str | None = None) -> bool:
        """Let everybody have it, for good: it is whole and right.  Ends it.

        False when the image was removed meanwhile; it then has no name, but those who follow it get
        all of it.  Raises StoreFull, StoreUnwritable.
        """
        return self._directory._publish(self, checksum)

    def discard(self) -> None:
        """Let nobody have it, and have those who follow it give up.  Ends it, harmless after.

        Raises StoreUnwritable.
        """
        self._directory._discard(self)

    def leave(self) -> None:
        """Let go of it where it is, for another to go on; harmless when it has ended."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            entry.close(fd)


class Directory:
    """The cache in the directory ``path``, of at most ``max_size`` bytes of image data.

    It is made if it is missing.  Safe to use from many threads and processes, and after a fork.
    Raises ConfigurationError when it cannot be written to.
    """

    def __init__(self, path: str | os.PathLike[str], max_size: int) -> None:
        self.path = os.path.abspath(path)
        self.max_size = max_size
        try:
            os.makedirs(self.path, mode=_PRIVATE, exist_ok=True)
            for name in (_INCOMPLETE, _INVALID, _QUEUE):
                os.makedirs(os.path.join(self.path, name), exist_ok=True)
            self._index = Index(os.path.join(self.path, INDEX))
        except OSError as error:
            raise errors.ConfigurationError(
                reason=f"cache directory {self.path}: {error.strerror}"
            ) from error
        except errors.StoreUnwritable as error:
            raise errors.ConfigurationError(
                reason=f"cache directory {self.path}: its {INDEX} cannot be used"
            ) from error

    def open(self, image_id: str, size: int) -> Extent | None:
        """The data of an image that is in the cache, ``size`` bytes; None when it is not.

        It stays there at least until the extent is closed.
        """
        path = self._path(image_id)
        fd = entry.open_to_read(path)
        if fd is None:
            return None
        if entry.pin(fd):
            status = os.fstat(fd)
            whole = entry.state(status) is State.WHOLE and status.st_nlink
            if whole and status.st_size == size:
                now = time.time_ns()
                if now - status.st_atime_ns > _TOUCH_NS:
                    with contextlib.suppress(OSError):  # no reason not to send it
                        os.utime(fd, ns=(now, status.st_mtime_ns))
                os.set_blocking(fd, True)
                return Extent(fd, 0, size, path)
        entry.close(fd)
        return None

    def follow(self, image_id: str) -> int | None:
        """A descriptor of the file in which the image is landing, for as long as one likes.

        None when it is not in it.
        """
        path = self._path(image_id, _INCOMPLETE)
        fd = entry.open_to_read(path)
        if fd is None:
            return None
        good = State.FILLING, State.WHOLE
        if entry.follow(fd) and entry.is_at(fd, path) and entry.state(os.fstat(fd)) in good:
            os.set_blocking(fd, True)
            return fd
        entry.close(fd)
        return None

    def begin(self, image_id: str, size: int) -> Entry | None:
        """Fill the image's entry, ``size`` bytes: from the start, or from where a dead filler was.

        None when somebody fills it, or it is whole.  Raises StoreFull when there is no room and
        none can be made, StoreUnwritable.
        """
        if size > self.max_size:
            raise errors.StoreFull()
        with _translated(), self._index.alone() as ledger:
            if self._has(image_id, size):
                return None
            fd = self._take(ledger, image_id, create=True)
            if fd is None:
                return None
            if os.fstat(fd).st_size > size:
                fd = self._anew(image_id, fd)
            try:
                self._make_room(ledger, image_id, size)
                self._allocate(ledger, fd, size)
                ledger.reserve(image_id, size)
            except BaseException:
                self._drop(image_id, fd)
                ledger.release(image_id)
                raise
            return Entry(self, image_id, size, fd)

    def adopt(self, image_id: str, path: str, fd: int) -> Entry | None:
        """Take the whole file at ``path`` for the image's: ``fd``, which is locked and writable.

        It loses its name, and gets the image's by ``publish``; ``fd`` stays the caller's.  None
        when the image is there, whole or on its way.  Raises StoreFull when there is no room and
        none can be made, StoreUnwritable.
        """
        size = os.fstat(fd).st_size
        if size > self.max_size:
            raise errors.StoreFull()
        with _translated(), self._index.alone() as ledger:
            if self._has(image_id, size):
                return None
            left = self._take(ledger, image_id, create=True)
            if left is None:
                return None
            self._drop(image_id, left)
            self._make_room(ledger, image_id, size)
            os.fchmod(fd, entry.FILLING)
            ledger.reserve(image_id, size)
            own = os.dup(fd)
            os.rename(path, self._path(image_id, _INCOMPLETE))
            return Entry(self, image_id, size, own)

    def delete(self, image_id: str) -> bool:
        """Remove the image from the cache, also while it is filled or sent; whether it was there.

        Raises StoreUnwritable.
        """
        with _translated(), self._index.alone() as ledger:
            there = self._give_up(self._path(image_id), image_id)
            there = self._revoke(ledger, image_id) or there
            ledger.forget(image_id)
        return there

    def clear(self) -> int:
        """Remove all images; how many there were.  Raises StoreUnwritable."""
        with _translated():
            names = {held.name for held in (*self._held(), *self._held(_INCOMPLETE))}
        return sum(map(self.delete, names))

    def prune(self) -> tuple[int, int]:
        """Make what is there fit ``max_size``; how many images and bytes that removed.

        Raises StoreUnwritable.
        """
        with _translated(), self._index.alone() as ledger:
            removed = self._shrink(ledger, self._taken(ledger, "") - self.max_size)
        return len(removed), sum(removed)

    def clean(self, dead_for: float = 0.0) -> int:
        """Remove what is of no use, and make the index say what is there; how many were removed.

        Of no use is what failed, and what nobody fills and nobody follows, and nothing was written
        to for ``dead_for`` seconds.  Raises StoreUnwritable.
        """
        with _translated(), self._index.alone() as ledger:
            removed = 0
            for held in list(self._held(_INVALID, everything=True)):
                removed += self._remove_if_free(held.path)
            for held in list(self._held(_INCOMPLETE)):
                removed += self._clean(ledger, held, dead_for)
            for held in list(self._held()):
                if entry.state(held.status) is not State.WHOLE:
                    removed += self._give_up(held.path, held.name)
            self._agree(ledger)
        return removed

    def cached(self) -> list[Cached]:
        """What is in the cache, whole.  Raises StoreUnwritable."""
        with _translated():
            noted = self._index.noted()
            return [
                _described(held, *noted.get(held.name, (0, None)))
                for held in self._held()
                if entry.state(held.status) is State.WHOLE
            ]

    def used(self) -> int:
        """How many bytes lie in the cache, whole or not."""
        held = (*self._held(), *self._held(_INCOMPLETE), *self._held(_INVALID, everything=True))
        return sum(each.status.st_size for each in held)

    def add_hits(self, hits: Mapping[str, int]) -> None:
        """Note how often images were found.  Raises StoreUnwritable."""
        with self._index.alone() as ledger:
            ledger.add_hits(hits)

    def queue(self, image_id: str) -> None:
        """Have the image filled when there is time; harmless when it is queued already."""
        path = self._path(image_id, _QUEUE)
        with _translated(), contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def unqueue(self, image_id: str) -> bool:
        """Have it not filled; whether it was queued."""
        with _translated():
            try:
                os.unlink(self._path(image_id, _QUEUE))
            except FileNotFoundError:
                return False
        return True

    def queued(self) -> list[str]:
        """The images that are queued, oldest first.  Raises StoreUnwritable."""
        with _translated():
            markers = sorted(self._held(_QUEUE), key=lambda held: held.status.st_mtime_ns)
        return [held.name for held in markers]

    def _publish(self, done: Entry, checksum: str | None) -> bool:
        path, final = self._path(done.image_id, _INCOMPLETE), self._path(done.image_id)
        with _translated():
            if not done.wanted:
                done.leave()
                return False
            os.fchmod(done.fd, entry.WHOLE & ~umask())  # who follows it may have all of it now
            os.fsync(done.fd)
            with self._index.alone() as ledger:
                if not entry.is_at(done.fd, path):
                    done.leave()
                    return False
                held = _Held(final, done.image_id, os.fstat(done.fd))
                os.rename(path, final)
                done.leave()  # our lock keeps readers away
                ledger.release(done.image_id)
                ledger.note(_described(held, 0, checksum))
            sync_directory(self.path)
        return True

    def _discard(self, failed: Entry) -> None:
        if failed.fd < 0:
            return
        try:
            with _translated():
                os.fchmod(failed.fd, entry.FAILED)  # those who follow it look at that
                with self._index.alone() as ledger:
                    if entry.is_at(failed.fd, self._path(failed.image_id, _INCOMPLETE)):
                        fd, failed.fd = failed.fd, -1
                        self._drop(failed.image_id, fd)
                        ledger.release(failed.image_id)
        finally:
            failed.leave()

    def _path(self, image_id: str, part: str = "") -> str:
        """Where something of the image lies; nothing but an image id ever becomes a file name."""
        if not IMAGE_ID.fullmatch(image_id):
            raise errors.BadRequest(reason="not an image id")
        return os.path.join(self.path, part, image_id)

    def _held(self, part: str = "", *, everything: bool = False) -> Iterator[_Held]:
        """The files of images in a part of the directory; ``everything``: all files."""
        with os.scandir(os.path.join(self.path, part)) as found:
            for each in found:
                if everything or IMAGE_ID.fullmatch(each.name):
                    with contextlib.suppress(FileNotFoundError):
                        status = each.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            yield _Held(each.path, each.name, status)

    def _has(self, image_id: str, size: int) -> bool:
        """Whether the image is there, whole; what is there but is not that is removed."""
        path = self._path(image_id)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        if entry.state(status) is State.WHOLE and status.st_size == size:
            return True
        self._give_up(path, image_id)
        return False

    def _take(self, ledger: Ledger, image_id: str, *, create: bool) -> int | None:
        """The image's incomplete file with its lock; None when another has it.

        One that was whole and had not got its name when its filler died is to be verified again:
        the disk may have been given its mode before its data.
        """
        path = self._path(image_id, _INCOMPLETE)
        found = entry.state_at(path)
        if found is State.FAILED:
            self._revoke(ledger, image_id)
        elif found is State.WHOLE and not self._reopen(path):
            return None
        fd = entry.open_to_fill(path, create=create)
        if fd is not None and not entry.take(fd):
            entry.close(fd)
            return None
        return fd

    def _reopen(self, path: str) -> bool:
        """Have a whole file be filled again; False when its filler is about to name it."""
        fd = entry.open_to_read(path)
        if fd is None:
            return False
        try:
            dead = entry.take(fd)
            if dead:
                os.fchmod(fd, entry.FILLING)
            return dead
        finally:
            entry.close(fd)

    def _anew(self, image_id: str, fd: int) -> int:
        """An empty file in place of one that cannot be the image's."""
        self._drop(image_id, fd)
        fresh = entry.open_to_fill(self._path(image_id, _INCOMPLETE), create=True)
        assert fresh is not None, "it was made"
        entry.take(fresh)  # nobody else can have it: the index is ours alone
        return fresh

    def _drop(self, image_id: str, fd: int) -> None:
        """Give up an incomplete file whose lock is ours; closes it."""
        path = self._path(image_id, _INCOMPLETE)
        try:
            os.fchmod(fd, entry.FAILED)
            if entry.keep_followers_out(fd):
                os.unlink(path)
            else:
                self._set_aside(path, image_id)
        finally:
            entry.close(fd)

    def _give_up(self, path: str, image_id: str) -> bool:
        """Take a file's name away: it is removed, or set aside until nobody sends from it.

        Whether it was there.
        """
        try:
            self._remove_if_free(self._set_aside(path, image_id))
        except FileNotFoundError:
            return False
        return True

    def _revoke(self, ledger: Ledger, image_id: str) -> bool:
        """Give up an incomplete file, whoever fills it; whether it was there.

        It grows until its filler sees that: so the file keeps what is promised to the image.
        """
        path = self._path(image_id, _INCOMPLETE)
        promised = ledger.reservations().get(image_id, 0)
        ledger.release(image_id)
        fd = entry.open_to_read(path)  # before it has failed: then only root could
        try:
            if entry.state_at(path) in (State.FILLING, State.WHOLE):
                os.chmod(path, entry.FAILED)
            aside = self._set_aside(path, image_id)
            if _is_free(fd):
                os.unlink(aside)
            else:
                ledger.reserve(os.path.basename(aside), promised)
        except FileNotFoundError:
            return False
        finally:
            if fd is not None:
                entry.close(fd)
        return True

    def _set_aside(self, path: str, image_id: str) -> str:
        aside = os.path.join(self.path, _INVALID, f"{image_id}.{os.lstat(path).st_ino}")
        os.rename(path, aside)
        return aside

    def _remove_if_free(self, path: str) -> bool:
        """Remove a file in which nobody can begin to be interested, unless somebody is."""
        fd = entry.open_to_read(path)
        try:
            free = _is_free(fd)
            if free:
                os.unlink(path)
            return free
        finally:
            if fd is not None:
                entry.close(fd)

    def _evict(self, path: str, *, only_look: bool = False) -> bool:
        """Remove a whole file unless somebody sends from it; whether nobody does."""
        fd = entry.open_to_read(path)
        if fd is None:
            return False
        try:
            free = entry.take(fd) and not entry.is_used(fd)
            if free and not only_look:
                # Who begins to follow it meanwhile has opened it by a name that it lost long ago.
                os.unlink(path)
            return free
        finally:
            entry.close(fd)

    def _clean(self, ledger: Ledger, held: _Held, dead_for: float) -> bool:
        """Remove an incomplete file that nobody has any use for; whether that was so."""
        if entry.state(held.status) is State.FAILED:
            return self._revoke(ledger, held.name)
        if time.time() - held.status.st_mtime < dead_for:
            return False
        fd = self._take(ledger, held.name, create=False)
        if fd is None:
            return False
        if not entry.keep_followers_out(fd):
            entry.close(fd)
            return False
        self._drop(held.name, fd)
        return True

    def _taken(self, ledger: Ledger, image_id: str) -> int:
        """The bytes that lie there or are promised, beside those of ``image_id``."""
        promised = ledger.reservations()
        total = sum(held.status.st_size for held in self._held())
        growing = (*self._held(_INCOMPLETE), *self._held(_INVALID, everything=True))
        return total + sum(
            max(held.status.st_size, promised.get(held.name, 0))
            for held in growing
            if held.name != image_id
        )

    def _make_room(self, ledger: Ledger, image_id: str, size: int) -> None:
        """Have ``size`` bytes fit; raises StoreFull."""
        room = self.max_size - size
        if self._taken(ledger, image_id) <= room:
            return
        for held in list(self._held(_INVALID, everything=True)):
            self._remove_if_free(held.path)
        for held in list(self._held(_INCOMPLETE)):
            if held.name != image_id:
                self._clean(ledger, held, 0.0)
        missing = self._taken(ledger, image_id) - room
        free = sum(
            held.status.st_size for held in self._held() if self._evict(held.path, only_look=True)
        )
        # Nothing is removed for what does not fit then, either.
        if missing > free or missing > sum(self._shrink(ledger, missing)):
            raise errors.StoreFull()

    def _allocate(self, ledger: Ledger, fd: int, size: int) -> None:
        """Have ``size`` bytes of the disk for a file; raises OSError.

        The disk may be smaller than what the cache may have, or others may have filled it.
        """
        while True:
            try:
                return allocate(fd, size)
            except OSError as error:
                if error.errno not in _NO_ROOM or not self._could_hold(fd, size):
                    raise
                if not self._shrink(ledger, 1):
                    raise

    def _could_hold(self, fd: int, size: int) -> bool:
        """Whether the disk has room for a file's ``size`` bytes once all is removed that may be."""
        disk = os.fstatvfs(fd)
        room = disk.f_bavail * disk.f_frsize + os.fstat(fd).st_blocks * _BLOCK
        for held in self._held():
            # What has another name takes as much room without this one.
            if held.status.st_nlink == 1 and self._evict(held.path, only_look=True):
                room += held.status.st_blocks * _BLOCK
        return room >= size

    def _shrink(self, ledger: Ledger, missing: int) -> list[int]:
        """Remove what was used least recently until that makes up for ``missing`` bytes, or nothing
        more can be removed: the size of each.
        """
        removed: list[int] = []
        for held in sorted(self._held(), key=lambda held: held.status.st_atime_ns):
            if sum(removed) < missing and self._evict(held.path):
                removed.append(held.status.st_size)
                ledger.forget(held.name)
        return removed

    def _agree(self, ledger: Ledger) -> None:
        """Make the index say what is there."""
        there = {held.name: held for held in self._held()}
        noted = ledger.noted()
        for image_id in noted.keys() - there.keys():
            ledger.forget(image_id)
        for image_id in there.keys() - noted.keys():
            ledger.note(_described(there[image_id], 0, None))
        growing = (*self._held(_INCOMPLETE), *self._held(_INVALID, everything=True))
        for name in ledger.reservations().keys() - {held.name for held in growing}:
            ledger.release(name)


def _is_free(fd: int | None) -> bool:
    """Whether nobody has a file that was set aside; one that failed, and so cannot be opened, is
    left by those who have it at once.
    """
    return fd is None or (entry.take(fd) and not entry.is_used(fd))


def _described(held: _Held, hits: int, checksum: str | None) -> Cached:
    status = held.status
    return Cached(held.name, status.st_size, status.st_atime, status.st_mtime, hits, checksum)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn what the file system says into StoreFull or StoreUnwritable."""
    try:
        yield
    except OSError as error:
        raise (errors.StoreFull() if error.errno in _FULL else errors.StoreUnwritable()) from error
