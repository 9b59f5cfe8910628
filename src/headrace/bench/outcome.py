"""What one measurement found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.bench.cpu import Usage
from headrace.bench.spec import Spec

_KB = 1024


@dataclass(frozen=True)
class Buffers:
    """Bytes of a socket's send and receive buffer: asked for, at the start, at the end."""

    asked: int | None
    send: tuple[int, int]
    receive: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class End:
    """One end; None is what it does not do, or what is not known of it.

    Sizes are in bytes a call; those and the calls are of sending and receiving the data.
    """

    usage: Usage | None = None
    buffers: Buffers | None = None
    congestion: str | None = None
    send_size: int | None = None
    send_calls: int | None = None
    receive_size: int | None = None
    receive_calls: int | None = None

    def measured(self, figure: Callable[[Usage], float | None]) -> float | None:
        """A figure of its CPU, None where that is not known."""
        return None if self.usage is None else figure(self.usage)


@dataclass(frozen=True, kw_only=True)
class Storm:
    """What the clients of a storm have seen, and what it took from behind the service.

    ``firsts`` and ``lasts`` are the seconds until each had its first byte and, of those that got
    everything, the last.  ``failure`` is why others did not, ``warm`` why the cache was not empty;
    ``reads`` and ``read_bytes`` are of the store, None where the service does not say.  ``rate`` is
    what the same clients got afterwards, in bytes a second.
    """

    firsts: Sequence[float]
    lasts: Sequence[float]
    failure: str | None
    warm: str | None
    reads: int | None
    read_bytes: int | None
    rate: float
    store: Usage | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One measurement: what went over in ``seconds``, and both ends."""

    spec: Spec
    bytes: int
    transactions: int
    seconds: float
    mss: int
    local: End
    remote: End
    image_size: int | None = None
    storm: Storm | None = None

    @property
    def rate(self) -> float:
        """Bytes per second; transactions for TCP_RR."""
        done = self.transactions if self.spec.counts_transactions else self.bytes
        return done / self.seconds

    def demand(self, used: float | None) -> float | None:
        """Service demand of ``used`` CPU seconds: µs per KB of 1024 bytes, or per transaction."""
        if used is None:
            return None
        units = self.transactions if self.spec.counts_transactions else self.bytes / _KB
        return used * 1e6 / units if units else 0.0
