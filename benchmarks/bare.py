"""The bare loop: the least a server in Python can do to send a file by sendfile.

``python -m benchmarks.bare DIRECTORY`` serves the files of DIRECTORY as images, their names as
ids, a thread a connection, and prints its port.  It checks nothing: it is a yardstick.
"""

import json
import os
import socket
import sys
import threading
from pathlib import Path

_MOST = 0x7FFF_F000  # what Linux moves in one call


def main(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve, args=(sock, directory), daemon=True).start()


def _serve(sock: socket.socket, directory: Path) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock:
        while head := _read_head(sock):
            path = head.split(b" ", 2)[1].decode()
            name, _, rest = path.removeprefix("/v2/images/").partition("/")
            if rest == "file":
                _send(sock, directory / name)
            elif path.startswith("/v2/images/"):
                size = (directory / name).stat().st_size
                _answer(sock, {"id": name, "status": "active", "size": size})
            else:
                _answer(sock, {"images": []})


def _answer(sock: socket.socket, found: object) -> None:
    body = json.dumps(found).encode()
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def _read_head(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        block = sock.recv(65536)
        if not block:
            return b""
        head += block
    return head


def _send(sock: socket.socket, path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
        sock.sendall(head, socket.MSG_MORE)
        sent = 0
        while sent < size:
            sent += os.sendfile(sock.fileno(), fd, sent, min(size - sent, _MOST))
    finally:
        os.close(fd)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
