"""Which system calls carried a body: strace's own count, not ours.

``command(strace, prefix)`` is what to put before a program's words; ``on_sockets(prefix)`` reads
what strace wrote and adds up, by system call, the bytes that went through sockets;
``counting(prefix)`` does so for what a program that goes on running did meanwhile, ``on_file`` for
the files of a name.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CARRIERS = (
    "sendfile,splice,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,"
    "pread64,preadv,preadv2,pwrite64,pwritev,pwritev2,copy_file_range"
)

# A call that moved bytes, and its descriptors as -y shows them: sendfile(9<socket:[7]>, …) = 4096.
# Buffers are shown empty (-s 0), so a body cannot imitate this.
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<moved>[1-9]\d*)$")
QUIET = 10.0  # seconds that a program may take to become quiet
_SOCKET = re.compile(r"\d+<(?:socket|TCP|TCPv6):\[")


@dataclass
class Carried:
    """Bytes and calls by the name of the system call."""

    bytes: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


def command(strace: str, prefix: Path) -> list[str]:
    """The words that run a program under strace, one file ``prefix.PID`` a thread."""
    shown = ["-y", "-s", "0", "-e", f"trace={CARRIERS}", "-e", "signal=none"]
    # A filter in the kernel, so that no other call stops the program.
    return [strace, "-ff", "--seccomp-bpf", "-qq", *shown, "-o", str(prefix)]


def on_sockets(prefix: Path) -> Carried:
    """What went through sockets; of a splice only the half that touches the socket."""
    carried = Carried()
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        with path.open(errors="replace") as lines:
            for line in lines:
                call = _CALL.match(line.rstrip())
                if call and _SOCKET.search(call["arguments"]):
                    carried.bytes[call["name"]] += int(call["moved"])
                    carried.calls[call["name"]] += 1
    return carried


def on_file(prefix: Path, name: str) -> Counter[str]:
    """Bytes that went from or to the files of this name (a regular expression), by system call.

    But for those that are read one at a time, to see whether a file is in memory.
    """
    settle(prefix)
    call = re.compile(rf"(\w+)\(.*<[^>]*/{name}>.* = (\d+)$")
    moved: Counter[str] = Counter()
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        with path.open(errors="replace") as lines:
            for found in filter(None, map(call.match, lines)):
                if found[1] != "preadv2" or int(found[2]) > 1:
                    moved[found[1]] += int(found[2])
    return moved


@contextmanager
def counting(prefix: Path) -> Iterator[Counter[str]]:
    """What goes through a running program's sockets meanwhile: bytes by system call."""
    before = on_sockets(prefix).bytes
    found: Counter[str] = Counter()
    yield found
    settle(prefix)
    found.update(on_sockets(prefix).bytes - before)


def settle(prefix: Path) -> None:
    """Waits until every thread sleeps.

    A peer has its bytes before the call that sent them returns, and strace writes a call down
    when it returns: until then the thread runs, or is stopped for strace.
    """
    until = time.monotonic() + QUIET
    while time.monotonic() < until:
        if all(_sleeps(path.suffix[1:]) for path in prefix.parent.glob(f"{prefix.name}.*")):
            return
        time.sleep(0.01)


def _sleeps(thread: str) -> bool:
    """Whether a thread sleeps, or is no more."""
    try:
        stat = Path("/proc", thread, "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "SZX"
