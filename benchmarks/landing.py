"""Receiving alone: a socket spliced into a file, with no digest, no database and no fsync.

``python -m benchmarks.landing DIRECTORY`` prints its port, then takes one PUT after another into
an unnamed file in DIRECTORY and prints the CPU µs of each.
"""

import fcntl
import os
import socket
import sys
import time
from pathlib import Path

_PIPE = 1 << 20
_BATCH = 512 << 10


def main(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            sock, _ = listener.accept()
            cpu = time.process_time()
            fd = os.open(directory, os.O_TMPFILE | os.O_RDWR)
            with sock:
                _land(sock, fd)
                print((time.process_time() - cpu) * 1e6, flush=True)
                sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            os.close(fd)


def _land(sock: socket.socket, fd: int) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(4096)
    head, _, body = head.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    landed = os.write(fd, body)
    outlet, inlet = os.pipe()
    fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, _PIPE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _BATCH)
    while landed < length:
        if length - landed < _BATCH:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        count = os.splice(sock.fileno(), inlet, min(length - landed, _PIPE))
        while count:
            moved = os.splice(outlet, fd, count, offset_dst=landed)
            landed += moved
            count -= moved
    os.close(outlet)
    os.close(inlet)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
