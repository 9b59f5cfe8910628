"""Measurements between real processes: what arrives, what is said, and what goes wrong."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.bench import raw, run
from headrace.bench.spec import RAW_TESTS, Spec
from headrace.bench.wire import VERSION, Control
from headrace.errors import ClientError, ConnectionFailed, Error
from tests.cli.terminal import on_terminal
from tests.needs import require_command, require_root, require_strace
from tools import namespaces, strace
from tools.serving import COMMAND, environment

MIB = 1 << 20
GUARD = 60.0  # seconds; a hang guard


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A far end's control port."""
    with far_end("--max-tests", "64") as running:
        yield running.port


class FarEndProcess:
    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port


@contextlib.contextmanager
def far_end(*options: str | Path) -> Iterator[FarEndProcess]:
    """`headrace netserver` on a port of its own."""
    process = subprocess.Popen(
        [COMMAND, "netserver", "-p", "0", *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert "waiting for measurements" in line
        yield FarEndProcess(process, int(line.split()[-1]))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(GUARD)
        process.stderr.close()


def bench(*words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, "bench", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GUARD, env=environment(),
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


# What arrives


@pytest.mark.parametrize("test", RAW_TESTS)
def test_both_ends_count_the_same(port: int, test: str) -> None:
    spec = Spec(test=test, seconds=None, nbytes=1000 if test == "TCP_RR" else 40 * MIB + 17)
    with run.FarEnd("127.0.0.1", port) as far, run.file_to_send(None, 8 * MIB) as file:
        outcome = far.measure(spec, file)
    if test == "TCP_RR":
        assert (outcome.transactions, outcome.bytes) == (1000, 2000)
    else:
        assert outcome.bytes == 40 * MIB + 17
    assert outcome.seconds > 0
    sender, receiver = outcome.local, outcome.remote
    if test == "TCP_MAERTS":
        sender, receiver = receiver, sender
    for end in (sender, receiver):
        assert end.usage is not None
        assert end.usage.processes is not None
        assert end.usage.processes > 0
        assert end.buffers is not None
        assert all((*end.buffers.send, *end.buffers.receive))
    assert sender.send_calls
    assert receiver.receive_calls
    assert sender.send_size
    assert receiver.receive_size
    if test != "TCP_RR":
        assert sender.receive_calls is sender.receive_size is None
        assert receiver.send_calls is receiver.send_size is None
    assert outcome.mss > 500


@pytest.mark.parametrize("test", ["TCP_STREAM", "TCP_SENDFILE", "TCP_SPLICE"])
def test_what_is_sent_is_what_arrives(tmp_path: Path, test: str) -> None:
    """The file again and again, whatever the size of a send; a file of odd length, too."""
    content = os.urandom(MIB + 4097)
    source, sink = tmp_path / "source", tmp_path / "sink"
    source.write_bytes(content)
    size = 3 * MIB + 5
    with far_end("--files") as running:
        bench(
            "-H", "127.0.0.1", "-p", str(running.port), "-t", test, "-l", f"-{size}",
            "-F", source, "--sink", f"file:{sink}", "--", "-m", "7000",
        )  # fmt: skip
    assert sink.stat().st_size == size
    if test != "TCP_STREAM":
        assert sink.read_bytes() == (content * 4)[:size]


@pytest.mark.parametrize("size", [1000, 65536, 300_000])
def test_calls_are_of_the_size_asked_for(port: int, size: int) -> None:
    spec = Spec(test="TCP_STREAM", seconds=None, nbytes=size * 100, send_size=size)
    with run.FarEnd("127.0.0.1", port) as far:
        outcome = far.measure(spec)
    assert (outcome.local.send_calls, outcome.local.send_size) == (100, size)


def test_a_measurement_is_as_long_as_asked_for(port: int) -> None:
    with run.FarEnd("127.0.0.1", port) as far:
        outcome = far.measure(Spec(test="TCP_STREAM", seconds=0.5))
    assert outcome.seconds >= 0.5


def test_buffers_are_asked_for_and_shown(port: int) -> None:
    spec = Spec(
        test="TCP_STREAM", seconds=None, nbytes=MIB, local_buffer=50_000, remote_buffer=60_000
    )
    with run.FarEnd("127.0.0.1", port) as far:
        outcome = far.measure(spec)
    # Linux doubles what it is asked for.
    near, far = outcome.local.buffers, outcome.remote.buffers
    assert near is not None
    assert far is not None
    assert near.send == (100_000, 100_000)
    assert far.receive == (120_000, 120_000)
    assert (near.asked, far.asked) == (50_000, 60_000)


@pytest.mark.parametrize(
    ("test", "call"),
    [
        ("TCP_STREAM", "sendto"),
        ("TCP_SENDFILE", "sendfile"),
        ("TCP_SPLICE", "splice"),
        ("TCP_ZEROCOPY", "sendto"),
    ],
)
def test_a_test_sends_by_the_call_it_is_named_for(
    port: int, tmp_path: Path, test: str, call: str
) -> None:
    """By strace's word; what other calls carry is the control connection's."""
    size, prefix, source = 24 * MIB + 17, tmp_path / "calls", tmp_path / "source"
    source.write_bytes(os.urandom(8 * MIB + 1))
    words = ("-H", "127.0.0.1", "-p", str(port), "-t", test, "-l", f"-{size}", "-F", str(source))
    subprocess.run(
        [*strace.command(require_strace(), prefix), COMMAND, "bench", *words, "--", "-m", "64K"],
        stdin=subprocess.DEVNULL, check=True, timeout=GUARD, env=environment(),
    )  # fmt: skip
    carried = strace.on_sockets(prefix).bytes
    talk = 64 * 1024
    assert size <= carried[call] <= size + talk
    assert carried.total() - carried[call] <= talk
    flagged = sum(each.read_text().count("MSG_ZEROCOPY") for each in tmp_path.glob("calls.*"))
    assert (flagged >= size // 65536) == (test == "TCP_ZEROCOPY")


@pytest.mark.parametrize("send", [raw.send_file, raw.splice_file])
def test_a_file_that_is_truncated_meanwhile(
    tmp_path: Path, send: Callable[[socket.socket, int, Spec, int], raw.Moved]
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(64 * MIB))

    def take(sock: socket.socket) -> None:
        sock.recv(MIB)
        os.truncate(source, MIB // 2)
        while sock.recv(MIB):
            pass

    with (
        source.open("rb") as file,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        taker = threading.Thread(target=take, args=[far], daemon=True)
        taker.start()
        spec = Spec(test="TCP_SENDFILE", seconds=GUARD)
        with pytest.raises(ClientError, match="truncated meanwhile"):
            send(near, 64 * 1024, spec, file.fileno())
        near.shutdown(socket.SHUT_WR)
        taker.join(GUARD)


@pytest.mark.parametrize(("sink", "text"), [("/dev/full", "No space left"), ("/", "directory")])
def test_a_sink_that_takes_nothing(sink: str, text: str) -> None:
    with far_end("--files") as running:
        words = ("-H", "127.0.0.1", "-p", str(running.port), "-l", "-8M", "--sink", f"file:{sink}")
        said = bench(*words, status=1).stderr
    assert sink in said
    assert text in said
    assert said.count("\n") == 1


# The command


def test_the_table(port: int) -> None:
    words = ("-H", "127.0.0.1", "-p", str(port), "-l", "-8M", "-c", "-C")
    both = bench(*words, "-t", "TCP_STREAM,TCP_SENDFILE", "--", "-m", "64K").stdout.splitlines()
    assert len(both) == 14
    assert both[0].startswith("TCP STREAM TEST from")
    assert both[7].startswith("TCP SENDFILE TEST from")
    for line in (both[6], both[13]):
        cells = line.split()
        assert len(cells) == 9
        assert cells[2] == "65536"
        assert all(float(cell) >= 0 for cell in cells)
    alone = bench(*words, "-P", "0").stdout.splitlines()
    assert len(alone) == 1
    assert float(bench(*words, "-v", "0").stdout) > 0


def test_figures_by_name(port: int) -> None:
    words = ("-H", "127.0.0.1", "-p", str(port), "-l", "-8M", "-f", "M", "--")
    keys = bench(*words, "-k", "THROUGHPUT_UNITS,LOCAL_SD,RSR_SIZE_END").stdout.splitlines()
    assert keys[0] == "THROUGHPUT_UNITS=MBytes/s"
    assert float(keys[1].removeprefix("LOCAL_SD=")) >= 0
    assert int(keys[2].removeprefix("RSR_SIZE_END=")) > 0
    head, row = bench(*words, "-o", "LOCAL_SEND_SIZE,TRANSPORT_MSS", "-m", "1K").stdout.split()
    assert head == "LOCAL_SEND_SIZE,TRANSPORT_MSS"
    assert row.startswith("1024,")
    head, row = bench(*words, "-O", "local_send_size", "-m", "1k").stdout.split()
    assert (head, row) == ("LOCAL_SEND_SIZE", "1000")
    assert "LSS_SIZE_END" in bench("--", "-O", "?").stdout.splitlines()


def test_json_and_several_measurements(port: int) -> None:
    words = ("-H", "127.0.0.1", "-p", str(port), "-l", "-4M", "-i", "3,3", "--json")
    (found,) = json.loads(bench(*words).stdout)
    assert found["CONFIDENCE_ITERATION"] == 3
    assert found["THROUGHPUT"] > 0
    assert found["local_facts"] == found["remote_facts"]
    assert os.uname().release in found["local_facts"]["kernel"]
    assert isinstance(found["warnings"], list)


def test_json_has_no_number_for_what_one_measurement_cannot_tell(port: int) -> None:
    done = bench("-H", "127.0.0.1", "-p", str(port), "-l", "-1M", "--json")
    (found,) = json.loads(done.stdout, parse_constant=pytest.fail)  # Infinity is not JSON
    assert found["THROUGHPUT_CONFID"] is None


def test_what_was_not_reached_is_said(port: int) -> None:
    """A thousandth of a percent is more than any machine gives."""
    words = ("-H", "127.0.0.1", "-p", str(port), "-l", "-1M", "-i", "3,3", "-I", "99,0.001")
    said = bench(*words, "-c", "-C").stderr
    assert "not as sure as asked for after 3 measurements" in said


def test_two_tests_in_turn(port: int) -> None:
    words = ("-H", "127.0.0.1", "-p", str(port), "-l", "-32M", "-i", "3,3", "-P", "0")
    lines = bench(*words, "--compare", "TCP_SENDFILE,TCP_STREAM").stdout.splitlines()
    assert lines[2] == "TCP_SENDFILE over TCP_STREAM, 3 pairs:"
    name, mean, sign, _half, *pairs = lines[3].split()
    assert (name, sign, len(pairs)) == ("throughput", "±", 3)
    found = [float(each.strip("()")) for each in pairs]
    assert float(mean) == pytest.approx(sum(found) / 3, abs=0.01)


def test_on_a_terminal_it_says_what_it_is_doing(port: int) -> None:
    words = ["bench", "-H", "127.0.0.1", "-p", str(port), "-l", "-1M", "-i", "3,3", "-P", "0"]
    status, text = on_terminal([*words, "-t", "TCP_STREAM,TCP_MAERTS"], {})
    assert status == 0
    for said in ("TCP_STREAM", "0/6", "2/6", "TCP_MAERTS", "5/6"):
        assert said in text
    # A result stands on a line of its own.
    assert (
        len([line for line in text.splitlines() if re.match(r"(\x1b\S*)?\d+ +\d+ +\d+", line)]) == 2
    )


def test_a_report(port: int, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    words = ("-H", "127.0.0.1", "-p", str(port), "-l", "-1M", "--sweep", "-m", "4K..16K")
    done = bench(*words, "--report", page)
    assert done.stderr == f"headrace: the report is in {page}\n"
    text = page.read_text()
    assert text.count("<svg") == 1
    assert all(f"<td>{size}</td>" in text for size in (4096, 8192, 16384))
    assert os.uname().release in text


def test_without_a_far_end_it_has_its_own() -> None:
    assert len(bench("-l", "-4M", "-P", "0").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-t", "UDP_STREAM"], "no such test"),
        (["-l", "soon"], "soon"),
        (["--compare", "TCP_STREAM"], "takes two tests"),
        (["--compare", "TCP_STREAM,NONE"], "no such test"),
        (["-I", "50"], "50"),
        (["-i", "2,40"], "40"),
        (["--sink", "here"], "--sink is file:"),
        (["--", "-m", "1X"], "1X"),
        (["--", "-k", "NONSENSE"], "NONSENSE"),
        (["--", "-Z", "1"], "after --"),
        (["--", "-P", "99999"], "no port"),
    ],
)
def test_wrong_words(words: list[str], text: str) -> None:
    said = bench(*words, status=2).stderr
    assert text in said
    assert said.count("\n") == 1


def test_the_help_has_the_tests_own_options() -> None:
    text = bench("--help").stdout
    assert "Options of the test, after --" in text
    assert "Bytes of one send" in text


def test_sendfile_costs_less_than_send() -> None:
    """The thread's example, in pairs; `make bench ONLY=link` says how much less."""
    words = ("--compare", "TCP_SENDFILE,TCP_STREAM", "-l", "0.7", "-i", "3,3", "-c", "-C", "--json")
    sendfile, stream = json.loads(bench(*words, "--", "-m", "64K").stdout)["results"]
    # The process's, since the machine's is that of the other tests as well.
    assert sendfile["LOCAL_PROC_SD"] < stream["LOCAL_PROC_SD"]


def test_across_two_network_namespaces() -> None:
    """Another address, the same machine: its other end is no stranger, and nobody is paced."""
    require_root()
    require_command("ip")
    with namespaces.joined() as hosts:
        server = subprocess.Popen(
            [*hosts.words("far"), COMMAND, "netserver", "-H", hosts.address],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=environment() | {"PATH": namespaces.environment()["PATH"]},
        )  # fmt: skip
        assert server.stderr is not None
        with server:
            try:
                assert "waiting" in server.stderr.readline()
                done = subprocess.run(
                    [*hosts.words("near"), COMMAND, "bench", "-H", hosts.address, "-c", "-C",
                     "--compare", "TCP_SENDFILE,TCP_STREAM", "-l", "0.7", "-i", "3,3", "--json",
                     "--", "-m", "64K"],
                    capture_output=True, text=True, timeout=GUARD,
                    env=environment() | {"PATH": namespaces.environment()["PATH"]},
                )  # fmt: skip
            finally:
                server.kill()
    assert done.returncode == 0, done.stderr
    sendfile, stream = json.loads(done.stdout)["results"]
    assert (stream["TEST"], sendfile["TEST"]) == ("TCP_STREAM", "TCP_SENDFILE")
    for found in (stream, sendfile):
        assert found["TRANSPORT_MSS"] < 1500
        assert found["local_facts"]["boot"] == found["remote_facts"]["boot"]
        assert "veth0" in found["local_facts"]["MTU"]
        assert found["LOCAL_CONG_CONTROL"] == found["REMOTE_CONG_CONTROL"] != "bbr"
    assert sendfile["LOCAL_PROC_SD"] < stream["LOCAL_PROC_SD"]


# Secrets and limits


def test_a_secret(tmp_path: Path) -> None:
    right, wrong, weak = tmp_path / "right", tmp_path / "wrong", tmp_path / "weak"
    right.write_text("a secret of sixteen bytes\n")
    wrong.write_text("another secret of that size\n")
    weak.write_text("short\n")
    with far_end("--secret-file", right) as running:
        words = ("-H", "127.0.0.1", "-p", str(running.port), "-l", "-1M")
        bench(*words, "--secret-file", right)
        assert "only that end has a secret" in bench(*words, status=1).stderr
        assert "secret" in bench(*words, "--secret-file", wrong, status=1).stderr
        assert "at least 16 bytes" in bench(*words, "--secret-file", weak, status=2).stderr


def test_no_more_than_max_tests() -> None:
    with far_end("--max-tests", "1") as running:
        with run.FarEnd("127.0.0.1", running.port):
            words = ("-H", "127.0.0.1", "-p", str(running.port), "-l", "-1M")
            assert "busy with 1 measurements" in bench(*words, status=1).stderr
        deadline = time.monotonic() + GUARD
        while time.monotonic() < deadline:
            with contextlib.suppress(Error), run.FarEnd("127.0.0.1", running.port):
                return
            time.sleep(0.1)
        raise AssertionError("its place was not given free")


def test_nothing_is_stored_unless_allowed(port: int, tmp_path: Path) -> None:
    words = ("-H", "127.0.0.1", "-p", str(port), "-l", "-1M", "--sink", f"file:{tmp_path}/sink")
    assert "touches no files" in bench(*words, status=1).stderr
    assert not (tmp_path / "sink").exists()
    done = subprocess.run(
        [COMMAND, "netserver", "-H", "0.0.0.0", "-p", "0", "--files"],
        capture_output=True, text=True, timeout=GUARD, env=environment(),
    )  # fmt: skip
    assert (done.returncode, "wants --secret-file" in done.stderr) == (2, True)


def test_it_goes_on_in_the_background() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    done = subprocess.run(
        [COMMAND, "netserver", "-p", str(free), "-D"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=GUARD, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0
    found = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"netserver\0-p\0{free}\0".encode() in _words(entry)
    ]
    try:
        assert len(found) == 1
        bench("-H", "127.0.0.1", "-p", str(free), "-l", "-1M")
    finally:
        for pid in found:
            os.kill(pid, signal.SIGKILL)


def _words(entry: Path) -> bytes:
    with contextlib.suppress(OSError):
        return (entry / "cmdline").read_bytes()
    return b""


# Far ends that misbehave


def test_there_is_no_far_end() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        said = bench("-H", "127.0.0.1", "-p", str(probe.getsockname()[1]), status=1).stderr
    assert "Connection refused" in said
    assert said.count("\n") == 1


@contextlib.contextmanager
def impostor(act: Callable[[Control], None]) -> Iterator[int]:
    """A far end that does as it likes with its control connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError, Error):
                sock, _ = listener.accept()
                with sock:
                    act(Control(sock, "the near end"))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(GUARD)


def _hello(control: Control, **other: object) -> None:
    words = {"speaks": "headrace bench", "version": VERSION, "once": "x", "guarded": False}
    control.say(**(words | other))
    control.hear("speaks")


def _other_version(control: Control) -> None:
    _hello(control, version=VERSION + 1)


def _other_language(control: Control) -> None:
    _hello(control, speaks="netperf")


def _dies(control: Control) -> None:
    _hello(control)


def _no_port(control: Control) -> None:
    _hello(control)
    control.say(facts={})
    control.hear("test")
    control.say(port="none")
    control.hear()


@contextlib.contextmanager
def _data_connection(control: Control) -> Iterator[socket.socket]:
    """As a far end that behaves, up to the data."""
    _hello(control)
    control.say(facts={})
    control.hear("test")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        control.say(port=listener.getsockname()[1])
        data, _ = listener.accept()
        with data:
            control.say(ready=True)
            yield data


def _lies(control: Control) -> None:
    """Says that it has seen more than was sent."""
    with _data_connection(control) as data:
        while data.recv(MIB):
            pass
    control.say(
        bytes=1 << 40, calls=1, transactions=0, seconds=1, cores=1, busy=1, softirq=0, steal=0,
        processes=1, buffers=[1, 1, 1, 1], congestion="reno",
    )  # fmt: skip


def _hangs(control: Control) -> None:
    """Takes nothing of the data."""
    with _data_connection(control), contextlib.suppress(ConnectionFailed):
        control.hear(patience=30)


def _silent(control: Control) -> None:
    with contextlib.suppress(ConnectionFailed):
        control.hear("speaks")
        control.hear(patience=30)


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (_other_version, f"speaks version {VERSION + 1}"),
        (_other_language, "does not speak the measurement protocol"),
        (_dies, "closed the connection"),
        (_no_port, "makes no sense"),
        (_lies, "the ends disagree"),
        (_hangs, "moves nothing for"),
        (_silent, "says nothing for"),
    ],
)
def test_a_far_end_that_misbehaves(act: Callable[[Control], None], text: str) -> None:
    with impostor(act) as port:
        done = bench("-H", "127.0.0.1", "-p", str(port), "-l", "1", status=1)
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_far_end_killed_in_the_middle() -> None:
    with far_end() as running:
        process = subprocess.Popen(
            [COMMAND, "bench", "-H", "127.0.0.1", "-p", str(running.port), "-l", "30"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip
        time.sleep(1.0)
        os.killpg(running.process.pid, signal.SIGKILL)
        _, said = process.communicate(timeout=GUARD)
    assert process.returncode == 1
    assert said.count("\n") == 1


def test_a_near_end_that_talks_nonsense_hurts_nobody(port: int) -> None:
    for talk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\0\0\0\2[]", b"\0\0\0\4null"):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(talk)
    for asked in (
        {"test": "TCP_STREAM", "shell": "reboot"},
        {"test": "UDP_STREAM"},
        {"test": "TCP_STREAM", "receive_size": 1 << 40},
        {"test": "TCP_STREAM", "receive_size": "many"},
        "TCP_STREAM",
    ):
        with run.FarEnd("127.0.0.1", port) as far:
            far._control.say(test=asked)
            with pytest.raises(ClientError, match="it asks for a measurement"):
                far._control.hear("port")
    with run.FarEnd("127.0.0.1", port) as far:
        assert far.measure(Spec(test="TCP_STREAM", seconds=None, nbytes=MIB)).bytes == MIB


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_end_of_the_near_end_is_one_of_its_far_end(number: int, status: int) -> None:
    process = subprocess.Popen(
        [COMMAND, "bench", "-l", "30"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=environment(), start_new_session=True,
    )  # fmt: skip
    time.sleep(1.5)
    os.kill(process.pid, number)
    assert process.wait(GUARD) == status
    deadline = time.monotonic() + GUARD
    while subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).stdout:
        assert time.monotonic() < deadline, "its far end goes on"
        time.sleep(0.05)
