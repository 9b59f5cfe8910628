"""Connections within one machine: nothing on their way has to be spared."""

import contextlib
import ipaddress
import socket

# Reno is in every kernel, and needs no privilege; others may not be allowed to be chosen.
_UNPACED = b"reno"


def unpace(sock: socket.socket, peer: str) -> None:
    """Have a TCP connection to ``peer``, an IP address, not be paced if that is this machine.

    Where BBR is the system's congestion control it sends by timers, which cost more than sending
    does when there is no network: 0.49 instead of 0.06 µs of CPU per KB, an eighth of the rate.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if not ipaddress.ip_address(peer).is_loopback:
            return
        chosen = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        if chosen.startswith(b"bbr"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _UNPACED)
