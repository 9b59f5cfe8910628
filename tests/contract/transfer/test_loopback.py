"""Local connections are not paced, others are left alone."""

import socket
from collections.abc import Iterator

import pytest

from headrace.transfer.loopback import unpace
from tests.needs import require


def chosen(sock: socket.socket) -> str:
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode()


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener, \
            socket.create_connection(listener.getsockname()) as connected:  # fmt: skip
        yield connected


def bbr(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
    except OSError:
        require(False, "needs a kernel that lets BBR be chosen")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3", "::1"])
def test_a_local_connection_is_not_paced(sock: socket.socket, peer: str) -> None:
    bbr(sock)
    unpace(sock, peer)
    assert chosen(sock) == "reno"


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8::1", "", "nobody"])
def test_a_remote_one_is_left_alone(sock: socket.socket, peer: str) -> None:
    bbr(sock)
    unpace(sock, peer)
    assert chosen(sock) == "bbr"


def test_what_does_not_pace_is_left_alone(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    unpace(sock, "127.0.0.1")
    assert chosen(sock) == "reno"


def test_other_sockets_are_left_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        unpace(ours, "127.0.0.1")
