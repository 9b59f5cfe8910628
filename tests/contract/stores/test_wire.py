"""What stores have in common that are reached over the network."""

import contextlib
import socket

from headrace.stores.wire import Switch


def test_a_connection_that_has_ended_keeps_no_switch_from_being_turned_off() -> None:
    """Its thread may be about to say so."""
    switch = Switch()
    ended, (near, far) = socket.socket(), socket.socketpair()
    with contextlib.closing(near), contextlib.closing(far):
        with switch.through(ended), switch.through(near):
            ended.close()
            switch.turn_off()
        assert near.recv(1) == b""
