"""A store without room says so, holds nothing of what did not fit, and takes what does."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import Start
from tests.faults.service import BLOCK, Service, wait_until
from tests.faults.test_uploads import BLOCKS, OCTETS, SIZE, begin, end, piece
from tests.needs import require, require_root

ROOM = 6 * BLOCK
FITS = b"".join(BLOCKS[:4])


@contextmanager
def tmpfs(directory: Path, size: int) -> Iterator[Path]:
    require_root()
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True)
    require(done.returncode == 0, f"needs to mount a tmpfs: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory whose images lie in a tmpfs of 6 MiB."""
    with tmpfs(tmp_path / "state" / "images", ROOM):
        yield tmp_path / "state"


def test_announced_data_is_refused_before_it_is_sent(start: Start, small_disk: Path) -> None:
    service = start(state_dir=small_disk)
    image_id = service.create()
    with service.connect() as wire, service.one_complaint(image_id, "no room"):
        begin(wire, image_id, "plain", "Expect: 100-continue")
        answer = wire.answer("PUT")
        assert (answer.status, answer.closes) == (413, True)
        assert answer.headers["x-headrace-error"] == "store.full"
    service.check_released(image_id)


def test_the_disk_fills_up(start: Start, small_disk: Path) -> None:
    service = start(state_dir=small_disk)
    image_id = service.create()
    with service.connect() as wire, service.one_complaint(image_id, "no room"):
        begin(wire, image_id, "chunked")
        for block in BLOCKS:
            wire.send(piece(block, "chunked"))
        wire.send(end("chunked"))
        answer = wire.answer("PUT")
        assert answer.status == 413
        assert answer.headers["x-headrace-error"] == "store.full"
    service.check_released(image_id)
    fitting = service.create()
    assert service.upload(fitting, FITS).status == 204
    service.check_store()


def test_two_uploads_that_fit_one_by_one(start: Start, small_disk: Path) -> None:
    """Nothing is reserved: the later one hits the end of the disk and gives its room back."""
    service = start(state_dir=small_disk)
    first, second = service.create(), service.create()
    with service.connect() as one, service.connect() as other:
        for wire, image_id in ((one, first), (other, second)):
            wire.send(wire.head("PUT", f"/v2/images/{image_id}/file", OCTETS,
                                f"Content-Length: {len(FITS)}"))  # fmt: skip
        one.send(FITS[:-1])
        images = service.server.image_dir
        wait_until(lambda: shutil.disk_usage(images).used >= len(FITS), "landing of the first")
        other.send(FITS[: 3 * BLOCK])
        assert other.answer("PUT").status == 413
        one.send(FITS[-1:])
        assert one.answer("PUT").status == 204
    service.delete(first)
    assert service.upload(second, FITS).status == 204
    service.check_store()


def test_a_limit_on_file_size(start: Start) -> None:
    """RLIMIT_FSIZE: the kernel says EFBIG, and not by killing the worker."""
    service: Service = start()
    for pid in service.server.pids():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (ROOM, ROOM))
    image_id = service.create()
    with service.one_complaint(image_id, "no room"):
        answer = service.upload(image_id, b"".join(BLOCKS))
        assert (answer.status, answer.headers["x-headrace-error"]) == (413, "store.full")
    service.check_released(image_id)
    assert SIZE > ROOM > len(FITS)
    assert service.upload(service.create(), FITS).status == 204
    service.check_store()


def test_no_room_for_the_record(start: Start, tmp_path: Path) -> None:
    """The database's disk is full when the data has landed: neither is kept, the lease runs out."""
    with tmpfs(tmp_path / "small", ROOM) as state:
        images = tmp_path / "images"
        settings = {
            "OS_GLANCE_STORE__FILESYSTEM_STORE_DATADIR": str(images),
            "OS_HEADRACE__UPLOAD_LEASE": "3",
        }
        service = start(state_dir=state, env=settings)
        image_id = service.create()
        with service.connect() as wire:
            begin(wire, image_id, "plain")
            wire.send(*BLOCKS[:-1])
            wait_until(lambda: service.status(image_id) == "saving", "the claim")
            fill(state / "ballast")
            wire.send(BLOCKS[-1])
            answer = wire.answer("PUT")
            assert (answer.status, answer.headers["x-headrace-error"]) == (
                503,
                "service.unavailable",
            )
        assert service.request("GET", f"/v2/images/{image_id}").status == 200
        refused = service.request("POST", "/v2/images", body=b"{}")
        assert refused.status == 503

        (state / "ballast").unlink()
        wait_until(lambda: service.status(image_id) == "queued", "the end of the lease")
        wait_until(lambda: not any(map(Path.is_file, images.rglob("*"))), "the removal")
        assert service.upload(image_id, FITS).status == 204
        assert service.request("GET", f"/v2/images/{image_id}/file").body == FITS
        service.server.stop()


def fill(path: Path) -> None:
    """Take all the room that is left, to the last byte."""
    size = 1 << 16
    with path.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
