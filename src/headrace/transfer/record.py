"""What was moved by which way, and where a way is not to be used: the data plane's only state.

One per process, safe to use from many threads.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from threading import Lock

from headrace.transfer import linux

# Below this a file is read and sent: as cheap (8 µs either way at 64 KiB), and one packet less.
SMALL = 64 << 10

_OFF = {"off", "0", "no", "false"}


class How(StrEnum):
    """The ways bytes can move."""

    SENDFILE = "sendfile"
    SPLICE = "splice"
    COPY_FILE_RANGE = "copy_file_range"
    REFLINK = "reflink"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the process started.

    ``bytes`` and ``transfers`` are by the way that carried them; ``fallbacks`` are transfers that
    had to be copied, by the way that would have carried them and the reason: the name of an errno,
    of a network file system, or "self-test".
    """

    bytes: dict[How, int]
    transfers: dict[How, int]
    fallbacks: dict[tuple[How, str], int]


_lock = Lock()
_bytes: Counter[How] = Counter()
_transfers: Counter[How] = Counter()
_fallbacks: Counter[tuple[How, str]] = Counter()
_observers: list[Callable[[How, str], None]] = []
# By way and st_dev of both ends.  All sockets have one st_dev, all pipes another.
_refusals: dict[tuple[How, int, int], str] = {}

_forbidden = os.environ.get("HEADRACE_SENDFILE", "").lower() in _OFF
_enabled = linux.AVAILABLE and not _forbidden


def enable(zero_copy: bool) -> None:
    """Allow the ways that keep bytes out of user space, or have everything copied.

    ``HEADRACE_SENDFILE=off`` in the environment when this was imported has the last word.
    """
    global _enabled
    _enabled = zero_copy and linux.AVAILABLE and not _forbidden


def enabled() -> bool:
    """Whether other ways than copying may be used."""
    return _enabled


def counters() -> Counters:
    """A snapshot of the totals."""
    with _lock:
        return Counters(dict(_bytes), dict(_transfers), dict(_fallbacks))


def count(moved: dict[How, int]) -> None:
    """Note the end of a transfer that moved so many bytes by each way."""
    with _lock:
        _bytes.update(moved)
        _transfers[chief(moved)] += 1


def chief(moved: dict[How, int]) -> How:
    """The way that moved most."""
    return max(moved, key=moved.__getitem__, default=How.COPY)


def count_fallback(how: How, reason: str) -> None:
    """Note that a transfer had to be copied."""
    with _lock:
        _fallbacks[how, reason] += 1
    for observer in _observers:
        observer(how, reason)


def on_fallback(observer: Callable[[How, str], None]) -> None:
    """Have ``observer`` told of each transfer that has to be copied, in place of the last one."""
    _observers[:] = [observer]


def refuse(how: How, source: int, sink: int, reason: str) -> None:
    """Remember not to use a way between descriptors of these devices."""
    _refusals[how, source, sink] = reason


def refusal(how: How, source: int, sink: int) -> str | None:
    """Why a way is not to be used between descriptors of these devices, if it is not."""
    return _refusals.get((how, source, sink)) or _network(source) or _network(sink)


_network = cache(linux.network_file_system)
