"""Filling a file as a cache does, for tests of what is sent of it meanwhile.

``python -m tests.fills PATH CONTENT BLOCK PAUSE END`` fills PATH with what the file CONTENT has, a
BLOCK of bytes every PAUSE seconds, and then does as END says: verify, fail, or abandon.  It says
"begun" when the file is there.
"""

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Self


class Fill:
    """A file under way at ``path``; one that is there already is taken over from where it is.

    To be ended by ``verify``, ``fail`` or ``abandon``, which is what the end of a process does.
    """

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    @property
    def landed(self) -> int:
        return os.fstat(self.fd).st_size

    def land(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fd, data) :]

    def land_slowly(self, data: bytes, block: int, pause: float) -> None:
        for start in range(0, len(data), block):
            time.sleep(pause)
            self.land(data[start : start + block])

    def verify(self) -> None:
        os.fchmod(self.fd, 0o400)
        self.abandon()

    def fail(self) -> None:
        os.fchmod(self.fd, 0)
        self.abandon()

    def abandon(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def main(path: str, content: str, block: str, pause: str, end: str) -> None:
    fill = Fill(Path(path))
    print("begun", flush=True)
    fill.land_slowly(Path(content).read_bytes()[fill.landed :], int(block), float(pause))
    getattr(fill, end)()


if __name__ == "__main__":
    main(*sys.argv[1:])
