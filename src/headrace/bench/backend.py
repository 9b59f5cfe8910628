"""What a service with a cache says of its reads from the store behind."""

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self

from headrace.client import Connection
from headrace.errors import ConnectionFailed, Error

_COUNTER = re.compile(
    r'headrace_cache_(lookups|fills|fetched_bytes)_total(?:{result="(.*)"})? (.*)'
)
_CACHE = "\nheadrace_cache_bytes "  # only a service that has one says how much is in it
_LATE = 3.0  # seconds for a fill to be counted whose last byte is out


@dataclass(frozen=True)
class Backend:
    """Counted since the service began: how downloads were found, the ends of fills, their bytes."""

    lookups: Counter[str]
    fills: int
    fetched: int

    @classmethod
    def of(cls, connection: Connection) -> Self | None:
        """As the service's metrics have it; None if they are not to be had, or it has no cache."""
        try:
            text = connection.request("GET", "/metrics").body.decode()
        except ConnectionFailed:
            raise
        except Error:
            return None
        if _CACHE not in text:
            return None
        lookups, sums = Counter[str](), Counter[str]()
        for line in text.splitlines():
            if found := _COUNTER.fullmatch(line):
                name, result, value = found[1], found[2], int(float(found[3]))
                sums[name] += value
                if name == "lookups":
                    lookups[result] += value
        return cls(lookups, sums["fills"], sums["fetched_bytes"])

    def since(self, connection: Connection, size: int) -> tuple[int, int]:
        """Reads of the store since this was counted, and their bytes, of an image of ``size``.

        What passed the cache by was read for one client, and counts as whole.
        """
        deadline = time.monotonic() + _LATE
        while True:
            now = Backend.of(connection) or self
            begun = now.lookups["miss"] - self.lookups["miss"]
            if now.fills - self.fills >= begun or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        passed_by = now.lookups["passed-by"] - self.lookups["passed-by"]
        return begun + passed_by, now.fetched - self.fetched + passed_by * size
