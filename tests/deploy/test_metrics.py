"""/metrics and /metrics/transfers: what they say is what clients have seen."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.bench import cache
from headrace.errors import ClientError
from tests.cli.conftest import run
from tests.deploy.test_settings_again import hang_up
from tests.deploy.wire import Answer, Wire
from tests.faults.conftest import Start
from tests.faults.service import GUARD, Service, wait_until
from tests.faults.test_imports import HERE, Origin, begin, origin
from tests.needs import require

__all__ = ["origin"]  # a fixture

MIB = 1 << 20
SIZE = 24 * MIB
DATA = os.urandom(SIZE)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(answer: Answer) -> Samples:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def metrics(service: Service) -> Samples:
    return parsed(service.request("GET", "/metrics"))


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"headrace_{name}", frozenset(labels.items())), 0.0)


def transfers(service: Service) -> list[dict[str, object]]:
    found: list[dict[str, object]] = service.request("GET", "/metrics/transfers").json["transfers"]
    return found


@contextlib.contextmanager
def slow(service: Service, image: str, *fields: str) -> Iterator[Wire]:
    """A download that has begun and is not read."""
    with service.connect(receive_buffer=65536) as wire:
        wire.send(wire.head("GET", f"/v2/images/{image}/file", *fields))
        wire.wait_for_head()
        yield wire


def over(service: Service, **labels: str) -> float:
    return value(metrics(service), "transfers_total", **labels)


def test_what_was_moved_is_counted(start: Start) -> None:
    service = start()
    image = service.active(DATA)
    target = f"/v2/images/{image}/file"
    assert service.request("GET", target).body == DATA
    assert service.request("GET", target, "Range: bytes=5-1000004").body == DATA[5:1000005]
    assert service.request("GET", target, "Range: bytes=5-6").body == DATA[5:7]
    assert service.request("GET", target, f"Range: bytes={SIZE}-").status == 416
    assert service.upload(image, b"again").status == 409
    found = metrics(service)
    up, down, small = (
        {"direction": "upload", "way": "splice"},
        {"direction": "download", "way": "sendfile"},
        {"direction": "download", "way": "copy"},  # two bytes leave with their headers
    )
    assert value(found, "transfer_bytes_total", **up) == SIZE
    assert value(found, "transfer_bytes_total", **down) == SIZE + 1_000_000
    assert value(found, "transfer_bytes_total", **small) == 2
    assert value(found, "transfers_total", **up, result="done") == 1
    assert value(found, "transfers_total", **down, result="done") == 2
    assert value(found, "errors_total", code="download.range_not_satisfiable") == 1
    assert value(found, "errors_total", code="image.status_conflict") == 1
    route = {"method": "GET", "route": "/v2/images/{image_id}/file"}
    assert value(found, "request_seconds_count", **route, status="200") == 1
    assert value(found, "request_seconds_count", **route, status="206") == 2
    assert value(found, "queue_seconds_count") >= 8
    assert transfers(service) == []


def test_no_id_of_a_request_becomes_a_label(start: Start) -> None:
    """Or whoever asks for what is not there could fill the memory."""
    service = start()
    for number in range(30):
        service.request("GET", f"/nothing/{number}")
        service.request("GET", f"/v2/images/{number}")
    routes = {dict(labels).get("route") for _, labels in metrics(service)}
    assert routes == {None, "none", "/v2/images/{image_id}"}


def test_imports_are_seen(start: Start, origin: str) -> None:
    """Those under way, those that wait, and how they ended."""
    service = start(env={**HERE, "OS_WSGI__TASK_POOL_THREADS": "1"})
    image, waiting = service.create(name="fetched"), service.create()
    labels = {"direction": "import", "way": "web-download"}
    begin(service, image, name="web-download", uri=origin)
    assert Origin.going.wait(GUARD)
    begin(service, waiting, name="web-download", uri=origin)
    (seen,) = transfers(service)
    assert (seen["image"], seen["name"], seen["client"]) == (image, "fetched", "")
    assert (seen["direction"], seen["way"], seen["size"]) == ("import", "web-download", None)
    found = metrics(service)
    assert value(found, "transfers_in_flight", **labels) == 1
    assert value(found, "imports_waiting") == 1
    told = run("top", env={"HEADRACE_URL": service.server.url}).out
    assert ", 1 importing" in told
    assert "⇣" in told
    Origin.done.set()
    wait_until(lambda: service.status(waiting) == "active", "the imports")
    assert transfers(service) == []
    found = metrics(service)
    assert value(found, "transfers_total", **labels, result="done") == 2
    sizes = [service.show(each)["size"] for each in (image, waiting)]
    assert value(found, "transfer_bytes_total", **labels) == sum(sizes)
    assert value(found, "imports_waiting") == 0


def test_transfers_under_way_are_seen(start: Start) -> None:
    """Their bytes are counted as they move, and once only."""
    service = start()
    image = service.active(DATA, name="the image")
    down = {"direction": "download", "way": "sendfile"}
    with slow(service, image) as wire:
        (seen,) = transfers(service)
        assert (seen["image"], seen["name"], seen["client"]) == (image, "the image", "127.0.0.1")
        assert (seen["size"], seen["way"], seen["direction"]) == (SIZE, "sendfile", "download")
        wait_until(lambda: value(metrics(service), "loop_downloads") == 1, "the loop's turn")
        found = metrics(service)
        assert value(found, "transfers_in_flight", **down) == 1
        assert value(found, "connections") == 2
        moved = value(found, "transfer_bytes_total", **down)
        assert 0 < moved < SIZE
        assert wire.answer().body == DATA
        wait_until(lambda: over(service, **down, result="done") == 1, "its count")
    found = metrics(service)
    assert value(found, "transfer_bytes_total", **down) == SIZE
    assert value(found, "transfers_in_flight", **down) == 0


def test_an_upload_under_way_is_seen(start: Start) -> None:
    service = start()
    image = service.create()
    with service.connect() as wire:
        octets = "Content-Type: application/octet-stream"
        target = f"/v2/images/{image}/file"
        wire.send(wire.head("PUT", target, octets, f"Content-Length: {SIZE}"), DATA[: SIZE // 2])
        wait_until(lambda: transfers(service) and transfers(service)[0]["moved"], "its bytes")
        (seen,) = transfers(service)
        assert (seen["image"], seen["size"], seen["way"]) == (image, SIZE, "splice")
        assert value(metrics(service), "transfers_in_flight", direction="upload", way="splice") == 1
    labels = {"direction": "upload", "way": "splice"}
    wait_until(lambda: over(service, **labels, result="failed") == 1, "its count")
    assert 0 < value(metrics(service), "transfer_bytes_total", **labels) <= SIZE // 2
    assert transfers(service) == []


def test_a_client_that_leaves_is_a_failure(start: Start) -> None:
    service = start()
    with slow(service, service.active(DATA)):
        assert len(transfers(service)) == 1
    labels = {"direction": "download", "way": "sendfile"}
    wait_until(lambda: over(service, **labels, result="failed") == 1, "its count")
    assert value(metrics(service), "transfer_bytes_total", **labels) < SIZE


def test_what_has_to_be_copied_says_why(start: Start) -> None:
    """Where the kernel refuses sendfile, downloads are whole all the same."""
    service = start(under=[sys.executable, "-m", "tests.deploy.without", "sendfile"])
    image = service.active(DATA)
    assert service.request("GET", f"/v2/images/{image}/file").body == DATA
    down = {"direction": "download", "way": "copy"}
    wait_until(lambda: over(service, **down, result="done") == 1, "its count")
    found = metrics(service)
    assert value(found, "fallbacks_total", way="sendfile", reason="self-test") == 1
    assert value(found, "transfer_bytes_total", **down) == SIZE


def test_cold_data_is_counted(start: Start) -> None:
    service = start()
    image = service.active(DATA)
    with (service.server.image_dir / image).open("rb") as file:
        try:
            cache.drop(file.fileno(), "the image")
        except ClientError as error:
            require(False, f"needs a directory on a disk: {error}")
    assert service.request("GET", f"/v2/images/{image}/file").body == DATA
    assert value(metrics(service), "cold_reads_total") > 0


# Several processes


def workers(service: Service) -> list[psutil.Process]:
    return psutil.Process(service.server.pid).children()


def test_all_processes_are_one_service(start: Start) -> None:
    """Whoever answers knows of all of them; counters outlive a process that is killed."""
    service = start("--workers", "3")
    image = service.active(DATA)
    before = value(metrics(service), "queue_seconds_count")
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(slow(service, image))
        for _ in range(5):
            assert len(transfers(service)) == 12
        found = metrics(service)
        assert value(found, "processes") == 3
        assert value(found, "transfers_in_flight", direction="download", way="sendfile") == 12
        busiest = max(workers(service), key=lambda process: len(process.net_connections()))
        busiest.kill()
        wait_until(lambda: value(metrics(service), "processes") == 3, "its successor")
        found = metrics(service)
        assert value(found, "transfers_in_flight", direction="download", way="sendfile") < 12
        assert value(found, "transfer_bytes_total", direction="upload", way="splice") == SIZE
        assert value(found, "queue_seconds_count") >= before + 17
        slots = {path.stem for path in (service.server.state_dir / "metrics").glob("*.db")}
        # The killed one's files are its successor's, and the main process has some of its own.
        assert len({slot.rpartition("_")[2] for slot in slots}) == 4


def test_a_worker_that_only_finishes_is_still_seen(start: Start) -> None:
    service = start()
    image = service.active(DATA)
    (old,) = workers(service)
    with slow(service, image) as wire:
        os.kill(service.server.pid, signal.SIGHUP)
        wait_until(lambda: len(workers(service)) == 2, "the new worker")
        wait_until(lambda: value(metrics(service), "processes") == 2, "both")
        assert len(transfers(service)) == 1
        assert wire.answer().body == DATA
    wait_until(lambda: not old.is_running(), "its end")
    found = metrics(service)
    assert value(found, "transfer_bytes_total", direction="download", way="sendfile") == SIZE
    assert value(found, "transfer_bytes_total", direction="upload", way="splice") == SIZE


# Who may see them


def test_they_are_for_this_machine(start: Start) -> None:
    service = start("--unauthenticated-ok")
    for target in ("/metrics", "/metrics/transfers"):
        answer = service.request("GET", target, "X-Forwarded-For: 192.0.2.1")
        assert answer.status == 403
        assert b"through a proxy" in answer.body
        assert service.request("GET", target, "Origin: http://elsewhere").status == 403
        assert service.request("POST", target).status == 405
    assert service.request("GET", "/v2/images", "X-Forwarded-For: 192.0.2.1").status == 200


def test_everybody_may_see_them(start: Start) -> None:
    service = start("--unauthenticated-ok", env={"OS_HEADRACE__METRICS": "everybody"})
    assert service.request("GET", "/metrics", "X-Forwarded-For: 192.0.2.1").status == 200


def test_nobody_sees_them(start: Start) -> None:
    service = start(env={"OS_HEADRACE__METRICS": "off"})
    assert service.request("GET", "/metrics").status == 404
    assert service.request("GET", "/metrics/transfers").status == 404
    assert not (service.server.state_dir / "metrics").exists()
    image = service.active(DATA)
    assert service.request("GET", f"/v2/images/{image}/file").body == DATA


def test_others_on_the_machine_cannot_ask_a_process(start: Start) -> None:
    """They tell each other through a directory that is their user's."""
    service = start()
    directory = service.server.state_dir / "metrics"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert list(directory.glob("*.sock"))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("count", ["1", "2"])
def test_an_address_of_their_own(tmp_path: Path, start: Start, count: str) -> None:
    """There they are, and nothing else; at the service's own they are not.  SIGHUP moves them."""
    port, other = free_port(), free_port()
    conf = tmp_path / "headrace.conf"
    conf.write_text(f"[headrace]\nmetrics = 127.0.0.1:{port}\n")
    service = start("--config-file", str(conf), "--workers", count)
    image = service.active(DATA)
    assert service.request("GET", "/metrics").status == 404
    with Wire(port) as wire:
        found = parsed(wire.request("GET", "/metrics", "X-Forwarded-For: 192.0.2.1"))
        assert value(found, "transfer_bytes_total", direction="upload", way="splice") == SIZE
        assert wire.request("GET", "/metrics/transfers").json == {"transfers": []}
        assert wire.request("GET", "/v2/images").status == 404
        assert wire.request("DELETE", f"/v2/images/{image}").status == 404
    assert service.status(image) == "active"
    conf.write_text(f"[headrace]\nmetrics = 127.0.0.1:{other}\n")
    hang_up(service.server, lambda: answers(other))
    wait_until(lambda: not answers(port), "the end of the old address")


def answers(port: int) -> bool:
    try:
        with Wire(port) as wire:
            return wire.request("GET", "/metrics").status == 200
    except OSError:
        return False


def test_an_address_that_is_taken_is_told(tmp_path: Path, start: Start) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(RuntimeError, match="Address already in use"):
            start(env={"OS_HEADRACE__METRICS": taken})


def test_a_directory_that_cannot_be_used_stops_nothing(tmp_path: Path, start: Start) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "metrics").write_text("in the way")
    service = start(state_dir=state)
    image = service.active(DATA)
    found = metrics(service)
    assert value(found, "transfer_bytes_total", direction="upload", way="splice") == SIZE
    assert service.status(image) == "active"
    assert "each process has metrics of its own" in service.server.log.read_text()


def test_a_process_that_cannot_be_asked_serves_all_the_same(tmp_path: Path, start: Start) -> None:
    directory = tmp_path / "state" / "metrics"
    (directory / "1.sock").mkdir(parents=True)
    with (directory / "0.slot").open("w") as slot:
        fcntl.flock(slot, fcntl.LOCK_EX)  # another process of the service, so it has slot 1
        service = start(state_dir=tmp_path / "state")
        service.active(DATA)
        found = metrics(service)
    assert value(found, "transfer_bytes_total", direction="upload", way="splice") == SIZE
    assert value(found, "processes") == 1
    assert "lack this one's: Is a directory" in service.server.log.read_text()
