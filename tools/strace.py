"""Which system calls carried a body: strace's own count, not ours.

``command(strace, prefix)`` is what to put before a program's words; ``on_sockets(prefix)`` reads
what strace wrote and adds up, by system call, the bytes that went through sockets.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

CARRIERS = (
    "sendfile,splice,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,"
    "pread64,preadv,preadv2,pwrite64,pwritev,pwritev2,copy_file_range"
)

# A call that moved bytes, and its descriptors as -y shows them: sendfile(9<socket:[7]>, …) = 4096.
# Buffers are shown empty (-s 0), so a body cannot imitate this.
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<moved>[1-9]\d*)$")
_SOCKET = re.compile(r"\d+<(?:socket|TCP|TCPv6):\[")


@dataclass
class Carried:
    """Bytes and calls by the name of the system call."""

    bytes: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


def command(strace: str, prefix: Path) -> list[str]:
    """The words that run a program under strace, one file ``prefix.PID`` a thread."""
    shown = ["-y", "-s", "0", "-e", f"trace={CARRIERS}", "-e", "signal=none"]
    return [strace, "-ff", "-qq", *shown, "-o", str(prefix)]


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
