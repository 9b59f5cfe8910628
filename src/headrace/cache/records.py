"""What a compute host remembers of the images it keeps: a file beside each entry of its cache.

It says what the entry was verified against, so that a changed image is noticed, and an entry can be
judged when the service cannot be asked; and when it was last written, so that one that somebody
wrote to since is noticed as well.
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from headrace import errors
from headrace.client.partial import Expected

_KEPT = (
    "id", "name", "size", "disk_format", "container_format", "checksum", "os_hash_algo",
    "os_hash_value",
)  # fmt: skip
"""Of the service's record; not where the data lies there, which is nobody's business here."""

_WRITTEN_IN = 600.0  # seconds in which a record is written, at the very most


@dataclass(frozen=True, slots=True)
class Record:
    """``image`` as the service described it; ``mtime_ns`` of the entry that was verified.

    ``converted_to`` is the format in which the entry has it, None where it is as it came; the
    entry then has ``size`` bytes, and what it is made of cannot be seen from a hash.
    """

    image: Mapping[str, object]
    size: int
    mtime_ns: int | None = None
    converted_to: str | None = None

    @classmethod
    def of(
        cls,
        image: Mapping[str, object],
        size: int,
        mtime_ns: int | None = None,
        converted_to: str | None = None,
    ) -> Self:
        """With what is kept of the service's record ``image``."""
        kept = {name: image.get(name) for name in _KEPT}
        return cls(kept, size, mtime_ns, converted_to)

    def is_of(self, image: Mapping[str, object]) -> bool:
        """Whether it is of the data that the service's record ``image`` means now."""
        return Expected.of(self.image) == Expected.of(image)


class Records:
    """Those in the directory ``path``, which is made; OSError when it cannot be."""

    def __init__(self, path: str) -> None:
        self._path = path
        os.makedirs(path, exist_ok=True)

    def read(self, entry_id: str) -> Record | None:
        """That of an entry; None when there is none that can be understood."""
        try:
            with open(self._file(entry_id), encoding="utf-8") as file:
                said = json.load(file)
            image, size, mtime_ns, format = (
                said[name] for name in ("image", "size", "mtime_ns", "converted_to")
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not (isinstance(image, dict) and isinstance(size, int) and "id" in image):
            return None
        return Record(
            image,
            size,
            mtime_ns if isinstance(mtime_ns, int) else None,
            format if isinstance(format, str) else None,
        )

    def write(self, entry_id: str, record: Record) -> None:
        """Have it, all of it or what was there before; raises StoreUnwritable."""
        said = {
            "image": dict(record.image),
            "size": record.size,
            "mtime_ns": record.mtime_ns,
            "converted_to": record.converted_to,
        }
        aside = f"{self._file(entry_id)}.{uuid.uuid4().hex}"
        try:
            with open(aside, "x", encoding="utf-8") as file:
                json.dump(said, file)
            os.rename(aside, self._file(entry_id))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise errors.StoreUnwritable() from error

    def keep(self, there: Callable[[], set[str]]) -> None:
        """Forget those of entries that are not ``there``, and what a crash left of writing one.

        That is asked once it is known what is on record, so that what comes meanwhile stays.
        """
        noted: list[os.DirEntry[str]] = []
        with contextlib.suppress(OSError), os.scandir(self._path) as found:
            noted = list(found)
        entry_ids = there()
        for each in noted:
            with contextlib.suppress(OSError):
                aside = "." in each.name and time.time() - each.stat().st_mtime < _WRITTEN_IN
                if each.name not in entry_ids and not aside:
                    os.unlink(each.path)

    def _file(self, entry_id: str) -> str:
        return os.path.join(self._path, entry_id)
