"""``python -m benchmarks.asker PORT PATH COUNT``: a client that asks one thing again and again.

It says "ready", waits for a line on stdin, and then prints how many seconds it took.
"""

import http.client
import sys
import time


def main(port: int, path: str, count: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    for _ in range(count):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"GET {path}: {answer.status}")
    print(time.monotonic() - started)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
