"""A sender that uploads by sendfile and does nothing else, the same for every server.

``python -m benchmarks.sender PORT PATH FILE`` puts FILE to PATH and prints, as JSON, the seconds
from the connection to the answer and the CPU µs of it.
"""

import json
import os
import socket
import sys
import time

_MOST = 0x7FFF_F000  # what Linux moves in one call


def main(port: int, path: str, file: str) -> None:
    fd = os.open(file, os.O_RDONLY)
    size = os.fstat(fd).st_size
    started, cpu = time.monotonic(), time.process_time()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        head = [
            f"PUT {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {size}",
        ]
        sock.sendall("\r\n".join([*head, "", ""]).encode())
        sent = 0
        while sent < size:
            sent += os.sendfile(sock.fileno(), fd, sent, min(size - sent, _MOST))
        answer = sock.recv(4096)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    if not answer.startswith(b"HTTP/1.1 20"):
        sys.exit(f"the answer is {answer[:200]!r}")
    print(json.dumps({"bytes": size, "seconds": seconds, "cpu_us": cpu * 1e6}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
