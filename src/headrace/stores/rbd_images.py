"""RBD images one by one: on their way in, on their way out, and away."""

import contextlib
import errno
import os
import re
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from headrace import errors
from headrace.model import MIB
from headrace.stores.ceph import Cluster, modules

SNAPSHOT = "snap"
_PART = re.compile(r"headrace-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# A download's blocks, which hold so much memory: they keep a link and some OSDs busy.  They are as
# large as what is asked of us at a time, so that they are handed on as they are: larger ones that
# are cut up cost twice as much, measured, most of it page faults.
_BLOCK = MIB
_AHEAD = 16

_LEAST_PUT = 8 * MIB
_ZEROS = bytes(MIB)
_LARGEST_STEP = 8 << 30

_LOCK = "rbd_lock"  # librbd's, of an image's header

# The names of what this process is writing.
_ours: set[str] = set()


class Opened:
    """An image that is open; while it is, nobody can remove its data."""

    def __init__(self, cluster: Cluster, pool: str, name: str, snapshot: str | None = None) -> None:
        _, rbd = modules()
        self.cluster = cluster
        with contextlib.ExitStack() as stack:
            self.ioctx = stack.enter_context(cluster.pool(pool))
            # Only who might write gets a watch; of a snapshot, librbd lets nobody write anything.
            self.image = stack.enter_context(rbd.Image(self.ioctx, name, snapshot=snapshot))
            self.size = int(self.image.size())
            self._closing = stack.pop_all()

    def close(self) -> None:
        """Let go of it; harmless when closed already."""
        with contextlib.suppress(errors.Error), self.cluster.translated():
            self._closing.close()


class Reading:
    """``length`` bytes of an image from ``offset``, read ahead; see ``stores.remote.Answer``."""

    def __init__(self, opened: Opened, offset: int, length: int) -> None:
        self._opened = opened
        self._at = offset
        self._end = offset + length
        self._asked: deque[_Asked] = deque()
        self._block = b""

    def read(self, size: int, /) -> bytes:
        parts = list(self.pieces(size))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pieces(self, length: int) -> Iterator[bytes]:
        while length > 0 and (block := self._block or self._take()):
            part, self._block = block[:length], block[length:]  # all of it is no copy
            length -= len(part)
            yield part

    def close(self) -> None:
        self._at = self._end
        while self._asked:
            self._asked.popleft().wait()

    def _take(self) -> bytes:
        """The next block; b"" at the end."""
        while self._at < self._end and len(self._asked) < _AHEAD:
            length = min(_BLOCK, self._end - self._at)
            self._asked.append(_Asked(self._opened, self._at, length))
            self._at += length
        return self._asked.popleft().data() if self._asked else b""


class _Asked:
    """A block that was asked for."""

    def __init__(self, opened: Opened, offset: int, length: int) -> None:
        self._opened = opened
        self._length = length
        self._data: list[bytes] = []
        append = self._data.append

        def arrived(_completion: object, data: bytes) -> None:
            append(data)  # not by self: in a cycle the block would wait for the collector

        with _broken(opened.cluster):
            self._completion = opened.image.aio_read(offset, length, arrived)

    def wait(self) -> None:
        self._completion.wait_for_complete_and_cb()

    def data(self) -> bytes:
        """Waits for it; raises TransferError."""
        self.wait()
        code = self._completion.get_return_value()
        if code == self._length:
            return self._data.pop()
        _, rbd = modules()
        with _broken(self._opened.cluster):
            raise rbd.OSError("reading", errno=-min(code, 0))


@contextlib.contextmanager
def _broken(cluster: Cluster) -> Iterator[None]:
    try:
        with cluster.translated():
            yield
    except errors.Error as error:
        raise errors.TransferError(reason=f"its store broke off ({error})", moved=0) from None


class RbdParts:
    """An image on its way into a pool; see ``stores.window.Parts``.

    It has a name of its own until it is complete.  Raises StoreFull, ServiceUnavailable; NotFound
    when there is no pool.
    """

    def __init__(
        self,
        cluster: Cluster,
        pool: str,
        image_id: str,
        url: str,
        *,
        size: int | None,
        chunk_size: int,
        thin: bool,
    ) -> None:
        self._cluster = cluster
        self._pool = pool
        self._image_id = image_id
        self._url = url
        self._thin = thin
        self._part_size = max(chunk_size, _LEAST_PUT)
        self._size = size or 0
        self._step = self._part_size
        self._growing = threading.Lock()
        self._stopped = False
        self._complete = False
        self._part = _new_name()
        with cluster.pool(pool) as ioctx:
            _create(cluster, ioctx, self._part, self._size, chunk_size.bit_length() - 1)
        self._opened = Opened(cluster, pool, self._part)
        self._id = str(self._opened.image.id())
        _ours.add(self._part)

    def size_of(self, number: int) -> int:
        return self._part_size

    def put(self, number: int, fd: int, offset: int, length: int, last: bool) -> None:
        data = os.pread(fd, length, offset)
        if len(data) < length:
            raise errors.FileTruncated(missing=length - len(data), moved=offset)
        with self._writing():
            self._grow(offset + length)
            for start, end in self._spans(data):
                if self._stopped:
                    raise errors.TransferError(reason="the upload was given up", moved=offset)
                self._opened.image.write(data[start:end], offset + start)

    def complete(self, size: int) -> str:
        _, rbd = modules()
        image = self._opened.image
        with self._writing():
            if size != self._size:
                image.resize(size)
            image.flush()
            image.create_snap(SNAPSHOT)
            image.protect_snap(SNAPSHOT)
            with contextlib.suppress(rbd.ImageExists):
                rbd.RBD().rename(self._opened.ioctx, self._part, self._image_id)
            # Of several who rename at once all are told that they did; one has.
            with rbd.Image(self._opened.ioctx, self._image_id, read_only=True) as named:
                if named.id() != self._id:
                    raise errors.DataExists(image_id=self._image_id)
        self._complete = True
        self._close()
        return self._url

    def retract(self) -> None:
        self._remove()

    def stop(self) -> None:
        self._stopped = True

    def abort(self) -> None:
        if self._complete:
            return
        self._close()
        self._remove()

    def _close(self) -> None:
        self._opened.close()
        _ours.discard(self._part)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """As ``Cluster.translated``, of an image that has to be there."""
        try:
            with self._cluster.translated():
                yield
        except errors.NotFound:
            raise errors.ServiceUnavailable(reason="Ceph: the image is gone") from None

    def _remove(self) -> None:
        """Remove this very image, whatever it is called by now."""
        _, rbd = modules()
        with (
            contextlib.suppress(errors.NotFound),
            self._cluster.pool(self._pool) as ioctx,
        ):
            with rbd.Image(ioctx, image_id=self._id, read_only=True) as image:
                name = str(image.get_name())
            remove(ioctx, name)

    def _grow(self, size: int) -> None:
        """Have the image be of ``size`` bytes at least; in steps, if nobody said how large."""
        if size <= self._size:
            return
        with self._growing:
            while size > self._size:
                self._opened.image.resize(self._size + self._step)
                self._size += self._step
                self._step = min(2 * self._step, _LARGEST_STEP)

    def _spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """What of a part has to be written: where it begins, where it ends."""
        if not self._thin:
            yield 0, len(data)
            return
        begun: int | None = None
        for start in range(0, len(data), MIB):
            block = data[start : start + MIB]
            if block != _ZEROS[: len(block)]:
                begun = start if begun is None else begun
            elif begun is not None:
                yield begun, start
                begun = None
        if begun is not None:
            yield begun, len(data)


def exists(ioctx: Any, name: str) -> bool:
    """Whether a pool has an image of that name."""
    rados, _ = modules()
    try:
        ioctx.stat(f"rbd_id.{name}")
    except rados.ObjectNotFound:
        return False
    return True


def made(ioctx: Any, name: str) -> datetime:
    """When an image was made, in naive UTC."""
    _, rbd = modules()
    with rbd.Image(ioctx, name, read_only=True) as image:
        found: datetime = image.create_timestamp()
        return found


def is_part(name: str) -> bool:
    """Whether a name is that of an image on its way, in or out."""
    return _PART.fullmatch(name) is not None


def is_needed(ioctx: Any, name: str) -> bool:
    """Whether there are clones on whose account an image's snapshot cannot be unprotected.

    It is tried: they may lie in pools that we cannot list.  Those of the second kind (Ceph 13) keep
    what they need by themselves.
    """
    _, rbd = modules()
    with rbd.Image(ioctx, name) as image:
        if not image.is_protected_snap(SNAPSHOT):
            return False
        try:
            image.unprotect_snap(SNAPSHOT)
        except rbd.ImageBusy:
            return True
        image.protect_snap(SNAPSHOT)
        return False


def remove(ioctx: Any, name: str) -> None:
    """Take an image's name, and its data when nobody uses them any more.

    Raises DataInUse; ServiceUnavailable when a pool that is full has no room for another name, and
    somebody uses the data.
    """
    _, rbd = modules()
    with rbd.Image(ioctx, name) as image:
        try:
            _unprotect(image)
        except rbd.ImageBusy:
            raise errors.DataInUse() from None
        part = name if is_part(name) else _renamed(ioctx, name)
    if purge(ioctx, part) or is_part(part):
        return
    with rbd.Image(ioctx, name) as image, contextlib.suppress(rbd.ImageNotFound):
        image.protect_snap(SNAPSHOT)
    raise errors.ServiceUnavailable(reason="Ceph: the pool is full, and the image is in use")


def _renamed(ioctx: Any, name: str) -> str:
    """Give an image a name of its own, and return it: the old one when there is no room for any."""
    _, rbd = modules()
    part = _new_name()
    try:
        rbd.RBD().rename(ioctx, name, part)
    except rbd.Error as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return name
    return part


def purge(ioctx: Any, name: str, before: datetime | None = None) -> bool:
    """Remove an image on its way, unless somebody has it open or it was not made ``before``;
    whether it was removed.
    """
    _, rbd = modules()
    try:
        with rbd.Image(ioctx, name) as image:
            if len(list(image.watchers_list())) > 1:  # we are one
                return False
            if before is not None and image.create_timestamp() > before:
                return False
            if name in _ours:  # whose watch was lost for a moment
                return False
            _unlock(ioctx, image)
            _unprotect(image)
            with contextlib.suppress(rbd.ImageNotFound):
                image.remove_snap(SNAPSHOT)
        rbd.RBD().remove(ioctx, name)
    except (rbd.ImageNotFound, rbd.ImageBusy, rbd.ImageHasSnapshots):
        return False
    return True


def _unlock(ioctx: Any, image: Any) -> None:
    """Let go of a lock that we have left on an image, when an OSD hung while it was closed.

    librbd takes it from whoever else is gone, and never from its own process.
    """
    rados, _ = modules()
    found = image.list_lockers()
    for _client, cookie, _address in found["lockers"] if found else ():
        with contextlib.suppress(rados.ObjectNotFound):  # somebody else's
            ioctx.unlock(f"rbd_header.{image.id()}", _LOCK, cookie)


def _unprotect(image: Any) -> None:
    """Let the snapshot be removed, if there is one."""
    _, rbd = modules()
    with contextlib.suppress(rbd.ImageNotFound, rbd.InvalidArgument):  # the latter: it may be
        image.unprotect_snap(SNAPSHOT)


def _create(cluster: Cluster, ioctx: Any, name: str, size: int, order: int) -> None:
    """With the features that the cluster's operator wants; clones need one at least."""
    _, rbd = modules()
    wanted = int(cluster.connection().conf_get("rbd_default_features") or 0)
    rbd.RBD().create(
        ioctx, name, size, order, old_format=False, features=wanted | rbd.RBD_FEATURE_LAYERING
    )


def _new_name() -> str:
    return f"headrace-{uuid.uuid4()}"
