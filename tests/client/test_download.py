"""Downloads: whole and right under their name, or not there at all."""

import contextlib
import fcntl
import hashlib
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace import errors
from headrace.client import Connection, Downloaded, Images
from headrace.client.download import BACKOFF_S, kept
from headrace.client.partial import Expected, partial_name
from tests.client.peer import Wire, peer
from tools.serving import Serving

MIB = 1 << 20
DATA = bytes(range(251)) * 16_000  # 4 MB, with no period that a page or block has
IMAGE_ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


def record(data: bytes = DATA, **changes: Any) -> dict[str, object]:
    return {
        "id": IMAGE_ID,
        "size": len(data),
        "os_hash_algo": "sha256",
        "os_hash_value": hashlib.sha256(data).hexdigest(),
        "checksum": hashlib.md5(data).hexdigest(),
    } | changes


def position(wire: Wire) -> int | None:
    """Where the client wants to go on; None if it wants all."""
    request = wire.head()
    assert request.line == f"GET /v2/images/{IMAGE_ID}/file HTTP/1.1"
    wanted = request.headers.get("range")
    return None if wanted is None else int(wanted.removeprefix("bytes=").removesuffix("-"))


def serve_from(
    data: bytes = DATA, *, until: int | None = None, end: Callable[[Wire], None] | None = None
) -> Callable[[Wire], None]:
    """A step that answers one GET, with ranges, up to the byte ``until``; then cuts."""

    def serve(wire: Wire) -> None:
        start = position(wire)
        head = "HTTP/1.1 200 OK\r\n"
        if start is not None:
            head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{len(data) - 1}/"
            head += f"{len(data)}\r\n"
        body = data[start or 0 :]
        wire.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):  # the client may have seen enough
            wire.send(body if until is None else data[start or 0 : until])
        if end is not None:
            end(wire)

    return serve


def without_ranges(until: int | None = None) -> Callable[[Wire], None]:
    def serve(wire: Wire) -> None:
        position(wire)
        wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):  # the client may not want what it has
            wire.send(DATA[:until])

    return serve


def fetch(url: str, target: Path | int, image: dict[str, object], **options: Any) -> Downloaded:
    with Connection(url, timeout=10) as connection:
        return Images(connection).download(image, target, **options)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextlib.contextmanager
def drained() -> Iterator[tuple[int, list[bytes]]]:
    """The writing end of a pipe, and what comes out of it once the block is left."""
    reader, writer = os.pipe()
    found: list[bytes] = []

    def drain() -> None:
        with open(reader, "rb") as pipe:
            found.append(pipe.read())

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield writer, found
    finally:
        os.close(writer)
        thread.join()


def test_a_file_lands_whole_verified_and_alone(tmp_path: Path) -> None:
    seen: list[int] = []
    with peer(serve_from()) as found, Connection(found.url) as connection:
        done = Images(connection).download(record(), tmp_path / "image", progress=seen.append)
    assert (tmp_path / "image").read_bytes() == DATA
    assert names(tmp_path) == ["image"]
    assert (done.moved.bytes, done.resumed, done.verified) == (len(DATA), 0, "sha256")
    assert done.moved.how == "splice"
    assert seen[-1] == len(DATA)
    assert seen == sorted(seen)


@pytest.mark.parametrize("size", [0, 1, 100, 8191, 8192, 8193, 100_000])
def test_any_size_lands(tmp_path: Path, size: int) -> None:
    data = DATA[:size]
    with peer(serve_from(data)) as found:
        assert fetch(found.url, tmp_path / "image", record(data)).verified == "sha256"
    assert (tmp_path / "image").read_bytes() == data


def test_a_connection_serves_more_than_one_download(tmp_path: Path) -> None:
    def serve(wire: Wire) -> None:
        serve_from()(wire)
        serve_from()(wire)

    with peer(serve) as found, Connection(found.url) as connection:
        for name in ("a", "b"):
            Images(connection).download(record(), tmp_path / name)
    assert found.connections == 1
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == DATA


def test_wrong_bytes_never_appear(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"what was there")
    wrong = bytearray(DATA)
    wrong[MIB] ^= 1
    with peer(serve_from(bytes(wrong))) as found:
        with pytest.raises(errors.DataCorrupt, match="sha256") as caught:
            fetch(found.url, tmp_path / "image", record())
        assert caught.value.fields["actual"] == hashlib.sha256(wrong).hexdigest()
    assert (tmp_path / "image").read_bytes() == b"what was there"
    assert names(tmp_path) == ["image"]


def test_wrong_bytes_are_taken_if_nobody_minds(tmp_path: Path) -> None:
    wrong = b"x" * len(DATA)
    with peer(serve_from(wrong)) as found:
        assert fetch(found.url, tmp_path / "image", record(), verify=False).verified is None
    assert (tmp_path / "image").read_bytes() == wrong


@pytest.mark.parametrize(
    ("changes", "verified"),
    [
        ({}, "sha256"),
        ({"os_hash_algo": None, "os_hash_value": None}, "md5"),
        ({"os_hash_algo": "of-the-future"}, "md5"),
        ({"os_hash_algo": None, "os_hash_value": None, "checksum": None}, None),
    ],
)
def test_the_best_hash_there_is_decides(
    tmp_path: Path, changes: dict[str, Any], verified: str | None
) -> None:
    with peer(serve_from()) as found:
        done = fetch(found.url, tmp_path / "image", record(**changes))
    assert done.verified == verified
    assert (tmp_path / "image").read_bytes() == DATA


@pytest.mark.parametrize("end", [None, Wire.reset])
def test_after_a_cut_it_goes_on(tmp_path: Path, end: Callable[[Wire], None] | None) -> None:
    steps = [serve_from(until=1_000_000, end=end), serve_from(until=3_000_000, end=end)]
    with peer(*steps, serve_from()) as found:
        done = fetch(found.url, tmp_path / "image", record())
    assert found.connections == 3
    assert (tmp_path / "image").read_bytes() == DATA
    assert (done.moved.bytes, done.resumed, done.verified) == (len(DATA), 0, "sha256")


def test_without_progress_it_gives_up_and_keeps_what_there_is(tmp_path: Path) -> None:
    target = tmp_path / "image"
    half = len(DATA) // 2
    cuts = [serve_from(until=half) for _ in range(len(BACKOFF_S) + 1)]
    with peer(*cuts) as found, pytest.raises(errors.PeerGone):
        fetch(found.url, target, record())
    assert found.connections == len(cuts)
    assert names(tmp_path) == [partial_name(Expected.of(record()))]
    assert kept(record(), target) == (tmp_path / partial_name(Expected.of(record())), half)

    with peer(serve_from()) as found:
        done = fetch(found.url, target, record())
    assert names(tmp_path) == ["image"]
    assert target.read_bytes() == DATA
    assert (done.resumed, done.moved.bytes, done.verified) == (half, len(DATA) - half, "sha256")


def leave_partial(directory: Path, data: bytes) -> None:
    (directory / partial_name(Expected.of(record()))).write_bytes(data)


def test_it_can_start_over(tmp_path: Path) -> None:
    leave_partial(tmp_path, DATA[:MIB])

    def serve(wire: Wire) -> None:
        assert position(wire) is None
        wire.answer("200 OK", DATA)

    with peer(serve) as found:
        assert fetch(found.url, tmp_path / "image", record(), resume=False).resumed == 0
    assert (tmp_path / "image").read_bytes() == DATA


def test_what_is_whole_already_is_not_fetched_again(tmp_path: Path) -> None:
    leave_partial(tmp_path, DATA)
    with peer() as found:
        done = fetch(found.url, tmp_path / "image", record())
    assert (done.moved.bytes, done.resumed, done.verified) == (0, len(DATA), "sha256")
    assert (tmp_path / "image").read_bytes() == DATA


@pytest.mark.parametrize("left", [b"damaged" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 1)])
def test_a_damaged_remainder_is_fetched_again(tmp_path: Path, left: bytes) -> None:
    leave_partial(tmp_path, left)
    steps = [serve_from()] if len(left) >= len(DATA) else [serve_from(), serve_from()]
    with peer(*steps) as found:
        assert fetch(found.url, tmp_path / "image", record()).verified == "sha256"
    assert (tmp_path / "image").read_bytes() == DATA
    assert names(tmp_path) == ["image"]


def test_the_remainder_of_another_content_is_left_alone(tmp_path: Path) -> None:
    other = record(b"other")
    (tmp_path / partial_name(Expected.of(other))).write_bytes(b"oth")
    with peer(serve_from()) as found:
        assert fetch(found.url, tmp_path / "image", record()).resumed == 0
    assert (tmp_path / "image").read_bytes() == DATA


def test_a_remainder_in_use_is_left_alone(tmp_path: Path) -> None:
    leave_partial(tmp_path, DATA[:MIB])
    name = partial_name(Expected.of(record()))
    with (tmp_path / name).open("rb") as held, peer(serve_from()) as found:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert fetch(found.url, tmp_path / "image", record()).resumed == 0
    assert (tmp_path / "image").read_bytes() == DATA
    assert (tmp_path / name).read_bytes() == DATA[:MIB]
    assert names(tmp_path) == sorted([name, "image"])


@pytest.mark.parametrize("trap", ["symlink", "hardlink"])
def test_a_remainder_laid_by_somebody_else_is_not_written(tmp_path: Path, trap: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    laid = tmp_path / partial_name(Expected.of(record()))
    if trap == "symlink":
        laid.symlink_to(victim)
    else:
        laid.hardlink_to(victim)
    with peer(serve_from()) as found:
        fetch(found.url, tmp_path / "image", record())
    assert (tmp_path / "image").read_bytes() == DATA
    assert victim.read_bytes() == b"precious"


def test_without_ranges_it_starts_over(tmp_path: Path) -> None:
    with peer(without_ranges(until=MIB), without_ranges(), without_ranges()) as found:
        done = fetch(found.url, tmp_path / "image", record())
    assert (tmp_path / "image").read_bytes() == DATA
    assert done.verified == "sha256"


def test_a_wrong_range_is_not_taken_for_the_right_one(tmp_path: Path) -> None:
    def serve(wire: Wire) -> None:
        assert position(wire) == MIB
        wrong = {"Content-Range": f"bytes 5-9/{len(DATA)}"}
        with contextlib.suppress(ConnectionError):  # the client has seen enough
            wire.answer("206 Partial Content", DATA[5:], wrong)

    with (
        peer(serve_from(until=MIB), serve) as found,
        pytest.raises(errors.ClientError, match="bytes from"),
    ):
        fetch(found.url, tmp_path / "image", record())
    assert not (tmp_path / "image").exists()


def test_another_size_than_recorded_is_refused(tmp_path: Path) -> None:
    with (
        peer(serve_from(DATA + b"x")) as found,
        pytest.raises(errors.ClientError, match="of an image of"),
    ):
        fetch(found.url, tmp_path / "image", record())
    assert names(tmp_path) == []


def test_an_image_without_data_is_an_error(tmp_path: Path) -> None:
    def serve(wire: Wire) -> None:
        position(wire)
        wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    with (
        peer(serve) as found,
        pytest.raises(errors.ClientError, match="has no data"),
    ):
        fetch(found.url, tmp_path / "image", record(size=None, checksum=None, os_hash_algo=None))
    assert names(tmp_path) == []


def test_a_body_without_end_ends_with_the_image(tmp_path: Path) -> None:
    """It fills no disk, and is not taken for the image, whatever its start is."""

    def without_end(wire: Wire) -> None:
        position(wire)
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for block in itertools.chain([DATA], itertools.repeat(bytes(MIB), 64)):
                wire.send(b"%x\r\n%s\r\n" % (len(block), block))

    seen: list[int] = []
    with peer(without_end) as found, pytest.raises(errors.DataCorrupt, match="more than"):
        fetch(found.url, tmp_path / "image", record(), progress=seen.append)
    assert seen[-1] == len(DATA)
    assert names(tmp_path) == []


@pytest.mark.parametrize("cut", [False, True])
def test_chunked_and_unbounded_answers_land_too(tmp_path: Path, cut: bool) -> None:
    def chunked(wire: Wire) -> None:
        position(wire)
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(DATA), 100_000):
            if cut and start:
                return
            block = DATA[start : start + 100_000]
            wire.send(b"%x\r\n%s\r\n" % (len(block), block))
        wire.send(b"0\r\n\r\n")

    def unbounded(wire: Wire) -> None:
        position(wire)
        wire.send(b"HTTP/1.0 200 OK\r\n\r\n" + DATA)

    steps = [chunked, serve_from()] if cut else [chunked, unbounded]
    with peer(*steps) as found:
        fetch(found.url, tmp_path / "a", record())
        assert (tmp_path / "a").read_bytes() == DATA
        if not cut:
            fetch(found.url, tmp_path / "b", record())
            assert (tmp_path / "b").read_bytes() == DATA


def test_a_link_is_followed_and_a_mode_kept(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    with peer(serve_from()) as found:
        fetch(found.url, tmp_path / "link", record())
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == DATA
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


def test_a_new_file_has_the_mode_of_new_files(tmp_path: Path) -> None:
    with peer(serve_from()) as found:
        fetch(found.url, tmp_path / "image", record())
    (tmp_path / "other").touch()
    assert (tmp_path / "image").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_target_that_cannot_be_is_named(tmp_path: Path) -> None:
    with peer() as found:
        with pytest.raises(errors.ClientError, match="is a directory"):
            fetch(found.url, tmp_path, record())
        with pytest.raises(errors.ClientError, match="No such file"):
            fetch(found.url, tmp_path / "missing" / "image", record())
        with pytest.raises(errors.ClientError, match="File name too long"):
            fetch(found.url, tmp_path / ("n" * 300), record())


@pytest.mark.parametrize(("verify", "how"), [(True, "copy"), (False, "splice")])
def test_a_pipe_gets_the_bytes(verify: bool, how: str) -> None:
    with peer(serve_from()) as found, drained() as (pipe, come):
        done = fetch(found.url, pipe, record(), verify=verify)
    assert come == [DATA]
    assert (done.moved.bytes, done.moved.how) == (len(DATA), how)
    assert done.verified == ("sha256" if verify else None)


def test_a_pipe_gets_the_rest_after_a_cut() -> None:
    with peer(serve_from(until=MIB), serve_from()) as found, drained() as (pipe, come):
        assert fetch(found.url, pipe, record()).verified == "sha256"
    assert come == [DATA]


def test_wrong_bytes_in_a_pipe_are_an_error_afterwards() -> None:
    with (
        peer(serve_from(b"x" * len(DATA))) as found,
        drained() as (pipe, _),
        pytest.raises(errors.DataCorrupt),
    ):
        fetch(found.url, pipe, record())


@pytest.mark.parametrize("verify", [True, False])
def test_a_reader_that_goes_away_ends_it(verify: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with peer(serve_from(end=lambda wire: None)) as found, pytest.raises(BrokenPipeError):
            fetch(found.url, writer, record(), verify=verify)
    finally:
        os.close(writer)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("way", ["descriptor", "device"])
def test_what_cannot_be_written_is_not_the_peer_s_fault(verify: bool, way: str) -> None:
    full = Path("/dev/full")
    with (
        full.open("wb", buffering=0) as out,
        peer(without_ranges()) as found,
        pytest.raises(errors.ClientError, match="cannot write the data: No space left"),
    ):
        fetch(found.url, out.fileno() if way == "descriptor" else full, record(), verify=verify)
    assert found.connections == 1


@pytest.mark.parametrize(
    ("mode", "before", "how"),
    [("wb", b"", "splice"), ("wb", b"before", "copy"), ("ab", b"before", "copy")],
)
def test_a_redirected_file_gets_the_bytes_where_it_stands(
    tmp_path: Path, mode: str, before: bytes, how: str
) -> None:
    path = tmp_path / "out"
    with path.open(mode, buffering=0) as out, peer(serve_from()) as found:
        out.write(before)
        done = fetch(found.url, out.fileno(), record())
        out.write(b"after")
    assert path.read_bytes() == before + DATA + b"after"
    assert (done.verified, done.moved.how) == ("sha256", how)


def test_the_server_s_images_come_back(server: Serving, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(DATA)
    with Connection(server.url) as connection:
        images = Images(connection)
        made = images.create(name="back", disk_format="raw", container_format="bare")
        image_id = str(made["id"])
        with pytest.raises(errors.ClientError, match="has no data"):
            images.download(image_id, tmp_path / "out")
        images.upload(image_id, tmp_path / "in")
        done = images.download(image_id, tmp_path / "out")
        assert (done.verified, done.moved.how) == ("sha512", "splice")
        assert (tmp_path / "out").read_bytes() == DATA

        image = images.show(image_id)
        (tmp_path / partial_name(Expected.of(image))).write_bytes(DATA[:MIB])
        done = images.download(image, tmp_path / "again")
        assert (done.resumed, done.verified) == (MIB, "sha512")
        assert (tmp_path / "again").read_bytes() == DATA
