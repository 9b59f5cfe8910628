"""File systems served by the test itself, over /dev/fuse (linux/fuse.h, protocol 7.31)."""

import contextlib
import errno
import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Protocol

from tests.contract.transfer.ends import HANG, opened
from tests.needs import require, require_root

(LOOKUP, FORGET, GETATTR, SETATTR, UNLINK, OPEN, READ, WRITE) = (1, 2, 3, 4, 10, 14, 15, 16)
(RELEASE, FLUSH, INIT, CREATE, INTERRUPT, BATCH_FORGET) = (18, 25, 26, 35, 36, 42)
UNANSWERED = {FORGET, INTERRUPT, BATCH_FORGET}
SIZE_IS_SET = 1 << 3
DIRECT_IO = 1


class FileSystem(Protocol):
    mode: int
    """Of the root: S_IFREG for one that is a single file."""

    def answer(self, opcode: int, node: int, body: bytes) -> bytes:
        """The reply to a request; OSError for a refusal."""
        ...


def attributes(node: int, mode: int, size: int) -> bytes:
    """A struct fuse_attr_out, valid for a minute."""
    times = (0,) * 6
    attr = (node, size, -(-size // 512), *times, mode, 1, 0, 0, 0, 4096, 0)
    return struct.pack("=QII 6Q 10I", 60, 0, 0, *attr)


class OneFile:
    """A file with this content."""

    mode = stat.S_IFREG | 0o444

    def __init__(self, content: bytes) -> None:
        self._content = content

    def answer(self, opcode: int, node: int, body: bytes) -> bytes:
        if opcode == GETATTR:
            return attributes(node, self.mode, len(self._content))
        if opcode == OPEN:
            return struct.pack("=QII", 0, 0, 0)
        if opcode == READ:
            offset, count = struct.unpack_from("=QI", body, 8)
            return self._content[offset : offset + count]
        if opcode in {RELEASE, FLUSH}:
            return b""
        raise OSError(errno.ENOSYS, "not served")


class Liar:
    """A directory whose files take all that is written, and read as zeros."""

    mode = stat.S_IFDIR | 0o755
    _file = stat.S_IFREG | 0o600

    def __init__(self) -> None:
        self._size = 0

    def answer(self, opcode: int, node: int, body: bytes) -> bytes:
        if opcode == LOOKUP:
            raise OSError(errno.ENOENT, "nothing here")
        if opcode == CREATE:
            entry = struct.pack("=QQQQII", 2, 0, 60, 60, 0, 0)
            return entry + attributes(2, self._file, 0)[16:] + struct.pack("=QII", 0, DIRECT_IO, 0)
        if opcode == SETATTR:
            valid, size = struct.unpack_from("=I12xQ", body)
            if valid & SIZE_IS_SET:
                self._size = size
        if opcode in {GETATTR, SETATTR}:
            mode, size = (self.mode, 0) if node == 1 else (self._file, self._size)
            return attributes(node, mode, size)
        if opcode == WRITE:
            offset, count = struct.unpack_from("=QI", body, 8)
            self._size = max(self._size, offset + count)
            return struct.pack("=II", count, 0)
        if opcode == READ:
            offset, count = struct.unpack_from("=QI", body, 8)
            return bytes(max(0, min(count, self._size - offset)))
        if opcode in {UNLINK, RELEASE, FLUSH}:
            return b""
        raise OSError(errno.ENOSYS, "not served")


def serve(device: int, system: FileSystem) -> None:
    while True:
        try:
            request = os.read(device, 1 << 18)
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted
                return
            raise
        _, opcode, unique, node = struct.unpack_from("=IIQQ", request)
        if opcode in UNANSWERED:
            continue
        fault, reply = 0, b""
        try:
            if opcode == INIT:
                reply = struct.pack(
                    "=IIIIHHIIHHI28x", 7, 31, 1 << 17, 0, 8, 8, 1 << 17, 1, 32, 0, 0
                )
            else:
                reply = system.answer(opcode, node, request[40:])
        except OSError as error:
            fault = -(error.errno or errno.EIO)
        os.write(device, struct.pack("=IiQ", 16 + len(reply), fault, unique) + reply)


@contextlib.contextmanager
def mounted(system: FileSystem, directory: Path) -> Iterator[Path]:
    """Where under ``directory`` the file system can be found."""
    require_root()
    require(Path("/dev/fuse").exists(), "needs /dev/fuse")
    path = directory / "mounted"
    if stat.S_ISDIR(system.mode):
        path.mkdir()
    else:
        path.touch()
    with opened(device := os.open("/dev/fuse", os.O_RDWR)):
        options = f"fd={device},rootmode={system.mode:o},user_id=0,group_id=0"
        done = subprocess.run(
            ["mount", "-i", "-t", "fuse", "-o", options, "test", str(path)],
            pass_fds=[device],
            capture_output=True,
        )
        require(done.returncode == 0, "may not mount a FUSE file system")
        server = Thread(target=serve, args=(device, system), daemon=True)
        server.start()
        try:
            yield path
        finally:
            subprocess.run(["umount", str(path)], check=True)
            server.join(HANG)
