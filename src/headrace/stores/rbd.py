"""The rbd store: every image is one of Ceph's block devices, which instances are cloned from.

They lie as Glance's: named by the image's id, with a protected snapshot ``snap`` that a location
names.  What is on its way in or out has a name of its own, and gets that of the image, or loses it,
in one step; so nobody meets half an image.

Whoever writes or reads has a watch on the image, which Ceph forgets soon after he is gone.  It is
what keeps an image from being removed under him: librbd refuses, and we leave it to a later sweep.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from headrace import errors
from headrace.model import IMAGE_ID, MIB
from headrace.stores import ceph, rbd_images
from headrace.stores.ceph import Cluster
from headrace.stores.rbd_images import SNAPSHOT, Opened, RbdParts, Reading
from headrace.stores.remote import Remote, Turns
from headrace.stores.window import AdoptedWindow, WindowWriter, new_window

_SCHEME = "rbd://"
_STREAMS = 4
"""Parts of an upload that go at a time; more are no faster, measured."""


class RbdStore:
    """The RBD images of one pool; see ``stores.base.Store``.

    ``chunk_size`` is that of their objects, in MiB; between two powers of two it is the smaller
    one.  With ``thin`` zeros are not written.  ``windows`` is a directory for what is on its way
    in.  ``most`` images may be read at a time in this process.  What was begun less than
    ``settling`` seconds ago is no leftover; by default that is how long the cluster may take.

    Raises ConfigurationError when Ceph's Python modules are missing.
    """

    kind = "rbd"
    local = False
    writable = True

    def __init__(
        self,
        id: str,
        cluster: Cluster,
        pool: str,
        windows: str,
        *,
        chunk_size: int = 8,
        thin: bool = False,
        most: int = 16,
        settling: float | None = None,
    ) -> None:
        ceph.modules()
        self._id = id
        self._cluster = cluster
        self._pool = pool
        self._windows = windows
        self._chunk_size = chunk_size * MIB
        self._thin = thin
        self._turns = Turns(most)
        self._settling = timedelta(seconds=cluster.timeout if settling is None else settling)

    @property
    def id(self) -> str:
        return self._id

    @property
    def properties(self) -> dict[str, object]:
        known: dict[str, object] = {
            "pool": self._pool,
            "chunk_size": self._chunk_size,
            "thin_provisioning": self._thin,
        }
        with contextlib.suppress(errors.ServiceUnavailable):
            known["fsid"] = self._cluster.fsid
        return known

    def url(self, image_id: str) -> str:
        _require_id(image_id)
        where = [self._cluster.fsid, self._pool, image_id, SNAPSHOT]
        return _SCHEME + "/".join(quote(each, safe="") for each in where)

    def holds(self, url: str) -> bool:
        try:
            self._located(url)
        except errors.Error:
            return False
        return True

    def metadata(self, url: str) -> dict[str, object]:
        return {}

    def check(self, url: str) -> None:
        # It may be another image's: only the store itself says what lies where in it.  Of what lies
        # under the image's own name service/locations.py decides.
        raise errors.InvalidLocation()

    def create(self, image_id: str, size: int | None) -> WindowWriter:
        parts = self._parts(image_id, size)
        try:
            return WindowWriter(parts, new_window(self._windows), streams=_STREAMS)
        except BaseException:
            parts.abort()
            raise

    def adopt(self, image_id: str, fd: int) -> WindowWriter:
        parts = self._parts(image_id, os.fstat(fd).st_size)
        try:
            return AdoptedWindow(parts, os.dup(fd), streams=_STREAMS)
        except BaseException:
            parts.abort()
            raise

    def open(self, url: str) -> Remote:
        name, snapshot = self._located(url)
        return self._turns.open(lambda: self._open(name, snapshot))

    def delete(self, url: str) -> None:
        """Raises DataInUse, besides, while there are clones that need the image."""
        name, snapshot = self._located(url)
        if snapshot not in (SNAPSHOT, None):
            raise errors.NotFound()
        with self._cluster.pool(self._pool) as ioctx:
            rbd_images.remove(ioctx, name)

    def in_use(self, url: str) -> bool:
        """Whether there are clones that need the data, as far as that can be found out."""
        try:
            name, _ = self._located(url)
            with self._cluster.pool(self._pool) as ioctx:
                return rbd_images.is_needed(ioctx, name)
        except errors.Error:
            return False

    def made(self, url: str) -> datetime:
        name, _ = self._located(url)
        with self._cluster.pool(self._pool) as ioctx:
            return rbd_images.made(ioctx, name)

    def held(self) -> Iterator[str]:
        return (each for each in self._names() if IMAGE_ID.fullmatch(each))

    def sweep(self) -> int:
        before = datetime.now(UTC).replace(tzinfo=None) - self._settling
        removed = 0
        for name in filter(rbd_images.is_part, self._names()):
            with self._cluster.pool(self._pool) as ioctx:
                removed += rbd_images.purge(ioctx, name, before)
        return removed

    def _open(self, name: str, snapshot: str | None) -> Remote:
        opened = Opened(self._cluster, self._pool, name, snapshot)

        def read(offset: int, length: int) -> Reading:
            return Reading(opened, offset, length)

        remote = Remote(read(0, opened.size), opened.size, read)
        remote.on_close(lambda _sent, _ok: opened.close())
        return remote

    def _names(self) -> list[str]:
        """What the pool has; raises ServiceUnavailable."""
        _, rbd = ceph.modules()
        try:
            with self._cluster.pool(self._pool) as ioctx:
                return [str(each) for each in rbd.RBD().list(ioctx)]
        except errors.NotFound:
            raise errors.ServiceUnavailable(reason=f"store {self._id} has no pool") from None

    def _parts(self, image_id: str, size: int | None) -> RbdParts:
        """A new image on its way; raises DataExists, StoreFull, ServiceUnavailable."""
        url = self.url(image_id)
        try:
            with self._cluster.pool(self._pool) as ioctx:
                if rbd_images.exists(ioctx, image_id):
                    raise errors.DataExists(image_id=image_id)
            self._check_room(size or 0)
            return RbdParts(
                self._cluster, self._pool, image_id, url,
                size=size, chunk_size=self._chunk_size, thin=self._thin,
            )  # fmt: skip
        except errors.NotFound:
            raise errors.ServiceUnavailable(reason=f"store {self._id} has no pool") from None

    def _check_room(self, size: int) -> None:
        """Refuse early what cannot fit, in however few copies."""
        with self._cluster.translated():
            if size > self._cluster.connection().get_cluster_stats()["kb_avail"] << 10:
                raise errors.StoreFull()

    def _located(self, url: str) -> tuple[str, str | None]:
        """The image, and its snapshot if any, that a location URL means.

        Raises NotFound for what cannot be one, StoreNotFound for another pool's, and what finding
        out the cluster's id does.
        """
        pieces = url.removeprefix(_SCHEME).split("/")
        if not url.startswith(_SCHEME) or not all(pieces):
            raise errors.NotFound()
        if len(pieces) == 1:  # of times long past, and of the pool that is configured
            return pieces[0], None
        if len(pieces) != 4:
            raise errors.NotFound()
        fsid, pool, name, snapshot = map(unquote, pieces)
        if "\0" in name + snapshot:  # where librbd would take the name to end
            raise errors.NotFound()
        if (fsid, pool) != (self._cluster.fsid, self._pool):
            raise errors.StoreNotFound(store=self._id)
        return name, snapshot


def _require_id(image_id: str) -> None:
    if not IMAGE_ID.fullmatch(image_id):
        raise errors.BadRequest(reason="not an image id")
