"""What a measurement costs, of the whole machine and of chosen processes, as netperf reports it.

Utilisation is in percent of all cores.
"""

import errno
import itertools
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace import __version__

_KB = 1024
_GIB = 1 << 30
_TICK = os.sysconf("SC_CLK_TCK")  # per second
_CPUCLOCK_SCHED = 2

# Which columns of /proc/PID/stat follow the name: the state is the first.
_CUTIME, _CSTIME = 13, 14

# How often a family is read again that changed while it was read.
_TRIES = 50

UNKNOWN = "unknown"
CONGESTION = "congestion control"


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU seconds of the whole machine since it booted, by kind, and how many cores are online.

    Guests' time is not named: the kernel counts it in ``user`` and ``nice`` as well.
    """

    user: float
    nice: float
    system: float
    idle: float
    iowait: float
    irq: float
    softirq: float
    steal: float
    cores: int

    @property
    def busy(self) -> float:
        """All but idle and iowait: a core that waits for a disk is free for other work."""
        return self.user + self.nice + self.system + self.irq + self.softirq + self.steal


def read_machine() -> Machine:
    """The machine's counters as /proc/stat has them now, in ticks (of 10 ms, as a rule)."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, idle, iowait, irq, softirq, steal = (
            int(ticks) / _TICK for ticks in next(stat).split()[1:9]
        )
        cores = sum(1 for _ in itertools.takewhile(lambda line: line.startswith("cpu"), stat))
    return Machine(user, nice, system, idle, iowait, irq, softirq, steal, cores)


def processes(pids: Iterable[int]) -> float:
    """CPU seconds used so far by processes, their living descendants and the children waited for.

    Nobody counts twice, and a process that vanishes meanwhile counts 0.  One that outlives its
    parent has left the family, unless ``pids`` names it.  The living count in nanoseconds, the
    children waited for in ticks.  The kernel must list children (CONFIG_PROC_CHILDREN).
    """
    # All that was waited for is read before any clock.  So a child whose clock can still be read
    # is not in its parent's sum, and one that went over to that sum has no clock any more.  In
    # between it would be in neither: hence once more, until nothing changed.
    roots = tuple(pids)
    family = _waited_for(roots)
    for _ in range(_TRIES):
        used = sum(_used(pid, waited) for pid, waited in family.items())
        again = _waited_for(roots)
        if again == family:
            break
        family = again
    return used


def _waited_for(pids: Iterable[int]) -> dict[int, int]:
    """Each process of the family, and the ticks that the children it waited for have used."""
    family: dict[int, int] = {}
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid in family:
            continue
        try:
            family[pid] = _children_ticks(pid)
            waiting += _children(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return family


def _children_ticks(pid: int) -> int:
    """cutime + cstime.  The name before them may hold anything, a ")" too: the last one ends it."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    fields = stat.rpartition(b")")[2].split()
    return int(fields[_CUTIME]) + int(fields[_CSTIME])


def _children(pid: int) -> list[int]:
    """Those of all its threads: a child belongs to the thread that made it."""
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            children = Path(f"/proc/{pid}/task/{thread}/children").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended
        found += map(int, children.split())
    return found


def _used(pid: int, waited: int) -> float:
    """CPU seconds of a living process and of the children it waited for, 0 if it is gone.

    By its CPU clock (clock_getcpuclockid(3)): the same sum as utime + stime of /proc/PID/stat, in
    nanoseconds.  A zombie has one as well, until it is waited for.
    """
    try:
        own = time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ESRCH):
            return 0.0
        raise
    return own / 1e9 + waited / _TICK


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used between a start and a stop, in CPU seconds but for ``seconds`` and ``cores``.

    ``seconds`` is the time that passed; ``busy``, ``softirq`` (hard interrupts included) and
    ``steal`` are the whole machine's, ``processes`` the chosen processes', None if none were.
    """

    seconds: float
    cores: int
    busy: float
    softirq: float
    steal: float
    processes: float | None

    @property
    def utilisation(self) -> float:
        """How busy the machine was, in percent of all cores."""
        return self._percent(self.busy)

    @property
    def softirq_percent(self) -> float:
        """What interrupts took, in percent of all cores."""
        return self._percent(self.softirq)

    @property
    def process_utilisation(self) -> float | None:
        """What the processes took, in percent of all cores."""
        return None if self.processes is None else self._percent(self.processes)

    def _percent(self, used: float) -> float:
        # The machine counts in ticks, the time that passed is exact: a full one may exceed 100.
        if self.seconds <= 0 or self.cores <= 0:
            return 0.0
        return min(100.0, max(0.0, 100 * used / (self.cores * self.seconds)))


class Meter:
    """Measures the machine and processes with their families (by default this one) in between.

    Without any (an empty ``pids``), their part of the usage is None.

    A process that ends without being waited for within the family takes its figures along.
    """

    __slots__ = ("_begin", "_pids")

    def __init__(self, pids: Iterable[int] | None = None) -> None:
        self._pids = (os.getpid(),) if pids is None else tuple(pids)
        self._begin: tuple[float, Machine, float] | None = None

    def start(self) -> None:
        """A measurement begins; one under way is forgotten."""
        # The processes last, and first in stop(): their time then lies within the machine's.
        self._begin = time.monotonic(), read_machine(), processes(self._pids)

    def stop(self) -> Usage:
        """What was used since start().  Raises RuntimeError if there was none."""
        if self._begin is None:
            raise RuntimeError("the meter was not started")
        used = processes(self._pids)
        machine = read_machine()
        now = time.monotonic()
        started, before, used_before = self._begin
        self._begin = None
        return Usage(
            seconds=now - started,
            cores=machine.cores,
            busy=machine.busy - before.busy,
            softirq=machine.softirq + machine.irq - before.softirq - before.irq,
            steal=machine.steal - before.steal,
            # Less than nothing when one has vanished.
            processes=max(0.0, used - used_before) if self._pids else None,
        )


def facts() -> dict[str, str]:
    """What figures were taken on; "unknown" where the system does not say."""
    return {
        "kernel": " ".join((platform.system(), platform.release(), platform.machine())),
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine() or UNKNOWN,
        "cores": str(read_machine().cores),
        "memory": _memory(),
        CONGESTION: _read("/proc/sys/net/ipv4/tcp_congestion_control") or UNKNOWN,
        "MTU": _mtu() or UNKNOWN,
        "Python": platform.python_version(),
        "Headrace": __version__,
        "boot": _read("/proc/sys/kernel/random/boot_id") or UNKNOWN,
    }


def one_machine(near: Mapping[str, str], far: Mapping[str, str]) -> bool:
    """Whether these are facts of the same machine, booted once."""
    boot = near.get("boot", UNKNOWN)
    return boot != UNKNOWN and boot == far.get("boot")


def _memory() -> str:
    kilobytes = _field("/proc/meminfo", "MemTotal").partition(" ")[0]
    return f"{int(kilobytes) * _KB / _GIB:.1f} GiB" if kilobytes else UNKNOWN


def _mtu() -> str:
    """Of each interface, the loopback first: "lo 65536, eth0 1500"."""
    files = Path("/sys/class/net").glob("*/mtu")
    mtus = {file.parent.name: _read(str(file)) for file in files}
    names = sorted(mtus, key=lambda name: (name != "lo", name))
    return ", ".join(f"{name} {mtus[name]}" for name in names if mtus[name])


def _field(path: str, name: str) -> str:
    """The value in the first line "name : value", empty if there is none."""
    for line in _read(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _read(path: str) -> str:
    """What a file of the kernel says, empty if it is not there."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
