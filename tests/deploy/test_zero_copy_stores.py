"""The way of an image's bytes where there are several stores, counted by strace."""

import json
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.contract.stores.origin_server import running
from tests.deploy.wire import Wire
from tests.faults.service import wait_until
from tests.needs import require_strace
from tests.several_stores import several_stores
from tools import strace
from tools.serving import Serving

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZE = 64 * MIB
RECORD = b'{"disk_format": "raw", "container_format": "bare"}'
OCTETS = "Content-Type: application/octet-stream"
ZERO_COPY = {"sendfile", "splice", "copy_file_range"}


class Traced:
    """A server with several stores, under strace."""

    def __init__(self, server: Serving, prefix: Path) -> None:
        self.server = server
        self.prefix = prefix

    def counting(self) -> AbstractContextManager[Counter[str]]:
        """What goes through the server's sockets meanwhile: bytes by system call."""
        return strace.counting(self.prefix)


@pytest.fixture
def traced(serve: Serve, tmp_path: Path) -> Traced:
    prefix = tmp_path / "server"
    env = several_stores(tmp_path / "state")
    return Traced(serve(under=strace.command(require_strace(), prefix), env=env), prefix)


def copied(found: Counter[str]) -> int:
    """Bytes that passed user space on their way to or from a socket."""
    return sum(moved for name, moved in found.items() if name not in ZERO_COPY)


def record(wire: Wire) -> str:
    return str(wire.request("POST", "/v2/images", body=RECORD).json["id"])


@pytest.mark.parametrize("store_id", ["fast", "cheap"])
def test_up_and_down(traced: Traced, store_id: str) -> None:
    """Whichever store it is, in by splice and out by sendfile, whole and in part."""
    block = bytes(range(256)) * (MIB // 256)
    with Wire(traced.server.port) as wire:
        image = record(wire)
        path = f"/v2/images/{image}/file"
        fields = (OCTETS, f"x-image-meta-store: {store_id}", f"Content-Length: {SIZE}")
        with traced.counting() as received:
            wire.send(wire.head("PUT", path, *fields))
            for _ in range(SIZE // MIB):
                wire.send(block)
            assert wire.answer("PUT").status == 204
        assert SIZE - MIB <= received["splice"] <= SIZE, received
        assert copied(received) <= MIB, received
        stored = traced.server.state_dir / store_id / image
        assert stored.stat().st_size == SIZE

        with traced.counting() as sent:
            assert wire.request("GET", path).body == block * (SIZE // MIB)
        assert sent["sendfile"] == SIZE, sent
        assert copied(sent) <= MIB, sent

        with traced.counting() as sent:
            part = wire.request("GET", f"{path}?prefer=cheap", f"Range: bytes=5-{16 * MIB + 4}")
        assert (part.status, len(part.body)) == (206, 16 * MIB)
        assert sent["sendfile"] == 16 * MIB, sent
        assert copied(sent) <= MIB, sent


def test_a_registered_file(traced: Traced) -> None:
    file = traced.server.state_dir / "listed" / "image.img"
    file.write_bytes(bytes(SIZE))
    with Wire(traced.server.port) as wire:
        image = record(wire)
        body = b'{"url": "file://%s"}' % str(file).encode()
        with traced.counting() as registered:
            assert wire.request("POST", f"/v2/images/{image}/locations", body=body).status == 202
        assert copied(registered) <= MIB, registered
        with traced.counting() as sent:
            assert len(wire.request("GET", f"/v2/images/{image}/file").body) == SIZE
        assert sent["sendfile"] == SIZE, sent
        assert copied(sent) <= MIB, sent


def test_staged_data_is_spliced_and_linked(traced: Traced) -> None:
    """Once it is there, it is read to be hashed and inspected, and written nowhere."""
    block = bytes(range(256)) * (MIB // 256)
    with Wire(traced.server.port) as wire:
        image = record(wire)
        with traced.counting() as received:
            wire.send(
                wire.head("PUT", f"/v2/images/{image}/stage", OCTETS, f"Content-Length: {SIZE}")
            )
            for _ in range(SIZE // MIB):
                wire.send(block)
            assert wire.answer("PUT").status == 204
        assert SIZE - MIB <= received["splice"] <= SIZE, received
        assert copied(received) <= MIB, received
        import_by(wire, image, {"method": {"name": "glance-direct"}})
        moved = strace.on_file(traced.prefix, image)
        assert moved.keys() == {"pread64", "preadv2"}, moved
        assert wire.request("GET", f"/v2/images/{image}/file").body == block * (SIZE // MIB)


def test_a_copy_for_another_store_is_the_kernels(traced: Traced) -> None:
    """By copy_file_range or, where the file system has it, a reflink, which moves nothing."""
    with Wire(traced.server.port) as wire:
        image = record(wire)
        data = bytes(range(256)) * (SIZE // 256)
        assert wire.request("PUT", f"/v2/images/{image}/file", OCTETS, body=data).status == 204
        before = strace.on_file(traced.prefix, image)
        import_by(wire, image, {"method": {"name": "copy-image"}, "stores": ["cheap"]})
        moved = strace.on_file(traced.prefix, image) - before
        assert moved in ({"copy_file_range": SIZE}, {}), moved
        assert (traced.server.state_dir / "cheap" / image).read_bytes() == data


@pytest.mark.parametrize("plugins", ["", "no_op"])
def test_another_regions_image_is_spliced(
    server: Serving, serve: Serve, tmp_path: Path, plugins: str
) -> None:
    """Into the store, or to where plugins find it; from there on it is the kernel's."""
    data = bytes(range(256)) * (SIZE // 256)
    with Wire(server.port) as there:
        source = record(there)
        put = there.request("PUT", f"/v2/images/{source}/file", OCTETS, body=data)
        assert put.status == 204
    prefix = tmp_path / "server"
    env = several_stores(tmp_path / "state") | {
        "OS_DEFAULT__ENABLED_IMPORT_METHODS": "glance-download",
        "OS_HEADRACE__GLANCE_REGIONS": f"east:{server.url}",
        "OS_IMAGE_IMPORT_OPTS__IMAGE_IMPORT_PLUGINS": plugins,
    }
    here = Traced(serve(under=strace.command(require_strace(), prefix), env=env), prefix)
    method = {"name": "glance-download", "glance_region": "east", "glance_image_id": source}
    with Wire(here.server.port) as wire:
        image = record(wire)
        with here.counting() as moved:
            import_by(wire, image, {"method": method})
    assert SIZE - MIB <= moved["splice"] <= SIZE, moved
    assert copied(moved) <= MIB, moved
    written = strace.on_file(prefix, image)
    assert {"write", "pwrite64", "pwritev2"}.isdisjoint(written), written
    assert (here.server.state_dir / "fast" / image).read_bytes() == data


def import_by(wire: Wire, image: str, body: object) -> None:
    """Import an image's data, and wait for the end."""
    path = f"/v2/images/{image}"
    answer = wire.request("POST", f"{path}/import", body=json.dumps(body).encode())
    assert answer.status == 202, answer.body
    wait_until(lambda: "os_glance_import_task" not in wire.request("GET", path).json, "the import")
    assert wire.request("GET", path).json["status"] == "active"


def test_what_is_at_an_origin_is_copied_whole_and_in_part(traced: Traced) -> None:
    data = bytes(range(256)) * (4 * MIB // 256) + b"x"
    with running() as origin, Wire(traced.server.port) as wire:
        origin.data["/image"] = data
        image = record(wire)
        body = b'{"url": "%s"}' % origin.url("/image").encode()
        assert wire.request("POST", f"/v2/images/{image}/locations", body=body).status == 202
        path = f"/v2/images/{image}/file"
        with traced.counting() as sent:
            answer = wire.request("GET", path)
        assert (answer.status, answer.body) == (200, data)
        assert sent["sendfile"] == 0, sent
        for start, end in ((0, 0), (1000, 999_999), (len(data) - 1, len(data) - 1)):
            part = wire.request("GET", path, f"Range: bytes={start}-{end}")
            assert (part.status, part.body) == (206, data[start : end + 1])
        assert wire.request("GET", path, f"Range: bytes={len(data)}-").status == 416
        assert wire.request("GET", path).body == data  # on the same connection


def test_an_origin_that_breaks_off_cuts_the_answer_short(traced: Traced) -> None:
    """Nothing is made up, and nothing of the next answer is taken for the rest."""
    with running() as origin, Wire(traced.server.port) as wire:
        origin.data["/image"] = bytes(4 * MIB)
        image = record(wire)
        body = b'{"url": "%s"}' % origin.url("/image").encode()
        assert wire.request("POST", f"/v2/images/{image}/locations", body=body).status == 202
        origin.announced, origin.data["/image"] = 4 * MIB, bytes(MIB)
        wire.send(wire.head("GET", f"/v2/images/{image}/file"))
        assert wire.read_head().status == 200
        got = 0
        while block := wire.sock.recv(MIB):
            got += len(block)
        assert got <= MIB
        with Wire(traced.server.port) as again:
            assert again.request("GET", f"/v2/images/{image}").status == 200
