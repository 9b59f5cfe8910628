"""A receiver that discards in the kernel: a client that takes as little CPU from the server's
machine as any can.

``python -m benchmarks.sink PORT PATH STREAMS`` gets PATH over STREAMS connections at once and
prints, as JSON, the body's bytes in all and the seconds it took.
"""

import json
import mmap
import select
import socket
import sys
import time

# MSG_TRUNC drops what a TCP socket holds, up to the buffer's length, and never touches the buffer.
_MOST = 64 << 20


def main(port: int, path: str, streams: int) -> None:
    waste = mmap.mmap(-1, _MOST)
    started = time.monotonic()
    total = 0
    with select.epoll() as poll:
        going = {
            stream.fileno(): stream for stream in (_Stream(port, path) for _ in range(streams))
        }
        for fd in going:
            poll.register(fd, select.EPOLLIN)
        while going:
            for fd, _ in poll.poll():
                stream = going[fd]
                if stream.head_is_missing:
                    total += stream.receive_head()
                else:
                    stream.discard(waste)
                if stream.missing == 0:
                    del going[fd]
                    stream.close()
    print(json.dumps({"bytes": total, "seconds": time.monotonic() - started}))


class _Stream:
    """One connection and what it waits for; ``missing`` is of the body, -1 before its head."""

    def __init__(self, port: int, path: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        self._sock.setblocking(False)
        self._head = b""
        self.missing = -1

    @property
    def head_is_missing(self) -> bool:
        return self.missing < 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def receive_head(self) -> int:
        """Take what has come of the answer's head; once it is whole, the body's length."""
        block = self._sock.recv(4096)
        if not block:
            sys.exit("the connection ended before the answer")
        self._head += block
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return 0
        length = _length(head)
        self.missing = length - len(body)
        return length

    def discard(self, waste: mmap.mmap) -> None:
        count = self._sock.recv_into(waste, min(self.missing, _MOST), socket.MSG_TRUNC)
        if not count:
            sys.exit(f"the body ended {self.missing} bytes early")
        self.missing -= count


def _length(head: bytes) -> int:
    status, *fields = head.split(b"\r\n")
    if status.split()[1] != b"200":
        sys.exit(f"the answer is {status.decode()}")
    for field in fields:
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    sys.exit("the answer has no length")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
