"""BOOT_STORM against a service whose images lie elsewhere: what it tells is what happened there."""

import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from headrace.client import Connection, Images
from tests import certificates, relay
from tests.bench.test_images import impostor
from tests.client.peer import Request, Wire
from tests.contract.stores.origin_server import Origin, running
from tests.needs import require_command, require_strace
from tests.several_stores import several_stores
from tools import strace
from tools.serving import COMMAND, Serving, environment, serving

MIB = 1 << 20
DATA = random.Random(5).randbytes(5 * MIB + 17)
CLIENTS = 5
GUARD = 60.0  # seconds; a hang guard


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with running() as found:
        yield found


@contextlib.contextmanager
def caching(directory: Path, **more: str) -> Iterator[Serving]:
    env = several_stores(directory) | {
        "OS_DEFAULT__IMAGE_CACHE_DIR": str(directory / "cache"),
        "OS_DEFAULT__DO_SECURE_HASH": "false",
    }
    with serving(directory, "--workers", "2", env=env | more) as found:
        yield found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with caching(tmp_path_factory.mktemp("caching")) as found:
        yield found


def remote(service: Serving, origin: Origin, digest: str | None = None) -> str:
    """The id of an image at the origin, which was asked for nothing since."""
    origin.data["/image"] = DATA
    told = digest or hashlib.sha256(DATA).hexdigest()
    place = {
        "url": origin.url("/image"),
        "validation_data": {"os_hash_algo": "sha256", "os_hash_value": told},
    }
    with Connection(service.url) as connection:
        image = Images(connection).create(disk_format="raw", container_format="bare")
        connection.request("POST", f"/v2/images/{image['id']}/locations", body=place)
    origin.asked.clear()
    return str(image["id"])


def storm(url: str, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, "bench", "-t", "BOOT_STORM", "--clients", str(CLIENTS), "-l", "0.2", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GUARD,
        env=environment({"HEADRACE_URL": url}),
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


def figures(url: str, *words: str) -> dict[str, Any]:
    (found,) = json.loads(storm(url, "--json", "-f", "K", *words).stdout)
    return dict(found)


def test_its_numbers_add_up(service: Serving, origin: Origin) -> None:
    image = remote(service, origin)
    pids = ("-C", "--far-pid", str(service.pid), "--store-pid", str(os.getpid()))
    for _ in range(2):  # the second time the cache is emptied of it
        found = figures(service.url, "--image", image, *pids)
        (asked,) = origin.asked
        assert asked[1] == "/image"
        origin.asked.clear()
        assert (found["BACKEND_READS"], found["BACKEND_BYTES"]) == (1, len(DATA))
        assert found["CACHE"] == "cold"
        assert found["warnings"] == [] or "busy time" in found["warnings"][0]
    assert (found["STREAMS"], found["CLIENTS_SERVED"]) == (CLIENTS, CLIENTS)
    moved = found["THROUGHPUT"] * 1024 * found["ELAPSED_TIME"]
    assert moved == pytest.approx(CLIENTS * len(DATA), rel=1e-9)
    waits = [found[name] for name in ("FIRST_BYTE_P50", "FETCH_P50", "FETCH_P99", "ELAPSED_TIME")]
    assert waits == sorted(waits)
    assert 0 < found["FIRST_BYTE_P50"] <= found["FIRST_BYTE_P99"] <= found["FETCH_P99"]
    ratio = found["WARM_THROUGHPUT"] / found["THROUGHPUT"]
    assert found["OVER_WARM"] == pytest.approx(ratio, rel=1e-6)
    assert found["REMOTE_PROC_SD"] > 0
    assert found["STORE_PROC_SD"] > 0


def test_what_the_cache_passes_by_is_read_for_each(tmp_path: Path, origin: Origin) -> None:
    with caching(tmp_path, OS_DEFAULT__IMAGE_CACHE_MAX_SIZE=str(MIB)) as service:
        found = figures(service.url, "--image", remote(service, origin))
        assert found["BACKEND_READS"] == CLIENTS
        assert found["BACKEND_BYTES"] == CLIENTS * len(DATA)
        assert len(origin.asked) >= CLIENTS


def test_an_image_that_lies_in_a_file_is_read_from_nowhere(service: Serving) -> None:
    found = figures(service.url)
    assert (found["BACKEND_READS"], found["BACKEND_BYTES"]) == (0, 0)
    assert found["CLIENTS_SERVED"] == CLIENTS


def test_a_service_without_a_cache(tmp_path: Path, origin: Origin) -> None:
    with serving(tmp_path, env=several_stores(tmp_path)) as service:
        found = figures(service.url, "--image", remote(service, origin))
    assert found["BACKEND_READS"] is None
    assert found["CACHE"] == "warm"
    assert "image_cache_dir is not set" in found["warnings"][0]


def test_wrong_bytes_are_nobodys(service: Serving, origin: Origin) -> None:
    image = remote(service, origin, digest="0" * 64)
    said = storm(service.url, "--image", image, status=1).stderr
    assert "no client got the image: " in said
    assert "closed in the middle of an image" in said


def test_who_is_refused_is_told(service: Serving) -> None:
    assert "none" in storm(service.url, "--image", "none", status=1).stderr


def test_a_table(service: Serving, origin: Origin) -> None:
    lines = storm(service.url, "--image", remote(service, origin)).stdout.splitlines()
    assert lines[0] == f"BOOT STORM TEST from {service.url} to this machine"
    assert lines[6].split()[:4] == [str(CLIENTS), str(len(DATA)), "1.00", str(len(DATA))]


def test_bytes_are_dropped_in_the_kernel(service: Serving, tmp_path: Path) -> None:
    prefix = tmp_path / "trace"
    with Connection(service.url) as connection:
        images = Images(connection)
        image = str(images.create(disk_format="raw", container_format="bare")["id"])
        (tmp_path / "image").write_bytes(DATA)
        images.upload(image, tmp_path / "image")
    words = [
        *strace.command(require_strace(), prefix),
        COMMAND,
        "bench",
        "-t",
        "BOOT_STORM",
        "--clients",
        "3",
    ]
    subprocess.run(
        [*words, "--image", image, "-l", "0.1"], check=True, capture_output=True, timeout=GUARD,
        env=environment({"HEADRACE_URL": service.url}),
    )  # fmt: skip
    moved = strace.on_sockets(prefix).bytes
    assert moved["recvfrom"] > 3 * len(DATA)


def _record(wire: Wire, request: Request, size: int) -> bool:
    """Answer what is asked about images; False for their data."""
    if "/file" in request.line:
        return False
    record = {"id": "x", "status": "active", "size": size}
    wire.answer_json({"images": []} if "?" in request.line else record)
    return True


def _in_chunks(wire: Wire, request: Request, *, end: bytes = b"0\r\n\r\n") -> None:
    """Chunks whose framing comes a byte at a time, as some front may send them."""
    if _record(wire, request, 70_000):
        return
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for size in (1, 69_000, 999):
        for each in f"{size:x};x=y\r\n".encode():
            wire.send(bytes([each]))
        wire.send(bytes(size))
        wire.send(b"\r")
        wire.send(b"\n")
    wire.send(end)
    wire.sock.close()


def test_chunks() -> None:
    with impostor(_in_chunks) as url:
        found = figures(url, "--image", "x")
        assert found["CLIENTS_SERVED"] == CLIENTS
        assert found["THROUGHPUT"] * 1024 * found["ELAPSED_TIME"] == pytest.approx(CLIENTS * 70_000)
    with impostor(partial(_in_chunks, end=b"")) as url:
        said = storm(url, "--image", "x", status=1).stderr
    assert "no client got the image: the connection was closed" in said


@contextlib.contextmanager
def encrypted(url: str, directory: Path) -> Iterator[tuple[str, str]]:
    """What is at ``url`` behind TLS, and the certificate to trust."""
    certificate = certificates.make(directory / "both.pem")
    port = urlsplit(url).port
    assert port is not None
    with relay.encrypted(port, certificate) as found:
        yield found, str(certificate)


def test_through_tls(service: Serving, origin: Origin, tmp_path: Path) -> None:
    image = remote(service, origin)
    with encrypted(service.url, tmp_path) as (url, certificate):
        found = figures(url, "--image", image, "--cafile", certificate)
        assert (found["VIA"], found["CACHE"]) == ("copy", "cold")
        assert (found["CLIENTS_SERVED"], found["BACKEND_READS"]) == (CLIENTS, 1)
        moved = found["THROUGHPUT"] * 1024 * found["ELAPSED_TIME"]
        assert moved == pytest.approx(CLIENTS * len(DATA), rel=1e-9)
        assert found["WARM_THROUGHPUT"] > 0
        said = storm(url, "--image", image, status=1).stderr
        assert "its certificate is not trusted" in said


def test_chunks_through_tls(tmp_path: Path) -> None:
    with impostor(_in_chunks) as plain, encrypted(plain, tmp_path) as (url, certificate):
        found = figures(url, "--image", "x", "--cafile", certificate)
        assert found["CLIENTS_SERVED"] == CLIENTS
        assert found["THROUGHPUT"] * 1024 * found["ELAPSED_TIME"] == pytest.approx(CLIENTS * 70_000)
    cut = partial(_in_chunks, end=b"")
    with impostor(cut) as plain, encrypted(plain, tmp_path) as (url, certificate):
        said = storm(url, "--image", "x", "--cafile", certificate, status=1).stderr
    assert "no client got the image: the connection was closed" in said


def _until_closed(wire: Wire, request: Request) -> None:
    if not _record(wire, request, 70_000):
        wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(70_000))
        wire.sock.close()


def test_an_answer_without_a_length() -> None:
    with impostor(_until_closed) as url:
        assert figures(url, "--image", "x")["CLIENTS_SERVED"] == CLIENTS


def _refuses(wire: Wire, request: Request) -> None:
    if not _record(wire, request, 99):
        wire.answer("503 Service Unavailable", b"")
        wire.sock.close()


def test_a_service_that_gives_nothing() -> None:
    with impostor(_refuses) as url:
        said = storm(url, "--image", "x", status=1).stderr
    assert "the answer is HTTP/1.1 503 Service Unavailable" in said
    assert said.count("\n") == 1


def test_more_clients_than_a_process_may_have_sockets(service: Serving) -> None:
    done = subprocess.run(
        [require_command("prlimit"), "--nofile=40:40", COMMAND, "bench", "-t", "BOOT_STORM",
         "--clients", "100"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GUARD,
        env=environment({"HEADRACE_URL": service.url}),
    )  # fmt: skip
    assert done.returncode == 1
    said = "headrace: no socket for each client: Too many open files"
    assert done.stderr.startswith(said), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--cold"], "without --cold"),
        (["--slow", "1M"], "without --cold and --slow"),
        (["--streams", "2"], "has --clients"),
        (["-l", "-1M"], "-l is in seconds"),
        (["-t", "IMAGE_GET"], "--clients and --store-pid are of BOOT_STORM"),
        (["--via", "splice"], "goes by drop, not by splice"),
        (["--url", "https://127.0.0.1:1", "--via", "drop"], "TLS bytes can only be copied"),
    ],
)
def test_wrong_words(words: list[str], text: str) -> None:
    assert text in storm("http://127.0.0.1:1", *words, status=2).stderr
