"""A crowd of slow clients in a process of its own.

``python -m benchmarks.crowd PORT PATH,… COUNT RATE PACE`` has COUNT connections get a PATH each, in
turn, of which PACE are begun a second (0: all at once), and each take RATE bytes a second.  Prints,
as JSON lines, the seconds each waited for its first byte, once all have it; and after a line on
stdin how many bytes each took since then, the seconds, and how many failed.
"""

import contextlib
import json
import mmap
import resource
import select
import socket
import sys
import time

_TICKS = 50  # a second
_GUARD = 120.0


class _Client:
    """One slow download."""

    def __init__(self, port: int, path: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), _GUARD)
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        self.sock.setblocking(False)
        self.asked = time.monotonic()
        self.waited = 0.0
        self.taken = 0
        self.failed = False

    def take(self, waste: mmap.mmap, most: int) -> None:
        """Take what is there, dropped in the kernel."""
        try:
            count = self.sock.recv_into(waste, most, socket.MSG_TRUNC)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        self.taken += count
        self.failed = self.failed or not count


def main(port: int, paths: list[str], count: int, rate: int, pace: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    waste = mmap.mmap(-1, max(rate, mmap.PAGESIZE))
    clients = _begin(port, paths, count, pace, waste)
    _print(waited=sorted(client.waited for client in clients))
    for client in clients:
        client.taken = 0
    started = time.monotonic()
    _take_slowly(clients, rate, waste)
    _print(
        taken=sorted(client.taken for client in clients),
        seconds=time.monotonic() - started,
        failed=sum(client.failed for client in clients),
    )


def _begin(port: int, paths: list[str], count: int, pace: int, waste: mmap.mmap) -> list[_Client]:
    """Connect all, and wait for each one's first byte."""
    started = time.monotonic()
    clients: list[_Client] = []
    missing: dict[int, _Client] = {}
    with select.epoll() as poll:
        while len(clients) < count or missing:
            if time.monotonic() - started > _GUARD + (count / pace if pace else 0):
                sys.exit(f"{len(missing)} of {len(clients)} clients got no answer")
            due = count if not pace else int((time.monotonic() - started) * pace) + 1
            for _ in range(min(due, count) - len(clients)):
                client = _Client(port, paths[len(clients) % len(paths)])
                clients.append(client)
                missing[client.sock.fileno()] = client
                poll.register(client.sock, select.EPOLLIN)
                if pace:
                    break  # whoever has an answer is not to wait for those that come
            for fd, _ in poll.poll(0.002 if len(clients) < count else 1.0):
                client = missing.pop(fd)
                client.waited = time.monotonic() - client.asked
                client.take(waste, 4096)
                poll.unregister(fd)
    return clients


def _take_slowly(clients: list[_Client], rate: int, waste: mmap.mmap) -> None:
    """Have each take ``rate`` bytes once a second, until something comes on stdin."""
    started, tick = time.monotonic(), 0
    while True:
        for client in clients[tick % _TICKS :: _TICKS]:
            if not client.failed:
                client.take(waste, rate)
        tick += 1
        left = max(0.0, started + tick / _TICKS - time.monotonic())
        if select.select([sys.stdin], [], [], left)[0]:
            return


def _print(**found: object) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(int(sys.argv[1]), sys.argv[2].split(","), *map(int, sys.argv[3:6]))
