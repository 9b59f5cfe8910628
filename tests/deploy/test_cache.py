"""The image cache of a service with several workers in front of an origin elsewhere."""

import hashlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.contract.stores.origin_server import Origin, running
from tests.deploy.conftest import Deployed
from tests.deploy.wire import Answer, Wire
from tests.faults.test_store_full import tmpfs
from tests.needs import require_strace
from tests.several_stores import several_stores
from tools import strace
from tools.serving import Serving, serving

GUARD = 60.0  # seconds; a hang guard
MIB = 1 << 20
DATA = random.Random(3).randbytes(24 * MIB)
RECORD = b'{"disk_format": "raw", "container_format": "bare"}'


class Paced:
    """Sends pieces of 1 MiB, each once it is let; all of them once it is ``open``."""

    def __init__(self, origin: Origin) -> None:
        self._turns = threading.Semaphore(0)
        self._open = threading.Event()
        origin.pieces = self

    def __call__(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), MIB):
            while not self._open.is_set() and not self._turns.acquire(timeout=0.01):
                pass
            yield data[start : start + MIB]

    def let(self, pieces: int) -> None:
        self._turns.release(pieces)

    def open(self) -> None:
        self._open.set()


def settings(directory: Path) -> dict[str, str]:
    return several_stores(directory) | {
        "OS_DEFAULT__IMAGE_CACHE_DIR": str(directory / "cache"),
        "OS_DEFAULT__IMAGE_CACHE_MAX_SIZE": str(64 * MIB),
        "OS_DEFAULT__DO_SECURE_HASH": "false",
        "OS_HEADRACE__UPLOAD_LEASE": "6",
    }


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service with three workers, for tests that kill none."""
    directory = tmp_path_factory.mktemp("cached")
    with serving(directory, "--workers", "3", env=settings(directory)) as found:
        yield found


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running() as found:
        yield found


def remote(
    server: Serving | Deployed, origin: Origin, data: bytes = DATA, said: bytes | None = None
) -> str:
    """The id of an active image at the origin, which was asked for nothing since."""
    path = f"/{os.urandom(4).hex()}"
    origin.data[path] = data if said is None else said
    digest = hashlib.sha256(data).hexdigest()
    place = {
        "url": origin.url(path),
        "validation_data": {"os_hash_algo": "sha256", "os_hash_value": digest},
    }
    with Wire(server.port) as wire:
        image_id = str(wire.request("POST", "/v2/images", body=RECORD).json["id"])
        answer = wire.request(
            "POST",
            f"/v2/images/{image_id}/locations",
            "Content-Type: application/json",
            body=json.dumps(place).encode(),
        )
        assert answer.status == 202, answer.body
        assert wire.request("GET", f"/v2/images/{image_id}").json["status"] == "active"
    origin.asked.clear()
    return image_id


def download(server: Serving, image_id: str, *fields: str) -> Answer:
    with Wire(server.port) as wire:
        return wire.request("GET", f"/v2/images/{image_id}/file", "Connection: close", *fields)


def begin(stack: ExitStack, server: Serving, image_id: str) -> Wire:
    """A download whose head has come."""
    wire = stack.enter_context(Wire(server.port))
    wire.send(wire.head("GET", f"/v2/images/{image_id}/file", "Connection: close"))
    wire.wait_for_head()
    return wire


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def whole(server: Serving, image_id: str) -> Path:
    """The file of an image once it is in the cache."""
    path = server.state_dir / "cache" / image_id
    wait(path.exists)
    return path


def fillers(server: Serving, image_id: str) -> set[int]:
    """The workers that write to an image's entry."""
    path = str(server.state_dir / "cache" / "incomplete" / image_id)
    found = set()
    for pid in server.pids():
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                flags = Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().split("flags:")[1].split()
                if os.readlink(fd) == path and int(flags[0], 8) & os.O_RDWR:
                    found.add(pid)
            except OSError:
                continue
    return found


def test_a_crowd_at_all_workers_is_one_read(workers: Serving, origin: Origin) -> None:
    data = DATA[: 4 * MIB]
    image_id = remote(workers, origin, data)
    paced = Paced(origin)
    with ThreadPoolExecutor(60) as crowd:
        answers = [crowd.submit(download, workers, image_id) for _ in range(50)]
        parts = [crowd.submit(download, workers, image_id, "Range: bytes=5-9") for _ in range(10)]
        paced.open()
        assert {each.result().body for each in answers} == {data}
        assert {each.result().body for each in parts} == {data[5:10]}
    whole_reads = [heads for _, _, heads in origin.asked if "Range" not in heads]
    assert len(whole_reads) == 1


def test_nobody_waits_for_the_whole(workers: Serving, origin: Origin) -> None:
    """The first bytes come while the last are not there; and who leaves stops nothing."""
    image_id = remote(workers, origin)
    paced = Paced(origin)
    with ExitStack() as stack:
        first, second = (begin(stack, workers, image_id) for _ in range(2))
        assert len(origin.asked) == 1
        paced.let(2)
        for wire in (first, second):
            answer = wire.read_head()
            assert answer.headers["content-length"] == str(len(DATA))
            got = wire.buffered()
            while len(got) < MIB:
                got += wire.sock.recv(MIB)
            assert got == DATA[: len(got)]
            wire.sock.close()
    paced.open()
    assert whole(workers, image_id).read_bytes() == DATA
    assert len(origin.asked) == 1
    assert download(workers, image_id).body == DATA


def test_ossa_2013_007_a_hit_is_answered_as_a_miss_is(workers: Serving, origin: Origin) -> None:
    image_id = remote(workers, origin)
    miss = download(workers, image_id)
    whole(workers, image_id)
    hit = download(workers, image_id)
    changing = ("date", "x-openstack-request-id")
    for answer in (miss, hit):
        assert answer.status == 200
        assert answer.body == DATA
        for name in changing:
            del answer.headers[name]
    assert miss.headers == hit.headers
    assert origin.url("") not in str(hit.headers)


def test_wrong_bytes_reach_nobody_whole(workers: Serving, origin: Origin) -> None:
    image_id = remote(workers, origin, said=DATA[:-1] + bytes([DATA[-1] ^ 1]))
    answer = download(workers, image_id)
    assert answer.status == 200
    assert not answer.whole
    assert len(answer.body) < len(DATA)
    assert not (workers.state_dir / "cache" / image_id).exists()


def test_a_store_that_is_gone_closes_the_connection(workers: Serving, origin: Origin) -> None:
    image_id = remote(workers, origin)

    def break_off(data: bytes) -> Iterator[bytes]:
        origin.data.clear()
        yield data[:MIB]
        raise ConnectionResetError

    origin.pieces = break_off
    answer = download(workers, image_id)
    assert answer.status == 200
    assert answer.body == DATA[: len(answer.body)]
    assert not answer.whole


def test_what_the_cache_does_is_counted(workers: Serving, origin: Origin) -> None:
    def counted() -> dict[str, float]:
        with Wire(workers.port) as wire:
            lines = wire.request("GET", "/metrics").body.decode().splitlines()
        found = dict(line.rsplit(" ", 1) for line in lines if line.startswith("headrace_cache"))
        return {name: float(value) for name, value in found.items()}

    image_id = remote(workers, origin)
    wait(lambda: counted()["headrace_cache_filling"] == 0)  # of other tests
    before = counted()
    download(workers, image_id)
    whole(workers, image_id)
    download(workers, image_id)
    lookups = 'headrace_cache_lookups_total{result="%s"}'
    wait(lambda: counted()["headrace_cache_filling"] == 0)
    after = counted()
    for name, more in (
        (lookups % "miss", 1),
        (lookups % "hit", 1),
        ('headrace_cache_fills_total{result="whole"}', 1),
        ("headrace_cache_fetched_bytes_total", len(DATA)),
    ):
        assert after[name] == before.get(name, 0) + more, name
    assert after["headrace_cache_bytes"] >= len(DATA)


def test_a_hit_is_sent_by_sendfile(serve: Serve, origin: Origin, tmp_path: Path) -> None:
    """And a miss comes in by splice, and leaves by sendfile, too."""
    prefix = tmp_path / "server"
    server = serve(under=strace.command(require_strace(), prefix), env=settings(tmp_path / "state"))
    image_id = remote(server, origin)
    with strace.counting(prefix) as found:
        assert download(server, image_id).body == DATA
        whole(server, image_id)
    assert found["splice"] >= len(DATA) - MIB  # but for what came with the head
    assert found["sendfile"] >= len(DATA) - MIB
    with strace.counting(prefix) as found:
        assert download(server, image_id).body == DATA
    assert found["sendfile"] == len(DATA)
    others = sum(moved for name, moved in found.items() if name != "sendfile")
    assert others < MIB


def test_another_worker_goes_on_when_the_filling_one_is_killed(
    serve: Serve, origin: Origin, tmp_path: Path
) -> None:
    server = serve("--workers", "3", env=settings(tmp_path / "state"))
    image_id = remote(server, origin)
    paced = Paced(origin)
    with ExitStack() as stack:
        wires = [begin(stack, server, image_id) for _ in range(30)]
        paced.let(4)
        (filler,) = fillers(server, image_id)
        landing = server.state_dir / "cache" / "incomplete" / image_id
        wait(lambda: landing.stat().st_size >= 3 * MIB)
        os.kill(filler, signal.SIGKILL)
        paced.open()
        with ThreadPoolExecutor(len(wires)) as crowd:
            answers = list(crowd.map(lambda wire: wire.answer(), wires))
    kept = [answer for answer in answers if answer.whole]
    assert kept
    assert {answer.body for answer in kept} == {DATA}
    for answer in answers:
        assert answer.body == DATA[: len(answer.body)]
    ranges = [heads.get("Range", "bytes=0-") for _, _, heads in origin.asked]
    assert sum(each == "bytes=0-" for each in ranges) <= 2
    assert any(not each.startswith("bytes=0-") for each in ranges)
    assert whole(server, image_id).read_bytes() == DATA


def test_the_cache_of_an_edge_asks_its_centre_once(serve: Serve, tmp_path: Path) -> None:
    """Another Headrace, whose images are all that the edge has."""
    centre = serve(state_dir=tmp_path / "centre")
    edge = serve(
        "--workers", "2",
        state_dir=tmp_path / "edge",
        env={
            "OS_DEFAULT__ENABLED_BACKENDS": "near:file,centre:imageapi",
            "OS_DEFAULT__IMAGE_CACHE_DIR": str(tmp_path / "edge" / "cache"),
            "OS_GLANCE_STORE__DEFAULT_BACKEND": "near",
            "OS_NEAR__FILESYSTEM_STORE_DATADIR": str(tmp_path / "near"),
            "OS_CENTRE__IMAGEAPI_ENDPOINT": centre.url,
            "OS_CENTRE__IMAGEAPI_STANDS_FOR": f"file://{centre.image_dir}",
            "OS_DATABASE__CONNECTION": f"sqlite:///{centre.state_dir}/headrace.db",
        },
    )  # fmt: skip
    with Wire(centre.port) as wire:
        image_id = str(wire.request("POST", "/v2/images", body=RECORD).json["id"])
        octets = "Content-Type: application/octet-stream"
        path = f"/v2/images/{image_id}/file"
        assert wire.request("PUT", path, octets, body=DATA).status == 204
    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(lambda _: download(edge, image_id), range(20)))
    assert {answer.body for answer in answers} == {DATA}
    whole(edge, image_id)
    with Wire(centre.port) as wire:
        lines = wire.request("GET", "/metrics").body.decode().splitlines()
        downloads = [line for line in lines if 'transfers_total{direction="download"' in line]
        assert sum(float(line.split()[-1]) for line in downloads) == 1
        assert wire.request("DELETE", f"/v2/images/{image_id}").status == 204
    assert download(edge, image_id).status == 404  # whatever its cache has


def test_a_cache_whose_disk_is_full_is_passed_by(
    serve: Serve, origin: Origin, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "state" / "cache", 8 * MIB):
        server = serve(env=settings(tmp_path / "state"))
        image_id, small = remote(server, origin), remote(server, origin, DATA[: 4 * MIB])
        assert download(server, image_id).body == DATA
        assert not (tmp_path / "state" / "cache" / image_id).exists()
        assert download(server, small).body == DATA[: 4 * MIB]
        assert whole(server, small).stat().st_size == 4 * MIB
        server.stop()
