"""Chunked framing: whatever the chunks and however the bytes arrive, the same body comes out."""

import socket
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UploadIncomplete
from headrace.server.chunked import MAX_LINE, MAX_TRAILERS, Chunks
from headrace.transfer.engine import Stream


class Peer:
    """What a client sent: ``held`` was read ahead, the rest waits in a socket."""

    def __init__(self, held: bytes, waiting: bytes, segments: list[int]) -> None:
        self._near, far = socket.socketpair()
        with far:
            far.sendall(waiting)
        self._segments = segments
        self.chunks = Chunks(self._receive, self._near.fileno(), None, held)

    def _receive(self, size: int) -> bytes:
        most = self._segments.pop() if self._segments else size
        data = self._near.recv(min(size, most))
        if not data:
            raise EOFError
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._near.close()

    def body(self) -> bytes:
        parts = []
        for piece in self.chunks:
            if isinstance(piece, Stream):
                assert piece.length is not None
                parts.append(self._near.recv(piece.length, socket.MSG_WAITALL))
            else:
                assert isinstance(piece, bytes)
                parts.append(piece)
        return b"".join(parts)

    def left(self) -> bytes:
        return self.chunks.held + self._near.recv(1 << 20)


def framed(chunks: list[bytes]) -> bytes:
    return b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)


bodies = st.lists(st.one_of(st.binary(max_size=20), st.binary(min_size=4000, max_size=4200)))


@given(bodies, st.binary(max_size=50), st.integers(0), st.lists(st.integers(1, 30), max_size=50))
def test_body_and_what_follows_it(
    chunks: list[bytes], following: bytes, cut: int, segments: list[int]
) -> None:
    wire = framed(chunks) + b"0\r\nX-T: 1\r\n\r\n" + following
    cut %= len(wire) + 1
    with Peer(wire[:cut], wire[cut:], segments) as peer:
        assert peer.body() == b"".join(chunks)
        assert peer.chunks.trailers == b"X-T: 1"
        assert peer.chunks.moved == sum(map(len, chunks))
        assert peer.left() == following


def test_equal_chunks_are_left_to_the_engine_whole() -> None:
    wire = framed([bytes(65536)] * 3) + b"0\r\n\r\n"
    received = memoryview(wire)
    sizes = []

    def receive(size: int) -> bytes:
        nonlocal received
        data, received = bytes(received[:size]), received[size:]
        sizes.append(len(data))
        return data

    lengths = []
    for piece in Chunks(receive, 0, None, b""):
        length = piece.length if isinstance(piece, Stream) else 0
        assert length is not None
        received = received[length:]
        lengths.append(length)
    assert lengths[-2:] == [65536, 65536]
    assert sizes[1:] == [9, 9, 7]  # CRLF, size, CRLF: one read a chunk, not a byte of data


@pytest.mark.parametrize(
    "wire",
    [
        b"1;" + b"a" * MAX_LINE + b"\r\n",
        b"0\r\n" + b"a: b\r\n" * (MAX_TRAILERS // 6 + 1) + b"\r\n",
        b"0\r\n" + b"a" * (MAX_TRAILERS + 2),
        b"1\n",
        b"\n",
        b"1\r\nab\r\n",
    ],
)
def test_bounds_and_line_ends(wire: bytes) -> None:
    with Peer(b"", wire, []) as peer, pytest.raises(UploadIncomplete):
        peer.body()
