"""The embedded server's processes: how they start, listen, stop and die."""

import json
import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.deploy.embedded import Embedded, embedded, wait_until
from tests.deploy.wire import Wire
from tests.needs import require_command, require_strace

SIZE = 40 << 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    with (tmp_path / "image").open("wb") as image:
        for block in range(SIZE >> 20):
            image.write(bytes([block]) * (1 << 20))
    return tmp_path


def slow_download(server: Embedded) -> Wire:
    """A connection on which a download of SIZE has begun and waits to be read."""
    wire = server.connect(receive_buffer=65536)
    wire.send(wire.head("GET", "/file/image"))
    wire.wait_for_head()
    return wire


def refused_since(server: Embedded) -> float:
    """When the port began to refuse connections."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            try:
                probe.connect((host, int(port)))
            except ConnectionRefusedError:
                return time.monotonic()
            except OSError:
                pass
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_stops_listening_first_and_lets_downloads_finish(
    directory: Path, workers: int
) -> None:
    with embedded(directory, f"workers={workers}") as server:
        downloads = [slow_download(server) for _ in range(4)]
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert refused_since(server) - told < 1
        assert server.process.poll() is None
        expected = (directory / "image").read_bytes()
        for wire in downloads:
            with wire:
                assert wire.answer().body == expected
        assert server.process.wait(30) == 0
        assert server.events.count("sent 41943040 True") == 4


def test_sigterm_serves_who_already_waits(directory: Path) -> None:
    """A connection that the kernel had accepted is answered, not reset."""
    with embedded(directory, "threads=1") as server:
        with server.connect() as busy:
            busy.send(busy.head("GET", "/sleep?1"))
            wait_until(lambda: "begun" in server.events)
            with server.connect() as waiting:
                server.process.send_signal(signal.SIGTERM)
                waiting.send(waiting.head("GET", "/process"))
                answer = waiting.answer()
                assert (answer.status, answer.closes) == (200, True)
            assert busy.answer().status == 200
        assert server.process.wait(30) == 0


def test_uploads_in_flight_finish_too(directory: Path) -> None:
    with embedded(directory) as server:
        with server.connect() as wire:
            wire.send(wire.head("PUT", "/upload/new", "Content-Length: 20"), b"0123456789")
            wait_until(lambda: "begun" in server.events)
            server.process.send_signal(signal.SIGTERM)
            refused_since(server)
            wire.send(b"0123456789")
            assert wire.answer().json["bytes"] == 20
        assert server.process.wait(30) == 0


def test_idle_connections_do_not_hold_it_up(directory: Path) -> None:
    with (
        embedded(directory, "drain_timeout=60") as server,
        server.connect() as silent,
        server.connect() as idle,
    ):
        assert idle.request("GET", "/process").status == 200
        assert server.stop() == 0
        assert idle.at_end()
        assert silent.at_end()


def test_drain_timeout_cuts_what_is_left(directory: Path) -> None:
    with embedded(directory, "drain_timeout=1") as server:
        with slow_download(server) as wire, server.connect() as upload:
            upload.send(upload.head("PUT", "/upload/new", "Content-Length: 20"), b"0123456789")
            wait_until(lambda: "begun" in server.events)
            assert server.stop() == 0
            assert not wire.answer().whole
        # The application has seen the end of both, and so could clean up.
        assert "failed PeerGone" in server.events
        assert any(event.startswith("sent") and event.endswith("False") for event in server.events)
        assert "cut 2 requests short" in server.log


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGQUIT])
def test_quick_stop(directory: Path, sig: signal.Signals) -> None:
    with embedded(directory, "drain_timeout=1000") as server, slow_download(server) as wire:
        assert server.stop(sig) == 0
        assert not wire.answer().whole


def test_a_request_that_does_not_end_does_not_keep_the_process(directory: Path) -> None:
    with embedded(directory, "drain_timeout=1") as server, server.connect() as wire:
        wire.send(wire.head("GET", "/sleep?1000"))
        wait_until(lambda: "begun" in server.events)
        assert server.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_every_worker_starts_and_closes_the_application(directory: Path, workers: int) -> None:
    with embedded(directory, f"workers={workers}") as server:
        wait_until(lambda: len(server.events) == workers)
        assert server.stop() == 0
        pids = {event.split()[1] for event in server.events}
        assert sorted(server.events) == sorted(f"{w} {p}" for p in pids for w in ("start", "close"))
        assert len(pids) == workers


def test_a_crashed_worker_is_replaced(directory: Path) -> None:
    with embedded(directory) as server:
        first = server.ask("GET", "/process")["pid"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(server.events) == 2)
        assert server.ask("GET", "/process")["pid"] != first
        assert server.stop() == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""  # it has been announced once


def test_sighup_replaces_the_workers_gently(directory: Path) -> None:
    with embedded(directory) as server:
        first = server.ask("GET", "/process")["pid"]
        with slow_download(server) as wire:
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: server.ask("GET", "/process")["pid"] != first)
            assert wire.answer().whole
        assert server.stop() == 0


def replaced(server: Embedded) -> tuple[int, int]:
    """The worker that served before a SIGHUP, and the one that serves after it."""
    first = server.ask("GET", "/process")["pid"]
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.ask("GET", "/process")["pid"] != first)
    return first, server.ask("GET", "/process")["pid"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_replaced_worker_has_all_the_time_it_needs(directory: Path, workers: int) -> None:
    """The drain time-out is for the end of the service."""
    with embedded(directory, "drain_timeout=0.5", f"workers={workers}") as server:
        with slow_download(server) as wire:
            for _ in range(2):
                server.process.send_signal(signal.SIGHUP)
                time.sleep(1.0)
                assert server.ask("GET", "/process")
            assert wire.answer().whole
        wait_until(lambda: len(psutil.Process(server.pid).children()) == workers)
        assert server.stop() == 0


def test_the_end_of_the_service_is_that_of_replaced_workers_too(directory: Path) -> None:
    with embedded(directory, "drain_timeout=0.5") as server, slow_download(server) as wire:
        replaced(server)
        assert server.stop() == 0
        assert not wire.answer().whole


def test_a_crash_is_made_up_for_beside_a_replaced_worker(directory: Path) -> None:
    with embedded(directory) as server, slow_download(server) as wire:
        _, second = replaced(server)
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: server.ask("GET", "/process")["pid"] != second)
        assert wire.answer().whole


def test_workers_end_when_the_master_is_gone(directory: Path) -> None:
    with embedded(directory) as server:
        worker = psutil.Process(server.ask("GET", "/process")["pid"])
        server.process.kill()
        worker.wait(30)


def test_a_worker_whose_main_thread_hangs_is_killed(directory: Path) -> None:
    with embedded(directory, "heartbeat=2") as server:
        worker = server.ask("GET", "/process")["pid"]
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: len(server.events) == 2)
        assert server.ask("GET", "/process")["pid"] != worker


def test_long_transfers_outlive_the_heartbeat(directory: Path) -> None:
    with embedded(directory, "heartbeat=2", "threads=1") as server:
        with slow_download(server) as wire:
            time.sleep(6)
            assert wire.answer().whole
        assert server.events.count("sent 41943040 True") == 1


def test_ipv6(directory: Path) -> None:
    with embedded(directory, 'host="::1"') as server:
        assert server.url.startswith("http://[::1]:")
        with server.connect(host="::1") as wire:
            assert wire.request("GET", "/process").status == 200


def test_an_address_in_use_is_said_at_once(directory: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1 port {port}"),
            embedded(directory, f"port={port}"),
        ):
            pass


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("when", ["load", "start"])
def test_an_application_that_does_not_start_ends_the_server(
    directory: Path, when: str, workers: int
) -> None:
    (directory / f"no-{when}").touch()
    with (
        pytest.raises(AssertionError, match=f"invalid configuration: no {when}"),
        embedded(directory, f"workers={workers}"),
    ):
        pass


def test_descriptor_limit_is_raised(directory: Path) -> None:
    with embedded(directory) as server:
        limits = psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert limits[0] == limits[1]


def test_too_many_connections_wait(directory: Path) -> None:
    """Running out of descriptors costs neither a transfer nor the process."""
    prlimit = [require_command("prlimit"), "--nofile=40:40"]
    with embedded(directory, under=prlimit) as server, slow_download(server) as wire:
        crowd = [server.connect() for _ in range(50)]
        server.wait_for_log("cannot accept a connection: Too many open files")
        for other in crowd:
            other.sock.close()
        assert wire.answer().whole
        assert server.ask("GET", "/process")
        assert "WORKER TIMEOUT" not in server.log


def test_a_connection_that_cannot_be_accepted_costs_no_more_than_itself(directory: Path) -> None:
    """As a firewall's veto does, which says EPERM."""
    strace = [require_strace(), "-f", "-qq", "-o", os.devnull, "-e", "trace=accept,accept4"]
    inject = ["-e", "inject=accept,accept4:error=EPERM:when=1..3"]
    with embedded(directory, under=[*strace, *inject]) as server:
        with slow_download(server) as wire:
            server.wait_for_log("cannot accept a connection: Operation not permitted")
            assert wire.answer().whole
        assert len([event for event in server.events if event.startswith("start")]) == 1


def test_no_peer_says_what_is_routed(directory: Path) -> None:
    with embedded(directory) as server, server.connect() as wire:
        assert wire.request("GET", "/process", "SCRIPT_NAME: /process").status == 200


def test_no_peer_says_what_the_scheme_is(directory: Path) -> None:
    with (
        embedded(directory, env={"FORWARDED_ALLOW_IPS": "*"}) as server,
        server.connect() as wire,
    ):
        assert wire.request("GET", "/process", "X-Forwarded-Proto: https").json["scheme"] == "http"


_ACTIVATE = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_socket_handed_over_by_systemd(directory: Path) -> None:
    with embedded(directory, "port=1", under=[sys.executable, "-c", _ACTIVATE]) as server:
        assert server.port > 1
        assert server.ask("GET", "/process")


def test_log_has_one_line_a_request_and_no_secret(directory: Path) -> None:
    with embedded(directory) as server:
        with server.connect() as wire:
            wire.request(
                "GET", "/process?secret=1", "X-Auth-Token: hush", "Authorization: Basic aHVzaA=="
            )
        server.stop()
        (line,) = [line for line in server.log.splitlines() if "/process" in line]
        assert "GET /process 200" in line
        for secret in ("secret", "hush", "aHVzaA"):
            assert secret not in server.log


def test_log_names_a_request_once_and_no_other(directory: Path) -> None:
    with embedded(directory, "threads=1") as server:
        with server.connect() as wire:
            wire.request("GET", "/process", "X-Request: req-first")
        with server.connect() as wire:
            wire.send("no request at all\r\n\r\n")
            assert wire.answer().status == 400
        server.stop()
        assert server.log.count("req-first") == 1
        assert "[req-first] 127.0.0.1 GET /process 200" in server.log
        assert "[-] Invalid request" in server.log


def test_log_is_quiet_when_all_is_well(directory: Path) -> None:
    with embedded(directory, "access_log=false") as server:
        with server.connect() as wire:
            wire.request("GET", "/process")
        server.stop()
        assert [line for line in server.log.splitlines() if "stopping" not in line] == []
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""


def test_an_application_that_fails(directory: Path) -> None:
    with embedded(directory) as server:
        with server.connect() as wire:
            assert wire.request("GET", "/crash").status == 500
            assert wire.at_end()
        assert server.log.count("RuntimeError: a defect of the application") == 1


def test_without_keepalive(directory: Path) -> None:
    with embedded(directory, "keepalive=0") as server, server.connect() as wire:
        time.sleep(1.5)  # a new connection may wait all the same
        assert wire.request("GET", "/process").closes
        assert wire.at_end()


def test_idle_connections_take_no_threads(directory: Path) -> None:
    with embedded(directory, "threads=1") as server:
        silent: list[Any] = [server.connect() for _ in range(20)]
        with server.connect() as wire:
            assert wire.request("GET", "/process").status == 200
        for other in silent:
            other.sock.close()


# Unix sockets


def at(path: Path) -> str:
    return f"unix_socket={json.dumps(str(path))}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket(directory: Path, workers: int) -> None:
    """Made with its directory, for its user and group; gone with the server."""
    path = directory / "deeper" / "socket"
    with embedded(directory, at(path), f"workers={workers}") as server:
        assert server.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with Wire(path) as wire:
            for _ in range(3):
                assert len(wire.request("GET", "/file/image").body) == SIZE
        with Wire(path) as wire:
            data = os.urandom(300_000)
            assert wire.request("PUT", "/upload/new", body=data).json["bytes"] == len(data)
            assert (directory / "new").read_bytes() == data
        assert server.stop() == 0
    assert not path.exists()


def test_the_socket_of_a_dead_server_is_replaced(directory: Path) -> None:
    path = directory / "socket"
    with embedded(directory, at(path)) as server:
        for process in (psutil.Process(server.pid), *psutil.Process(server.pid).children()):
            process.kill()
    assert path.exists()
    with embedded(directory, at(path)), Wire(path) as wire:
        assert wire.request("GET", "/file/image?offset=0&length=9").body == bytes(9)


def test_the_socket_of_a_living_server_is_not(directory: Path) -> None:
    path = directory / "socket"
    with embedded(directory, at(path)):
        refused = pytest.raises(
            AssertionError, match=r"cannot listen on .*: Address already in use"
        )
        with refused, embedded(directory, at(path)):
            pass
        with Wire(path) as wire:
            assert wire.request("GET", "/file/image?offset=0&length=9").body == bytes(9)


@pytest.mark.parametrize(
    ("name", "text"), [("image", "Address already in use"), ("x" * 200, "path too long")]
)
def test_a_path_that_can_be_no_socket(directory: Path, name: str, text: str) -> None:
    refused = pytest.raises(AssertionError, match=f"cannot listen on .*{text}")
    with refused, embedded(directory, at(directory / name)):
        pass
    assert (directory / "image").stat().st_size == SIZE
