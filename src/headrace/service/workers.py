"""Worker processes by name, and whether one of them is certainly dead."""

import os
import socket
from functools import lru_cache


def identity() -> str:
    """The name of this process, unique over machines, boots, containers and time."""
    return _identity_of(os.getpid())


@lru_cache(maxsize=1)
def _identity_of(pid: int) -> str:
    return f"{_machine()}/{pid}/{_start_time(pid)}"


def is_dead(worker: str) -> bool:
    """Whether ``worker`` ran on this machine and is certainly gone.

    False for workers elsewhere, in other containers (their process numbers mean nothing here),
    before the last boot under another host name, and for those that /proc hides: of them only the
    lease tells.
    """
    try:
        machine, pid, started = worker.rsplit("/", 2)
        return machine == _machine() and _start_time(int(pid)) not in (started, None)
    except ValueError:
        return False


@lru_cache(maxsize=1)
def _machine() -> str:
    """Host name, boot and process-number namespace: where a process number means one process."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    namespace = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{boot}/{namespace}"


def _start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; empty for one that is gone.

    None for one that is there, but not to be seen.  A zombie is gone: it holds no descriptor any
    more.
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The command, in parentheses, may hold spaces and parentheses itself.
            after_command = file.read().rpartition(")")[2].split()
    except ProcessLookupError:
        return ""
    except (FileNotFoundError, PermissionError):
        # A /proc mounted with hidepid denies the file of another user's process (1) or that there
        # is such a process at all (2).
        return None if _exists(pid) else ""
    return "" if after_command[0] in "ZX" else after_command[19]


def _exists(pid: int) -> bool:
    """Whether there is a process ``pid``, which a signal can tell even where /proc does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True
