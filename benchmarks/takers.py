"""Clients that take as fast as they can, all in one process.

``python -m benchmarks.takers PORT PATH COUNT`` has COUNT connections get PATH once, from the same
moment on, and drops in the kernel what they get.  Prints, as JSON, the bytes that all got together,
the seconds it took, and in how many of them half had their first byte.
"""

import json
import select
import socket
import sys
import time

_MOST = 1 << 20
_GUARD = 120.0  # seconds without a byte; a hang guard


def main(port: int, path: str, count: int) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    waste = bytearray(_MOST)
    clients = {}
    taken, waited = 0, []
    started = time.monotonic()
    with select.epoll() as poll:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), _GUARD)
            sock.sendall(request.encode())
            clients[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        begun = set()
        while clients:
            ready = poll.poll(_GUARD)
            if not ready:
                sys.exit(f"{len(clients)} clients wait for ever")
            for fd, _ in ready:
                got = clients[fd].recv_into(waste, _MOST, socket.MSG_TRUNC)
                if fd not in begun:
                    begun.add(fd)
                    waited.append(time.monotonic() - started)
                taken += got
                if not got:
                    clients.pop(fd).close()
    waited.sort()
    found = {
        "bytes": taken,
        "seconds": time.monotonic() - started,
        "waited": waited[len(waited) // 2],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
