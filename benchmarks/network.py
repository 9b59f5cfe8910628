"""A loopback of one's own, under another congestion control.

BBR, where it is the system's, paces what it sends by timers, on loopback too, which there costs
more than the sending itself.  So figures of loopback say under which one they were measured.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_SETTING = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# Does not pace, and is the one that any kernel has and allows in a network of one's own.
_UNPACED = "reno"
_CLONE_NEWNET = 0x4000_0000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def congestion_control() -> str:
    """The congestion control of new connections."""
    return _SETTING.read_text(encoding="ascii").strip()


def alternatives() -> list[str]:
    """The system's congestion control; if that paces (BBR), one that does not as well, for root."""
    system = congestion_control()
    return [system, _UNPACED] if system.startswith("bbr") and os.geteuid() == 0 else [system]


@contextlib.contextmanager
def under(name: str) -> Iterator[None]:
    """Have this thread, and the processes it starts, use a network of their own with ``name``.

    Nothing happens when that is the congestion control already.  Needs root: unshare(2).
    """
    if name == congestion_control():
        yield
        return
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _call("unshare", _CLONE_NEWNET)
        try:
            _raise_loopback()
            _SETTING.write_text(name, encoding="ascii")
            yield
        finally:
            _call("setns", before, _CLONE_NEWNET)
    finally:
        os.close(before)


def _raise_loopback() -> None:
    with socket.socket() as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _call(function: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
