"""File systems of a network or a host are read and written by copying, whatever they say they can.

The one mounted here is FUSE, served by this test itself: a file that is its own file system.
"""

import errno
import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from headrace.transfer import linux
from headrace.transfer.engine import Extent, How, Stream, counters, pump
from tests.contract.transfer.ends import HANG, meanwhile, opened, tcp_pair
from tests.needs import require, require_root

CONTENT = os.urandom((1 << 20) + 5)

GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT, INTERRUPT = 3, 14, 15, 17, 18, 25, 26, 36


def answer(opcode: int, body: bytes) -> bytes | None:
    """What the kernel wants to know about a read-only file (linux/fuse.h, protocol 7.31)."""
    size = len(CONTENT)
    if opcode == INIT:
        return struct.pack("=IIIIHHIIHHI28x", 7, 31, 1 << 17, 0, 8, 8, 1 << 17, 1, 32, 0, 0)
    if opcode == GETATTR:
        attributes = struct.pack(
            "=QQQQQQIIIIIIIIII",
            *(
                1,
                size,
                -(-size // 512),
                0,
                0,
                0,
                0,
                0,
                0,
                stat.S_IFREG | 0o444,
                1,
                0,
                0,
                0,
                4096,
                0,
            ),
        )
        return struct.pack("=QII", 60, 0, 0) + attributes
    if opcode == OPEN:
        return struct.pack("=QII", 0, 0, 0)
    if opcode == READ:
        offset, count = struct.unpack_from("=QI", body, 8)
        return CONTENT[offset : offset + count]
    if opcode in {RELEASE, FLUSH}:
        return b""
    return None


def serve(device: int) -> None:
    while True:
        try:
            request = os.read(device, 1 << 18)
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted
                return
            raise
        _, opcode, unique = struct.unpack_from("=IIQ", request)
        if opcode == INTERRUPT:
            continue
        reply = answer(opcode, request[40:])
        fault = -errno.ENOSYS if reply is None else 0
        data = reply or b""
        os.write(device, struct.pack("=IiQ", 16 + len(data), fault, unique) + data)


@pytest.fixture
def fuse_file(tmp_path: Path) -> Iterator[Path]:
    require_root()
    require(Path("/dev/fuse").exists(), "needs /dev/fuse")
    path = tmp_path / "image"
    path.touch()
    with opened(device := os.open("/dev/fuse", os.O_RDWR)):
        options = f"fd={device},rootmode=100444,user_id=0,group_id=0"
        mounted = subprocess.run(
            ["mount", "-i", "-t", "fuse", "-o", options, "test", str(path)],
            pass_fds=[device],
            capture_output=True,
        )
        require(mounted.returncode == 0, "may not mount a FUSE file system")
        server = Thread(target=serve, args=(device,), daemon=True)
        server.start()
        yield path
        subprocess.run(["umount", str(path)], check=True)
        server.join(HANG)


def test_a_file_of_fuse_is_copied(fuse_file: Path) -> None:
    fallen = (How.SENDFILE, "fuse")
    before = counters().fallbacks.get(fallen, 0)
    ours, theirs = tcp_pair()
    got: list[bytes] = []

    def receive() -> None:
        with theirs.makefile("rb") as stream:
            got.append(stream.read())

    with opened(fd := os.open(fuse_file, os.O_RDONLY)), theirs, meanwhile(receive), ours:
        moved = pump(Extent(fd, 0, len(CONTENT)), Stream(ours.fileno(), stall=HANG))
    assert got == [CONTENT]
    assert moved.how is How.COPY
    assert counters().fallbacks[fallen] == before + 1


@pytest.mark.parametrize("path", ["/proc", "/dev/shm"])
def test_other_file_systems_are_trusted(path: str) -> None:
    require(Path(path).exists(), f"needs {path}")
    assert linux.network_file_system(os.stat(path).st_dev) is None
