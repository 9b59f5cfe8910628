"""The deadline of a request's head, on a real socket."""

import socket
import time

import pytest

from headrace.errors import HeaderTooLarge, PeerStalled
from headrace.server.connection import MAX_HEAD, Unreader


def test_the_deadline_holds_for_a_peer_that_never_falls_silent() -> None:
    """There is always another byte to read, and still it ends."""
    mine, peer = socket.socketpair()
    with mine, peer:
        peer.sendall(b"GET / HTTP/1.1\r\nX-A: " + b"a" * 1000)
        unreader = Unreader(mine, max_chunk=1)
        unreader.expect_head(0.2)
        assert unreader.chunk() == b"G"
        time.sleep(0.3)
        with pytest.raises(PeerStalled):
            unreader.chunk()


def test_the_deadline_holds_for_a_silent_peer() -> None:
    mine, peer = socket.socketpair()
    with mine, peer:
        unreader = Unreader(mine)
        unreader.expect_head(0.1)
        with pytest.raises(PeerStalled):
            unreader.chunk()


def test_the_head_is_bounded() -> None:
    """However little of it arrives at a time; each head anew, and a body not at all."""
    mine, peer = socket.socketpair()
    with mine, peer:
        unreader = Unreader(mine, max_chunk=4096)
        for _ in range(2):
            unreader.expect_head(10)
            for _ in range(MAX_HEAD // 4096):
                peer.sendall(bytes(4096))
                assert len(unreader.chunk()) == 4096
            with pytest.raises(HeaderTooLarge):
                unreader.chunk()
        unreader.deadline = None
        peer.sendall(b"body")
        assert unreader.chunk() == b"body"
