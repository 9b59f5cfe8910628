"""A plain reader of an HTTP server: into a file by copying, and hashed if that is wanted.

``python -m benchmarks.reader PORT PATH TOKEN FILE [HASH]`` gets PATH with the token and writes it
to FILE.  Prints, as JSON, the bytes, the seconds from the connection to the end and its CPU µs.
"""

import hashlib
import http.client
import json
import sys
import time

_BLOCK = 1 << 20


def main(port: int, path: str, token: str, name: str, algorithm: str = "") -> None:
    block = memoryview(bytearray(_BLOCK))
    digest = hashlib.new(algorithm) if algorithm else None
    started, cpu, taken = time.monotonic(), time.process_time(), 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"X-Auth-Token": token})
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"the answer is {answer.status}")
    with open(name, "wb", buffering=0) as file:
        while count := answer.readinto(block):
            file.write(block[:count])
            if digest is not None:
                digest.update(block[:count])
            taken += count
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    print(json.dumps({"bytes": taken, "seconds": seconds, "cpu_us": cpu * 1e6}))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
