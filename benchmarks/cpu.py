"""CPU time of other processes, in µs, as exact as the scheduler knows it."""

import os
import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")

# What a server still does after its answer arrived (closing, logging) belongs to the request.
_SETTLE = 0.05

_CPUCLOCK_SCHED = 2
_TICK = os.sysconf("SC_CLK_TCK")


class Server(Protocol):
    """A running server, whatever it is made of."""

    @property
    def port(self) -> int: ...

    def pids(self) -> list[int]:
        """Its processes: the main one, its workers and theirs."""
        ...


def used(pids: Iterable[int]) -> float:
    """CPU that processes have used so far, user and system, all threads that ever were, in µs.

    By each process's CPU clock (clock_getcpuclockid(3)): the same sum as utime + stime of
    /proc/PID/stat, in nanoseconds instead of ticks of 10 ms.
    """
    return sum(time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED) for pid in pids) / 1000


def during(server: Server, act: Callable[[], T]) -> tuple[T, float]:
    """What ``act`` returns, and the CPU in µs that the server's processes spent meanwhile."""
    pids = server.pids()
    before = used(pids)
    result = act()
    time.sleep(_SETTLE)
    if server.pids() != pids:
        raise RuntimeError("a process of the server ended or began while it was measured")
    return result, used(pids) - before


def busy() -> float:
    """CPU seconds that the whole machine has been busy since it started, interrupts included."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, stat.readline().split()[1:9]
        )
    return (user + nice + system + irq + softirq + steal) / _TICK
