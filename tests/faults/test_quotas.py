"""A running server with a quota: crowds, clients that leave, kill -9; never more than it says."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.faults.service import BLOCK, GUARD, Service, leases, wait_until
from tests.faults.test_imports import HERE, Origin, origin, staged
from tools.serving import serving

__all__ = ["origin"]

OCTETS = "Content-Type: application/octet-stream"
FRAMINGS = pytest.mark.parametrize("framing", ["plain", "chunked"])
ROOM = 10


@contextmanager
def limited(directory: Path, mib: int, **limits: str) -> Iterator[Service]:
    """A server of two processes whose projects may have so many MiB."""
    env = {**HERE, "OS_DEFAULT__USER_STORAGE_QUOTA": f"{mib}MB"}
    env |= {f"OS_HEADRACE__{name.upper()}": value for name, value in limits.items()}
    with serving(directory, "--workers", "2", env=env) as server:
        yield Service(server)


def usage(service: Service, name: str = "image_size_total") -> int:
    """In MiB, or images."""
    return int(service.request("GET", "/v2/info/usage").json["usage"][name]["usage"])


def reserved(service: Service) -> int:
    """Bytes, of all uploads under way."""
    path = f"file:{service.server.state_dir}/headrace.db?mode=ro"
    with closing(sqlite3.connect(path, uri=True)) as database:
        query = "SELECT coalesce(sum(coalesce(reserved, 0)), 0) FROM headrace_uploads"
        return int(database.execute(query).fetchone()[0])


def head(framing: str, size: int) -> str:
    return "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {size}"


def piece(block: bytes, framing: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block) if framing == "chunked" else block


def put(service: Service, image_id: str, framing: str, blocks: int, way: str = "file") -> int:
    """The status of an upload of so many MiB; the client listens when nobody takes more."""
    target = f"/v2/images/{image_id}/{way}"
    with service.connect() as wire:
        length = head(framing, blocks * BLOCK)
        wire.send(wire.head("PUT", target, OCTETS, length, "Connection: close"))
        try:
            for _ in range(blocks):
                wire.send(piece(bytes(BLOCK), framing))
            if framing == "chunked":
                wire.send(b"0\r\n\r\n")
        except OSError:
            pass  # it has been refused
        return wire.answer("PUT").status


@FRAMINGS
def test_of_a_hundred_uploads_ten_fit(tmp_path: Path, framing: str) -> None:
    with limited(tmp_path, ROOM, image_count_total="100") as service:
        ids = [service.create() for _ in range(100)]
        start = threading.Barrier(25)

        def one(image_id: str) -> int:
            start.wait()
            while True:
                # 503: more uploads at a time than the server takes.
                status = put(service, image_id, framing, 1)
                if status != 503:
                    return status

        with ThreadPoolExecutor(25) as pool:
            found = list(pool.map(one, ids))
        assert (found.count(204), found.count(413)) == (ROOM, 90)
        assert usage(service) == ROOM
        assert len(service.check_store()) == 100
        assert len(service.files()) == ROOM
        assert service.request("POST", "/v2/images", body=b"{}").status == 413
        assert reserved(service) == 0


@FRAMINGS
def test_clients_that_leave_take_nothing_with_them(tmp_path: Path, framing: str) -> None:
    with limited(tmp_path, 8) as service:
        for _ in range(3):
            with ExitStack() as clients:
                for image_id in (service.create(), service.create()):
                    wire = clients.enter_context(service.connect())
                    target = f"/v2/images/{image_id}/file"
                    wire.send(wire.head("PUT", target, OCTETS, head(framing, 4 * BLOCK)))
                    wire.send(piece(bytes(BLOCK), framing))
                    wait_until(lambda i=image_id: service.status(i) == "saving", "the claim")
                # The two have all, or what has come so far.
                assert usage(service) in ((8,) if framing == "plain" else (1, 2))
                assert put(service, service.create(), "plain", 8) == 413
            wait_until(lambda: usage(service) == 0, "giving back")
        assert put(service, service.create(), framing, 8) == 204
        service.check_store()


@pytest.mark.parametrize("way", ["file", "stage"])
def test_no_more_is_taken_than_is_left(tmp_path: Path, way: str) -> None:
    """OSSA-2014-028: of a body without an end, spliced chunk by chunk."""
    with limited(tmp_path, 100, image_stage_total="100") as service:
        image_id = service.create()
        assert put(service, image_id, "chunked", 200, way) == 413
        wait_until(lambda: not leases(service.server), "the release")
        assert service.status(image_id) == "queued"
        service.check_store()
        assert staged(service.server) == []
        assert put(service, image_id, "chunked", 100, way) == 204
        name = "image_size_total" if way == "file" else "image_stage_total"
        assert usage(service, name) == 100


@FRAMINGS
@pytest.mark.parametrize("way", ["file", "stage"])
def test_what_a_killed_server_had_reserved_is_free_again(
    tmp_path: Path, framing: str, way: str
) -> None:
    name = "image_size_total" if way == "file" else "image_stage_total"
    with limited(tmp_path, 8, image_stage_total="8") as first:
        stored = first.active(bytes(BLOCK))
        image_id = first.create()
        with first.connect() as wire:
            size = (7 if way == "file" else 8) * BLOCK
            target = f"/v2/images/{image_id}/{way}"
            wire.send(wire.head("PUT", target, OCTETS, head(framing, size)))
            for _ in range(3):
                wire.send(piece(os.urandom(BLOCK), framing))
            stored_too = 1 if way == "file" else 0
            least = 8 if framing == "plain" else 3 + stored_too
            wait_until(lambda: usage(first, name) >= least, "the reservation")
            first.server.kill()
    with limited(tmp_path, 8, image_stage_total="8") as second:
        assert usage(second, name) == (1 if way == "file" else 0)
        assert usage(second, "image_count_uploading") == 0
        assert second.files() == {stored}
        assert put(second, image_id, framing, 7, way) == 204


def test_what_a_killed_import_had_reserved_is_free_again(origin: str, tmp_path: Path) -> None:
    body = json.dumps({"method": {"name": "web-download", "uri": origin}}).encode()
    with limited(tmp_path, 10_000) as first:
        image_id = first.create()
        assert first.request("POST", f"/v2/images/{image_id}/import", body=body).status == 202
        assert Origin.going.wait(GUARD)
        wait_until(lambda: usage(first) >= 64, "the reservation")
        first.server.kill()
    with limited(tmp_path, 10_000) as second:
        assert usage(second) == 0
        assert leases(second.server) == []


def test_an_import_ends_where_its_quota_does(origin: str, tmp_path: Path) -> None:
    """Of an origin that sends for ever and does not say so."""
    body = json.dumps({"method": {"name": "web-download", "uri": origin}}).encode()
    with limited(tmp_path, 12) as service:
        image_id = service.create()
        assert service.request("POST", f"/v2/images/{image_id}/import", body=body).status == 202
        wait_until(lambda: service.status(image_id) == "queued", "the end")
        (task,) = service.request("GET", f"/v2/images/{image_id}/tasks").json["tasks"]
        assert (task["status"], "image_size_total" in task["message"]) == ("failure", True)
        assert usage(service) == 0
        service.check_store()


def test_a_client_that_waits_to_be_asked_sends_nothing(tmp_path: Path) -> None:
    """``Expect: 100-continue`` is answered after the quota."""
    with limited(tmp_path, 2) as service, service.connect() as wire:
        target = f"/v2/images/{service.create()}/file"
        fields = (OCTETS, f"Content-Length: {3 * BLOCK}", "Expect: 100-continue")
        wire.send(wire.head("PUT", target, *fields))
        assert wire.answer("PUT").status == 413
