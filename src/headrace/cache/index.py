"""What is on record of a cache beside its files: how much room is promised to whom, and how often
each image was found.

The files are the truth and this is a hint, in Glance's table ``cached_images`` and one of our own;
but its lock is what all who make room, give names or take them away pass one by one.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headrace import errors

# Whoever holds the lock makes room at most: some directory entries are read and some removed.
_WAIT_SECONDS = 60.0

_TABLES = """
CREATE TABLE IF NOT EXISTS cached_images (image_id TEXT PRIMARY KEY, last_accessed REAL DEFAULT 0,
    last_modified REAL DEFAULT 0, size INTEGER DEFAULT 0, hits INTEGER DEFAULT 0, checksum TEXT);
CREATE TABLE IF NOT EXISTS headrace_reservations (image_id TEXT PRIMARY KEY, size INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Cached:
    """An image that is in the cache: ``size`` in bytes, times in seconds since the epoch."""

    image_id: str
    size: int
    last_accessed: float
    last_modified: float
    hits: int = 0
    checksum: str | None = None


class Ledger:
    """The index while it is ours alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def reservations(self) -> dict[str, int]:
        """The bytes promised to each image that is being filled, and to files set aside."""
        return dict(self._connection.execute("SELECT image_id, size FROM headrace_reservations"))

    def reserve(self, image_id: str, size: int) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO headrace_reservations VALUES (?, ?)", (image_id, size)
        )

    def release(self, image_id: str) -> None:
        self._connection.execute(
            "DELETE FROM headrace_reservations WHERE image_id = ?", (image_id,)
        )

    def note(self, cached: Cached) -> None:
        """An image is in the cache now; what was known of it is forgotten."""
        self._connection.execute(
            "INSERT OR REPLACE INTO cached_images"
            " (image_id, last_accessed, last_modified, size, hits, checksum)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (cached.image_id, cached.last_accessed, cached.last_modified, cached.size,
             cached.hits, cached.checksum),
        )  # fmt: skip

    def forget(self, image_id: str) -> None:
        self._connection.execute("DELETE FROM cached_images WHERE image_id = ?", (image_id,))

    def add_hits(self, hits: Mapping[str, int]) -> None:
        self._connection.executemany(
            "UPDATE cached_images SET hits = hits + ? WHERE image_id = ?",
            [(count, image_id) for image_id, count in hits.items()],
        )

    def noted(self) -> dict[str, tuple[int, str | None]]:
        """The hits and the checksum of each image that is said to be in the cache."""
        rows = self._connection.execute("SELECT image_id, hits, checksum FROM cached_images")
        return {image_id: (hits, checksum) for image_id, hits, checksum in rows}


class Index:
    """The index in the file ``path``, made when it is missing, and anew when it is damaged.

    Every act has a connection of its own, so that an Index may be used by many threads, and after a
    fork.  Raises StoreUnwritable, here and wherever it is used.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._prepare()
        except sqlite3.OperationalError as error:  # it cannot be opened
            raise errors.StoreUnwritable() from error
        except sqlite3.DatabaseError:
            for name in (path, f"{path}-journal"):  # or what that undoes would be done to the new
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
            with _translated():
                self._prepare()

    @contextlib.contextmanager
    def alone(self) -> Iterator[Ledger]:
        """While nobody else is; what was noted is kept unless the context ends by an error."""
        with _translated(), self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Ledger(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def noted(self) -> dict[str, tuple[int, str | None]]:
        """As ``Ledger.noted``, beside others."""
        with _translated(), self._connected() as connection:
            return Ledger(connection).noted()

    def _prepare(self) -> None:
        with self._connected() as connection:
            connection.executescript(_TABLES)
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(said)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            # After a loss of power it is made from the files again.
            connection.execute("PRAGMA synchronous = OFF")
            yield connection
        finally:
            connection.close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise errors.StoreUnwritable() from error
