"""Where a way is refused, the bytes are copied; it is tried once and counted always.

The memory of refusals and the pool of pipes are the process's, so each test runs one of its own.
The kernel refuses for real: files of /proc that it neither sends nor splices into, two file systems
between which it does not copy, a process with no descriptors left.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import errors
from headrace.transfer import engine, linux
from tests.contract.transfer.ends import SINKS, file_with, opened
from tests.contract.transfer.fuse import Liar, OneFile, mounted
from tests.needs import require, require_root, require_strace

PRELUDE = """
import json, os, resource, socket, sys, tempfile, threading
from headrace.transfer import engine, linux
from headrace.transfer.engine import Extent, FileSink, Stream, pump

def report(**more):
    counters = engine.counters()
    print(json.dumps({
        "transfers": {str(how): count for how, count in counters.transfers.items()},
        "fallbacks": {f"{how} {why}": count for (how, why), count in counters.fallbacks.items()},
    } | more))
"""


def run(script: str, *under: str, **environment: str) -> dict[str, object]:
    """What a process of this script reports, run ``under`` another command if one is given."""
    done = subprocess.run(
        [*under, sys.executable, "-c", PRELUDE + script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_a_file_that_cannot_be_sent() -> None:
    answer = run(
        """
fd = os.open("/proc/self/environ", os.O_RDONLY)
content = os.read(fd, 1 << 20)
good = 0
for _ in range(3):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pump(Extent(fd, 0, len(content)), Stream(ours.fileno()))
        ours.close()
        good += theirs.makefile("rb").read() == content
report(good=good, sent=len(content))
""",
        LONG="x" * 100_000,
    )
    assert answer == {
        "transfers": {"copy": 3},
        "fallbacks": {"sendfile EINVAL": 3},
        "good": 3,
        "sent": answer["sent"],
    }
    assert int(str(answer["sent"])) > engine.SMALL


def test_a_file_that_cannot_be_spliced_into() -> None:
    """What is in the pipe by then is not lost; other file systems are not affected."""
    answer = run(
        """
path = "/proc/self/oom_score_adj"
fd = os.open(path, os.O_RDWR)
before = os.read(fd, 100).strip()
wanted = b"%d" % (int(before) + 1)
good = 0
for source in (wanted, wanted):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(source)
        pump(Stream(ours.fileno(), len(source)), FileSink(fd))
    good += os.pread(fd, 100, 0).strip() == wanted
file = tempfile.TemporaryFile()
ours, theirs = socket.socketpair()
theirs.sendall(b"elsewhere")
how = pump(Stream(ours.fileno(), 9), FileSink(file.fileno())).how
report(good=good, elsewhere=how)
"""
    )
    assert answer == {
        "transfers": {"copy": 2, "splice": 1},
        "fallbacks": {"splice EINVAL": 2},
        "good": 2,
        "elsewhere": "splice",
    }


def test_a_refused_way_is_not_tried_again(tmp_path: Path) -> None:
    strace = require_strace()
    require(Path("/dev/shm").is_dir(), "needs a second file system at /dev/shm")
    with opened(here := file_with(b"", tmp_path), there := file_with(b"", "/dev/shm")):
        require(os.fstat(here).st_dev != os.fstat(there).st_dev, "needs two file systems")
    answer = run(
        f"""
source = tempfile.TemporaryFile(dir={str(tmp_path)!r})
source.write(b"x" * 100000)
source.flush()
for _ in range(3):
    sink = tempfile.TemporaryFile(dir="/dev/shm")
    pump(Extent(os.dup(source.fileno()), 0, 100000), FileSink(sink.fileno()))
    assert sink.read() == b"x" * 100000
report()
""",
        *(strace, "-f", "-e", "trace=copy_file_range", "-o", str(tmp_path / "trace")),
    )
    assert answer["transfers"] == {"copy": 3}
    assert answer["fallbacks"] == {"copy_file_range EXDEV": 3}
    assert (tmp_path / "trace").read_text().count("copy_file_range(") == 1


def test_no_descriptors_left_for_a_pipe() -> None:
    answer = run(
        """
file = tempfile.TemporaryFile()
ours, theirs = socket.socketpair()
theirs.sendall(b"x" * 100000)
taken = [os.dup(0)]
resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, taken[-1] + 1))
how = pump(Stream(ours.fileno(), 100000), FileSink(file.fileno())).how
os.close(taken[0])
file.seek(0)
report(how=how, good=file.read() == b"x" * 100000)
"""
    )
    assert answer == {
        "transfers": {"copy": 1},
        "fallbacks": {"splice EMFILE": 1},
        "how": "copy",
        "good": True,
    }


def test_no_pipe_of_a_useful_size() -> None:
    """Beyond fs.pipe-user-pages-soft an unprivileged user gets small ones."""
    require_root()  # to become a user without privileges
    answer = run(
        """
import fcntl
os.setgid(65534)
os.setuid(65534)
hoard = []
while True:
    hoard.append(os.pipe())
    try:
        fcntl.fcntl(hoard[-1][0], fcntl.F_SETPIPE_SZ, 1 << 20)
    except PermissionError:
        break
file = tempfile.TemporaryFile()
ours, theirs = socket.socketpair()
content = os.urandom(3 << 20)
threading.Thread(target=theirs.sendall, args=(content,)).start()
pump(Stream(ours.fileno(), len(content)), FileSink(file.fileno()))
file.seek(0)
report(good=file.read() == content)
"""
    )
    assert answer == {
        "transfers": {"copy": 1},
        "fallbacks": {"splice small pipe": 1},
        "good": True,
    }


@pytest.mark.slow
def test_a_forked_process_has_pipes_of_its_own() -> None:
    answer = run(
        """
def transfer(fill):
    file = tempfile.TemporaryFile()
    ours, theirs = socket.socketpair()
    content = fill * (2 << 20)
    threading.Thread(target=theirs.sendall, args=(content,)).start()
    pump(Stream(ours.fileno(), len(content)), FileSink(file.fileno()))
    file.seek(0)
    return file.read() == content

assert transfer(b"warm up")
child = os.fork()
good = all(transfer(b"parent!" if child else b"child!!") for _ in range(20))
if not child:
    os._exit(0 if good else 1)
report(good=good, child=os.waitpid(child, 0)[1])
"""
    )
    assert answer["good"] is True
    assert answer["child"] == 0


@pytest.mark.parametrize("value", ["off", "OFF", "0", "no", "false"])
def test_the_kill_switch_has_the_last_word(value: str) -> None:
    answer = run("engine.enable(True)\nreport(enabled=engine.enabled())", HEADRACE_SENDFILE=value)
    assert answer["enabled"] is False


@pytest.mark.parametrize("value", ["", "on"])
def test_without_it_the_setting_decides(value: str) -> None:
    answer = run(
        "was = engine.enabled(); engine.enable(False); report(was=was, now=engine.enabled())",
        HEADRACE_SENDFILE=value,
    )
    assert (answer["was"], answer["now"]) == (True, False)


def test_a_sound_file_system_passes_the_self_test(tmp_path: Path) -> None:
    assert engine.self_test(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_lies_is_found_out(tmp_path: Path) -> None:
    """It takes what is written and reads as zeros; from then on it is only copied from and to."""
    with mounted(Liar(), tmp_path) as directory:
        answer = run(
            f"""
directory = {str(directory)!r}
fault = engine.self_test(directory)
ours, theirs = socket.socketpair()
theirs.sendall(b"x" * 100000)
with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
    into = pump(Stream(ours.fileno(), 100000), FileSink(file.fileno())).how
    out = pump(Extent(os.dup(file.fileno()), 0, 100000), Stream(ours.fileno())).how
report(fault=fault, into=into, out=out)
"""
        )
    assert answer == {
        "transfers": {"copy": 2},
        "fallbacks": {"sendfile self-test": 2, "splice self-test": 2},
        "fault": "sendfile: wrong bytes, splice: wrong bytes",
        "into": "copy",
        "out": "copy",
    }


def test_a_file_of_fuse_is_copied(tmp_path: Path) -> None:
    """As those of other networks and hosts; of this one it is known without a try."""
    content = os.urandom((1 << 20) + 5)
    with mounted(OneFile(content), tmp_path) as path:
        (tmp_path / "copy").touch()
        answer = run(
            f"""
fd = os.open({str(path)!r}, os.O_RDONLY)
sink = os.open({str(tmp_path / "copy")!r}, os.O_WRONLY)
ours, theirs = socket.socketpair()
extent = Extent(fd, 0, {len(content)})
sender = threading.Thread(target=pump, args=(extent, Stream(ours.fileno())))
sender.start()
pump(Stream(theirs.fileno(), {len(content)}), FileSink(sink))
sender.join()
report()
"""
        )
        assert (tmp_path / "copy").read_bytes() == content
    assert answer["transfers"] == {"copy": 1, "splice": 1}
    assert answer["fallbacks"] == {"sendfile fuse": 1}


@pytest.mark.parametrize("path", ["/proc", "/dev/shm"])
def test_other_file_systems_are_trusted(path: str) -> None:
    require(Path(path).exists(), f"needs {path}")
    assert linux.network_file_system(os.stat(path).st_dev) is None


def test_a_directory_that_is_not_there_is_told() -> None:
    with pytest.raises(errors.TransferError):
        engine.self_test("/nonexistent")


def test_idle_counters() -> None:
    assert run("report()") == {"transfers": {}, "fallbacks": {}}


def test_an_empty_body_is_a_transfer_too(ways: str) -> None:
    with SINKS["file"]() as (sink, arrived):
        assert engine.pump_all([], sink).bytes == 0
    assert arrived.content == b""
