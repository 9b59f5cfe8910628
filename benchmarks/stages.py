"""The stages of an upload, each alone: what the best arrangement of them could reach."""

import ctypes
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from benchmarks.row import KIB, MB, MIB

_BUFFER = 256 * KIB
_OVER_MEMORY = 256 * MIB
_SYNC_FILE_RANGE_WRITE = 2


@dataclass(frozen=True)
class Stages:
    """µs per KB: of CPU, but for ``disk``, which is time (0 where there is no disk).

    ``client`` sends a warm file by sendfile, ``landing`` splices it into a file; ``pread`` has the
    digests read from the page cache, by algorithm, ``memory`` from one buffer.
    """

    client: float
    landing: float
    disk: float
    pread: dict[str, float]
    memory: dict[str, float]

    def ideal(self, algorithms: Sequence[str]) -> float:
        """MB/s of all stages overlapped: the slowest alone, or all of them on all cores."""
        worked = [self.client, self.landing, *(self.pread[name] for name in algorithms)]
        limit = max(*worked, self.disk, sum(worked) / (os.cpu_count() or 1))
        return KIB / MB / (limit / 1e6)

    def digests(self, algorithms: Sequence[str]) -> float:
        """CPU of the digests over memory, µs/KB."""
        return sum(self.memory[name] for name in algorithms)


def measure(
    landing: processes.Yardstick, source: Path, algorithms: Sequence[str], disk: Path | None
) -> Stages:
    """Measure every stage with ``source``, a warm file; ``disk`` is a directory on a disk."""
    size = source.stat().st_size
    sent = processes.result("sender", str(landing.port), "/", source)
    return Stages(
        client=sent["cpu_us"] / (size / KIB),
        landing=float(landing.output.readline()) / (size / KIB),
        disk=0.0 if disk is None else _write(disk, size),
        pread={name: _digest(source, name) for name in algorithms},
        memory={name: digest_memory(name) for name in algorithms},
    )


def _digest(source: Path, algorithm: str) -> float:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    buffer = bytearray(_BUFFER)
    view = memoryview(buffer)
    started = time.thread_time()
    with source.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return (time.thread_time() - started) * 1e6 / (source.stat().st_size / KIB)


def digest_memory(algorithm: str) -> float:
    """CPU of hashing one buffer again and again, µs/KB."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    block = os.urandom(MIB)
    started = time.thread_time()
    for _ in range(_OVER_MEMORY // MIB):
        digest.update(block)
    return (time.thread_time() - started) * 1e6 / (_OVER_MEMORY / KIB)


def _write(directory: Path, size: int) -> float:
    """Time per KB until ``size`` new bytes are durable, write-back running from the start."""
    sync_file_range = ctypes.CDLL(None).sync_file_range
    sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    block = os.urandom(MIB)
    fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY)
    try:
        started = time.monotonic()
        for offset in range(0, size, MIB):
            written = os.pwrite(fd, block[: size - offset], offset)
            sync_file_range(fd, offset, written, _SYNC_FILE_RANGE_WRITE)
        os.fsync(fd)
        return (time.monotonic() - started) * 1e6 / (size / KIB)
    finally:
        os.close(fd)
