"""Which system calls carried the bytes, as strace saw them."""

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.needs import require_strace

MIB = 1 << 20
BODY = 64 * MIB

ZERO_COPY = {"sendfile", "splice", "copy_file_range"}
COPYING = {
    *("read", "pread64", "readv", "preadv", "preadv2", "recvfrom", "recvmsg"),
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg"),
}

# One body through all that the main job needs: a file sent, received into a file, piped into a
# socket and from there to another file, and copied.
SCRIPT = f"""
import os, socket, sys, tempfile, threading
from headrace.transfer.engine import Extent, FileSink, Stream, pump

BODY = {BODY}
directory = sys.argv[1]

def file(content=b""):
    made = tempfile.TemporaryFile(dir=directory, buffering=0)
    made.truncate(len(content) and BODY)
    return made

def tcp():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]

def both(source, sink, source2, sink2):
    thread = threading.Thread(target=pump, args=(source, sink))
    thread.start()
    moved = pump(source2, sink2, progress=lambda total: None)
    thread.join()
    assert moved.bytes == BODY

def same(one, other):
    assert os.fstat(one.fileno()).st_size == os.fstat(other.fileno()).st_size == BODY
    for at in range(0, BODY, BODY // 8):
        assert os.pread(one.fileno(), 4096, at) == os.pread(other.fileno(), 4096, at)

first, second, third, fourth = file(b"x"), file(), file(), file()
for at in range(0, BODY, BODY // 8):
    os.pwrite(first.fileno(), os.urandom(4096), at)

ours, theirs = tcp()
extent = Extent(os.dup(first.fileno()), 0, BODY)
both(extent, Stream(ours.fileno()), Stream(theirs.fileno(), BODY, 60), FileSink(second.fileno()))
same(first, second)

outlet, inlet = os.pipe()
def feed():
    pump(extent, Stream(inlet, stall=60))
    os.close(inlet)
feeder = threading.Thread(target=feed)
feeder.start()
both(Stream(outlet), Stream(ours.fileno()), Stream(theirs.fileno(), BODY), FileSink(third.fileno()))
feeder.join()
same(first, third)

pump(extent, FileSink(fourth.fileno()))
same(first, fourth)
"""


@dataclass
class Traced:
    """Bytes carried and calls made, by system call."""

    bytes: Counter[str]
    calls: Counter[str]


def traced(directory: Path, **environment: str) -> Traced:
    log = directory / "trace"
    names = ",".join(sorted(ZERO_COPY | COPYING))
    strace = [require_strace(), "-f", "-e", f"trace={names}", "-s", "0", "-o", str(log)]
    subprocess.run(
        [*strace, sys.executable, "-c", SCRIPT, str(directory)],
        env=os.environ | environment,
        check=True,
        timeout=120,
    )
    found = Traced(Counter(), Counter())
    # A call that another thread's interrupts in the log is resumed on a line of its own.
    pattern = re.compile(r"\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>).* = (\d+)$")
    for line in log.read_text().splitlines():
        if done := pattern.match(line):
            found.bytes[done[1]] += int(done[2])
            found.calls[done[1]] += 1
    return found


def test_the_kernel_carries_the_bytes(tmp_path: Path) -> None:
    seen = traced(tmp_path)
    assert seen.bytes["sendfile"] == BODY
    # socket → pipe → file twice, file → pipe and pipe → socket once.
    assert seen.bytes["splice"] == 6 * BODY
    # Nothing but what Python reads to start, and what the script compares.
    assert sum(seen.bytes[call] for call in COPYING - {"read"}) <= MIB
    assert seen.bytes["read"] <= 8 * MIB


def test_with_the_kill_switch_python_does(tmp_path: Path) -> None:
    seen = traced(tmp_path, HEADRACE_SENDFILE="off")
    assert not {call for call in ZERO_COPY if seen.calls[call]}
    assert sum(seen.bytes[call] for call in COPYING) >= 6 * BODY


@pytest.mark.parametrize("call", sorted(ZERO_COPY - {"copy_file_range"}))
def test_a_call_carries_many_bytes(tmp_path: Path, call: str) -> None:
    """Python pays for calls; 64 KiB each would be no better than copying."""
    seen = traced(tmp_path)
    assert seen.bytes[call] / seen.calls[call] > 128 << 10
