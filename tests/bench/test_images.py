"""Image tests of `headrace bench` against real services: what moves, by which calls, what stays."""

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
from typing import Any

import pytest

from benchmarks import glance
from headrace.bench import cache, run
from headrace.client import Connection, Images
from headrace.errors import ClientError
from tests import certificates, relay
from tests.client.peer import Request, Wire
from tests.needs import require, require_command, require_environment, require_root, require_strace
from tools import namespaces, strace
from tools.hosts import free_port
from tools.serving import COMMAND, Serving, environment, serving

MIB = 1 << 20
SIZE = 5 * MIB + 17
GUARD = 60.0  # seconds; a hang guard
WAYS = [
    ("IMAGE_GET", "splice"), ("IMAGE_GET", "copy"), ("IMAGE_RANGE", "splice"),
    ("IMAGE_RANGE", "copy"), ("IMAGE_PUT", "sendfile"), ("IMAGE_PUT", "splice"),
    ("IMAGE_PUT", "copy"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture(scope="module")
def image(server: Serving, source: Path) -> str:
    return _upload(server.url, source)


def _upload(url: str, source: Path) -> str:
    with Connection(url) as connection:
        images = Images(connection)
        made = images.create(name="a", disk_format="raw", container_format="bare")
        images.upload(str(made["id"]), source)
        return str(made["id"])


def _ids(url: str) -> set[str]:
    with Connection(url) as connection:
        return {str(each["id"]) for each in Images(connection).list()}


def bench(url: str, *words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, "bench", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=GUARD, env=environment({"HEADRACE_URL": url}),
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


def figures(url: str, *words: str | Path) -> dict[str, Any]:
    (found,) = json.loads(bench(url, "--json", *words).stdout)
    assert isinstance(found, dict)
    return found


def throughput_bytes(found: dict[str, Any]) -> float:
    return float(found["THROUGHPUT"] * 1e6 / 8 * found["ELAPSED_TIME"])


# What moves


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize(("test", "via"), WAYS)
def test_as_many_bytes_as_asked_for(
    server: Serving, source: Path, test: str, via: str, streams: int
) -> None:
    """Whole images, and the rest of one; the image that was made for it is gone afterwards."""
    before, size = _ids(server.url), 2 * SIZE + 4097
    found = figures(
        server.url, "-t", test, "--via", via, "-F", source, "-l", f"-{size * streams}", "--streams",
        str(streams),
    )  # fmt: skip
    assert throughput_bytes(found) == pytest.approx(size * streams, rel=1e-9)
    assert (found["VIA"], found["STREAMS"], found["IMAGE_SIZE"]) == (via, streams, SIZE)
    if test == "IMAGE_PUT":
        assert found["LOCAL_SEND_CALLS"] >= 3 * streams
        assert round(found["TRANSACTION_RATE"] * found["ELAPSED_TIME"]) == 3 * streams
    elif test == "IMAGE_GET":
        assert round(found["TRANSACTION_RATE"] * found["ELAPSED_TIME"]) == 2 * streams
    else:
        assert round(found["TRANSACTION_RATE"] * found["ELAPSED_TIME"]) >= 2 * SIZE // MIB * streams
    assert found["LOCAL_PROC_SD"] > 0
    assert found["REMOTE_SD"] is not None  # in ticks, of which so short a measurement may have none
    assert found["REMOTE_PROC_SD"] is None
    assert _ids(server.url) == before


@pytest.mark.parametrize(("test", "via"), WAYS)
def test_the_near_end_goes_the_way_it_says(
    server: Serving, source: Path, image: str, tmp_path: Path, test: str, via: str
) -> None:
    """By strace's word."""
    prefix = tmp_path / "calls"
    words = ("-t", test, "--via", via, "-F", source, "-l", f"-{2 * SIZE}")
    chosen = () if test == "IMAGE_PUT" else ("--image", image)
    subprocess.run(
        [*strace.command(require_strace(), prefix), COMMAND, "bench", *words, *chosen],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=GUARD,
        env=environment({"HEADRACE_URL": server.url}),
    )  # fmt: skip
    carried = strace.on_sockets(prefix).bytes
    call = {"sendfile": "sendfile", "splice": "splice"}.get(
        via, "write" if test == "IMAGE_PUT" else "readv"
    )
    # What comes with a head is read with it, and there is a head to each range.
    beside = 128 * 1024 if test != "IMAGE_RANGE" else 2 * SIZE // 20
    assert carried[call] >= 2 * SIZE - beside
    assert carried.total() - carried[call] <= beside + 64 * 1024


def test_ranges_are_those_asked_for(server: Serving, image: str) -> None:
    words = ("-t", "IMAGE_RANGE", "--image", image, "-l", f"-{SIZE}", "--", "-r", "100000")
    found = figures(server.url, *words)
    assert found["RANGE_SIZE"] == 100_000
    assert round(found["TRANSACTION_RATE"] * found["ELAPSED_TIME"]) == -(-SIZE // 100_000)


def test_a_measurement_is_as_long_as_asked_for(server: Serving, image: str) -> None:
    for test in ("IMAGE_GET", "IMAGE_RANGE"):
        found = figures(server.url, "-t", test, "--image", image, "-l", "0.5")
        assert 0.5 <= found["ELAPSED_TIME"] < 2.0


def test_clients_can_be_slow(server: Serving, image: str) -> None:
    words = ("-t", "IMAGE_GET", "--image", image, "-l", "1", "--streams", "3", "-f", "M")
    found = figures(server.url, *words, "--slow", "1M")
    # The last turn of a tenth of a second may be begun just before the end.
    assert found["THROUGHPUT"] <= 3 * 1.2
    assert found["THROUGHPUT"] >= 3 * 0.5


def test_the_services_processes_are_told_apart(server: Serving, image: str) -> None:
    """Beside what /proc says of them, in ticks."""

    def ticks() -> int:
        found = 0
        for pid in server.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found += int(fields[11]) + int(fields[12])
        return found

    before = ticks()
    words = ("-t", "IMAGE_GET", "--image", image, "-l", "1.5", "-c", "-C")
    found = figures(server.url, *words, "--far-pid", str(server.pid))
    seconds = (ticks() - before) / os.sysconf("SC_CLK_TCK")
    ours = found["REMOTE_PROC_SD"] * (throughput_bytes(found) / 1024) / 1e6
    assert ours == pytest.approx(seconds, rel=0.1, abs=0.06)
    assert found["REMOTE_PROC_UTIL"] <= found["REMOTE_CPU_UTIL"] * 1.1 + 2


def test_the_demand_of_several_streams_is_that_of_the_whole(server: Serving, image: str) -> None:
    words = ("-t", "IMAGE_GET", "--image", image, "-l", f"-{80 * SIZE}", "-c")
    one = figures(server.url, *words)
    four = figures(server.url, *words, "--streams", "4")
    # Of one of them it would be a quarter, of their sum over one's bytes four times as much.
    assert 0.5 * one["LOCAL_PROC_SD"] < four["LOCAL_PROC_SD"] < 2.5 * one["LOCAL_PROC_SD"]


def test_another_service_of_the_same_interface(tmp_path: Path, source: Path) -> None:
    """Glance itself."""
    require_environment(".venv-glance")
    glance.prepare(tmp_path, free_port())
    with glance.serving(tmp_path) as peer:
        url = f"http://127.0.0.1:{peer.port}"
        for test, via in WAYS:
            found = figures(url, "-t", test, "--via", via, "-F", source, "-l", f"-{SIZE}")
            assert throughput_bytes(found) == pytest.approx(SIZE, rel=1e-9)
        assert _ids(url) == set()


# Encrypted


@pytest.fixture
def encrypted(server: Serving, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The service behind TLS: the URL, and the certificate to trust."""
    certificate = certificates.make(tmp_path / "both.pem")
    with relay.encrypted(server.port, certificate) as url:
        yield url, certificate


@pytest.mark.parametrize("test", ["IMAGE_GET", "IMAGE_PUT", "IMAGE_RANGE"])
def test_through_tls_bytes_are_copied(
    encrypted: tuple[str, Path], source: Path, image: str, test: str
) -> None:
    url, certificate = encrypted
    chosen = ("-F", source) if test == "IMAGE_PUT" else ("--image", image)
    words = ("-t", test, "-l", f"-{SIZE}", *chosen, "--cafile", certificate)
    found = figures(url, *words)
    assert found["VIA"] == "copy"
    assert throughput_bytes(found) == pytest.approx(SIZE, rel=1e-9)
    said = bench(url, *words, "--via", "splice", status=2).stderr
    assert "through TLS bytes can only be copied, not by splice" in said


# Cold


def test_a_file_is_dropped_from_the_page_cache(tmp_path: Path, source: Path) -> None:
    with source.open("rb") as file:
        file.read()
        assert cache.resident(file.fileno()) == 1.0
        _drop_or_skip(file.fileno())
        assert cache.resident(file.fileno()) <= 0.01


def _drop_or_skip(fd: int) -> None:
    """Skip where the tests' directory is in memory, or where the file system does not say."""
    try:
        cache.drop(fd, "the file")
    except ClientError as error:
        require(False, f"needs a directory on a disk: {error}")


def test_a_file_in_memory_cannot_be_cold() -> None:
    require(os.path.isdir("/dev/shm"), "needs /dev/shm")
    with open("/dev/shm/headrace-cold", "w+b") as file:
        os.unlink(file.name)
        file.write(os.urandom(MIB))
        file.flush()
        with pytest.raises(ClientError, match="cannot be dropped"):
            cache.drop(file.fileno(), "it")


def test_a_cold_measurement_reads_once(server: Serving, image: str, source: Path) -> None:
    stored = server.image_dir / image
    with stored.open("rb") as file:
        _drop_or_skip(file.fileno())
    found = figures(server.url, "-t", "IMAGE_PUT", "-F", source, "--cold", "-l", "5")
    assert found["PAGE_CACHE"] == "cold"
    assert throughput_bytes(found) == pytest.approx(SIZE, rel=1e-9)
    words = ("-t", "IMAGE_GET", "--image", image, "--cold", "--far-file", stored, "-l", "5")
    assert throughput_bytes(figures(server.url, *words)) == pytest.approx(SIZE, rel=1e-9)
    said = bench(server.url, *words[:-4], "--far-file", server.state_dir / "none", status=1).stderr
    assert "none: No such file" in said
    raw = figures(server.url, "-t", "TCP_SENDFILE", "-F", source, "--cold", "-l", "5")
    assert throughput_bytes(raw) == pytest.approx(SIZE, rel=1e-9)


# The far end's agent


@contextlib.contextmanager
def agent(*options: str) -> Iterator[str]:
    """`headrace netserver`; its port."""
    process = subprocess.Popen(
        [COMMAND, "netserver", "-p", "0", *options], stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stderr is not None
    with process:
        try:
            yield process.stderr.readline().split()[-1]
        finally:
            process.kill()


def test_the_agent_on_the_services_machine(server: Serving, image: str) -> None:
    words = ("-t", "IMAGE_GET", "--image", image, "-l", "0.3", "-C", "-H", "127.0.0.1", "-p")
    with agent() as port:
        found = figures(server.url, *words, port, "--far-pid", str(server.pid))
        assert found["REMOTE_PROC_SD"] > 0
        assert "kernel" in found["remote_facts"]
        said = bench(server.url, *words, port, "--far-pid", "4194999", status=1).stderr
        assert "there is no process 4194999" in said
        cold = ("--cold", "--far-file", str(server.image_dir / image))
        assert "touches no files" in bench(server.url, *words, port, *cold, status=1).stderr


def test_a_service_on_another_machine(tmp_path: Path, source: Path) -> None:
    """Its CPU is not this machine's: it is known from an agent there, or not at all."""
    require_root()
    require_command("ip")
    with namespaces.joined() as hosts:
        env = environment() | {"PATH": namespaces.environment()["PATH"]}
        options = ("--host", hosts.address, "--unauthenticated-ok")
        words = [*hosts.words("near"), str(COMMAND), "bench", "-F", str(source), "-l", f"-{SIZE}"]
        with serving(tmp_path, *options, env=env, under=hosts.words("far")) as running:
            env["HEADRACE_URL"] = running.url

            def run_bench(*more: str) -> subprocess.CompletedProcess[str]:
                return subprocess.run(
                    [*words, *more], capture_output=True, text=True, timeout=GUARD, env=env
                )

            done = run_bench("-t", "IMAGE_PUT,TCP_SENDFILE", "--json")
            refused = run_bench("-t", "IMAGE_PUT", "-C")
    image, raw = json.loads(done.stdout)
    assert image["REMOTE_SD"] is None
    assert raw["REMOTE_SD"] is not None
    assert refused.returncode == 2
    assert "the service is on another machine" in refused.stderr


@pytest.mark.parametrize("asked", [["1"], [0], [-1], "1", [True]])
def test_the_agent_watches_processes_only(asked: object) -> None:
    with agent() as port, run.FarEnd("127.0.0.1", int(port)) as far:
        far._control.say(watch=asked)
        with pytest.raises(ClientError, match="what is no process"):
            far._control.hear("watching")


def test_it_is_not_told_of_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with agent("--files") as port:
        for path in (tmp_path, tmp_path / "fifo"):
            with (
                run.FarEnd("127.0.0.1", int(port)) as far,
                pytest.raises(ClientError, match="not a regular file"),
            ):
                far.watch([], str(path))


# What goes wrong


def test_no_such_image(server: Serving) -> None:
    said = bench(server.url, "-t", "IMAGE_GET", "--image", "none", "-l", "1", status=1).stderr
    assert said.count("\n") == 1
    assert "none" in said


def test_an_image_without_data(server: Serving) -> None:
    with Connection(server.url) as connection:
        images = Images(connection)
        made = str(images.create(name="queued")["id"])
        said = bench(server.url, "-t", "IMAGE_GET", "--image", made, "-l", "1", status=1).stderr
        images.delete(made)
    assert "no data that could be fetched" in said


def test_an_upload_that_is_refused_leaves_nothing(tmp_path: Path, source: Path) -> None:
    with serving(tmp_path, env={"OS_DEFAULT__IMAGE_SIZE_CAP": str(MIB)}) as running:
        for test in ("IMAGE_PUT", "IMAGE_GET"):
            words = ("-t", test, "-F", source, "-l", "1")
            said = bench(running.url, *words, status=1).stderr
            assert said.count("\n") == 1
            assert "size" in said
            assert _ids(running.url) == set()
        assert not list(running.image_dir.glob("*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("test", ["IMAGE_PUT", "IMAGE_GET"])
def test_a_measurement_that_is_ended_leaves_nothing(
    server: Serving, source: Path, test: str, number: int
) -> None:
    before = _ids(server.url)
    process = subprocess.Popen(
        [COMMAND, "bench", "-t", test, "-F", source, "-l", "30", "--streams", "2"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment({"HEADRACE_URL": server.url}), start_new_session=True,
    )  # fmt: skip
    time.sleep(1.5)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=GUARD)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert _ids(server.url) == before


def test_clients_end_with_what_started_them(server: Serving, image: str) -> None:
    process = subprocess.Popen(
        [COMMAND, "bench", "-t", "IMAGE_GET", "--image", image, "-l", "30", "--streams", "2"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment({"HEADRACE_URL": server.url}), start_new_session=True,
    )  # fmt: skip
    time.sleep(1.5)
    process.kill()
    process.wait(GUARD)
    deadline = time.monotonic() + GUARD
    while subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).stdout:
        assert time.monotonic() < deadline, "its clients go on"
        time.sleep(0.05)


RECORD = {"id": "x", "status": "active", "size": 1 << 30}


Act = Callable[[Wire, Request], None]


def _record(wire: Wire, request: Request) -> bool:
    """Answer what is asked about images, as it should be; False for their data."""
    if "/file" in request.line:
        return False
    wire.answer_json({"images": []} if "?" in request.line else RECORD)
    return True


def _silent(wire: Wire, request: Request) -> None:
    threading.Event().wait(30)


def _stops(wire: Wire, request: Request) -> None:
    """Sends no more than the beginning of an image."""
    if not _record(wire, request):
        wire.answer("200 OK", bytes(65536), {"Content-Length": str(1 << 30)})
        threading.Event().wait(30)


def _closes(wire: Wire, request: Request) -> None:
    if not _record(wire, request):
        wire.answer("200 OK", bytes(65536), {"Content-Length": str(1 << 30)})
        wire.sock.close()


def _no_length(wire: Wire, request: Request) -> None:
    if not _record(wire, request):
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n0\r\n\r\n"
        wire.send(chunked)


def _no_ranges(wire: Wire, request: Request) -> None:
    wire.answer_json({"images": []} if "?" in request.line else RECORD)


def _other(wire: Wire, request: Request) -> None:
    wire.send(b"220 mail.example.org ESMTP\r\n")
    wire.sock.close()


@contextlib.contextmanager
def impostor(act: Act) -> Iterator[str]:
    """Something at an address that is not, or not quite, an image service; its URL."""

    def serve(sock: socket.socket) -> None:
        wire = Wire(sock)
        with contextlib.suppress(OSError, EOFError), sock:
            while True:
                act(wire, wire.head())

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=serve, args=[sock], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=[listener], daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("act", "test", "text"),
    [
        (_silent, "IMAGE_GET", "no answer within"),
        (_stops, "IMAGE_GET", "moved nothing for"),
        (_closes, "IMAGE_GET", "closed"),
        (_no_length, "IMAGE_GET", "does not say how much"),
        (_no_ranges, "IMAGE_RANGE", "with the whole, not with a range"),
        (_other, "IMAGE_GET", "not HTTP"),
    ],
)
def test_a_service_that_misbehaves(act: Act, test: str, text: str) -> None:
    """One clear line, and no later than five seconds after the time that was given."""
    with impostor(act) as url:
        began = time.monotonic()
        done = bench(url, "-t", test, "--image", "x", "-l", "1", status=1)
        took = time.monotonic() - began
    assert re.search(text, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert took < 1 + 5 + 2  # two for the command's own start on a busy machine


def test_a_service_killed_in_the_middle(tmp_path: Path, source: Path) -> None:
    with serving(tmp_path) as running:
        process = subprocess.Popen(
            [COMMAND, "bench", "-t", "IMAGE_PUT", "-F", source, "-l", "30"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment({"HEADRACE_URL": running.url}),
        )  # fmt: skip
        time.sleep(1.5)
        running.kill()
        _, said = process.communicate(timeout=GUARD)
    assert process.returncode == 1
    assert said.count("\n") == 1


# Words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-t", "IMAGE_GET", "--via", "sendfile"], "goes by splice or copy, not by sendfile"),
        (["-t", "IMAGE_GET:sendfile"], "goes by splice or copy"),
        (["-t", "TCP_STREAM:copy"], "has no ways to choose from"),
        (["-t", "TCP_STREAM", "--streams", "2"], "--streams is of the image tests"),
        (["-t", "TCP_STREAM", "--via", "copy"], "--via is of the image tests"),
        (["-t", "IMAGE_GET", "--streams", "0"], "1 to 1024"),
        (["-t", "IMAGE_GET", "--streams", "many"], "numbers of streams"),
        (["-t", "IMAGE_GET", "--slow", "0"], "at least one byte"),
        (["-t", "IMAGE_GET", "--cold"], "wants --far-file"),
        (["-t", "TCP_STREAM", "--cold"], "reads no file"),
        (["-t", "IMAGE_GET", "--sink", "file:/x"], "of the raw tests"),
        (["-t", "IMAGE_RANGE", "--", "-r", "0"], "at least one byte"),
        (["--compare", "IMAGE_GET,IMAGE_PUT", "--streams", "1,2"], "takes two tests"),
        (["--sweep", "-m", "64K"], "two sizes"),
        (["-m", "1M..4K"], "larger than the second"),
        (["--report", "/nowhere/out.html"], "no such directory"),
    ],
)
def test_wrong_words(server: Serving, words: list[str], text: str) -> None:
    said = bench(server.url, *words, status=2).stderr
    assert text in said
    assert said.count("\n") == 1


def test_ways_and_streams_are_measured_in_turn(server: Serving, image: str) -> None:
    words = ("-t", "IMAGE_GET", "--image", image, "-l", f"-{SIZE}", "--via", "splice,copy")
    lines = bench(server.url, *words, "--streams", "1,2", "-c").stdout.splitlines()
    assert lines[0] == f"IMAGE GET TEST from {server.url} to this machine"
    assert [line.split()[:3] for line in lines[6:]] == [
        [streams, way, str(SIZE)] for way in ("splice", "copy") for streams in ("1", "2")
    ]


def test_a_password_is_not_shown(server: Serving, image: str) -> None:
    url = server.url.replace("http://", "http://me:secret@")
    done = bench(url, "-t", "IMAGE_GET", "--image", image, "-l", f"-{SIZE}", "-c", "-C")
    assert server.url in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_a_comparison_of_ways(server: Serving, source: Path) -> None:
    words = ("--compare", "IMAGE_PUT:sendfile,IMAGE_PUT:copy", "-F", source, "-l", f"-{SIZE}")
    found = json.loads(bench(server.url, *words, "-i", "3,3", "--json").stdout)
    assert [each["VIA"] for each in found["results"]] == ["sendfile", "copy"]
    throughput = found["ratios"][0]
    assert (throughput["name"], len(throughput["pairs"])) == ("throughput", 3)
    assert throughput["mean"] == pytest.approx(sum(throughput["pairs"]) / 3)


def test_a_sweep(server: Serving, source: Path) -> None:
    words = ("-t", "IMAGE_PUT", "-F", source, "-l", f"-{SIZE}", "--sweep", "-m", "64K..256K")
    found = json.loads(bench(server.url, *words, "--json").stdout)
    assert [each["LOCAL_SEND_SIZE"] for each in found] == [65536, 131072, 262144]
    assert all(each["LOCAL_SEND_CALLS"] >= SIZE // each["LOCAL_SEND_SIZE"] for each in found)
