"""What a transfer must not do: go past its limit, make up what is missing, hide what it met."""

import contextlib
import fcntl
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.transfer.engine import Extent, FileSink, How, Reader, Sink, Stream, pump, pump_all
from tests.contract.transfer.ends import (
    HANG,
    SINKS,
    SOURCES,
    everything,
    file_with,
    from_socket,
    meanwhile,
    opened,
    tcp_pair,
    use_up,
)
from tests.needs import require, require_root

MIB = 1 << 20
CONTENT = os.urandom(4 * MIB)


# The limit


@pytest.mark.parametrize("source", sorted(SOURCES.keys() - {"endless"}))
def test_a_known_length_over_the_limit_is_refused_before_a_byte_moves(
    ways: str, source: str
) -> None:
    with SINKS["file"]() as (sink, arrived):
        with SOURCES[source](CONTENT) as content:
            with pytest.raises(errors.ImageTooLarge) as caught:
                pump(content, sink, limit=len(CONTENT) - 1)
            use_up(content)
        assert caught.value.fields == {"cap": len(CONTENT) - 1}
    assert arrived.content == b""


@pytest.mark.parametrize("sink", SINKS)
def test_an_unknown_length_may_reach_the_limit(ways: str, sink: str) -> None:
    with SINKS[sink]() as (into, arrived), SOURCES["endless"](CONTENT) as content:
        assert pump(content, into, limit=len(CONTENT)).bytes == len(CONTENT)
    assert arrived.content == CONTENT


@pytest.mark.parametrize("sink", SINKS)
def test_an_unknown_length_stops_at_the_limit(ways: str, sink: str) -> None:
    limit = len(CONTENT) - 1
    with (
        SINKS[sink]() as (into, arrived),
        SOURCES["endless"](CONTENT) as content,
        pytest.raises(errors.ImageTooLarge),
    ):
        pump(content, into, limit=limit)
    assert arrived.content == CONTENT[:limit]


def test_an_object_of_unknown_length_stops_at_the_limit(ways: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(CONTENT)
    with (
        (tmp_path / "image").open("rb") as file,
        SINKS["file"]() as (sink, arrived),
        pytest.raises(errors.ImageTooLarge),
    ):
        pump(Reader(file), sink, limit=MIB)
    assert arrived.content == CONTENT[:MIB]


def test_the_limit_is_of_the_whole_body(ways: str) -> None:
    with SINKS["file"]() as (sink, arrived):
        with pytest.raises(errors.ImageTooLarge) as caught:
            pump_all([CONTENT[:MIB], b"one more"], sink, limit=MIB + 7)
        assert caught.value.fields == {"cap": MIB + 7}
    assert arrived.content == CONTENT[:MIB]


# What is missing


@pytest.mark.parametrize("sink", SINKS)
def test_a_file_shorter_than_said(ways: str, sink: str) -> None:
    with SINKS[sink]() as (into, arrived), opened(fd := file_with(CONTENT)):
        extent = Extent(fd, 1000, len(CONTENT))
        with pytest.raises(errors.FileTruncated) as caught:
            pump(extent, into)
        assert caught.value.fields == {"missing": 1000, "moved": len(CONTENT) - 1000}
        assert extent.sent == len(CONTENT) - 1000
    assert arrived.content == CONTENT[1000:]


@pytest.mark.parametrize("sink", SINKS)
def test_a_file_cut_short_on_the_way(ways: str, sink: str) -> None:
    content = CONTENT * 8
    kept = len(content) * 3 // 4
    with SINKS[sink]() as (into, arrived), opened(fd := file_with(content)):
        with pytest.raises(errors.FileTruncated) as caught:
            pump(Extent(fd, 0, len(content)), into, progress=lambda _: os.truncate(fd, kept))
        assert caught.value.fields == {"missing": len(content) - kept, "moved": kept}
    assert arrived.content == content[:kept]


@pytest.mark.parametrize("pair", ["tcp", "polled", "unix"])
@pytest.mark.parametrize("sink", SINKS)
def test_a_peer_that_closes_early(ways: str, pair: str, sink: str) -> None:
    # A source of unknown length is one that ends where its peer closes.
    with SINKS[sink]() as (into, arrived), from_socket(pair, known=False)(CONTENT) as content:
        assert isinstance(content, Stream)
        with pytest.raises(errors.PeerGone) as caught:
            pump(Stream(content.fd, len(CONTENT) + 1, HANG), into)
        assert caught.value.fields == {"moved": len(CONTENT)}
    assert arrived.content == CONTENT


def test_an_object_that_ends_early(ways: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(CONTENT)
    with (
        (tmp_path / "image").open("rb") as file,
        SINKS["file"]() as (sink, _),
        pytest.raises(errors.PeerGone) as caught,
    ):
        pump(Reader(file, len(CONTENT) + 1), sink)
    assert caught.value.fields == {"moved": len(CONTENT)}


def test_an_object_whose_peer_fails(ways: str) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs, SINKS["file"]() as (sink, _):
        ours.settimeout(0.05)
        with pytest.raises(errors.PeerStalled):
            pump(Reader(ours.makefile("rb")), sink)


# Where there is no room


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("source", sorted(SOURCES.keys()))
def test_a_file_may_not_grow_that_far(ways: str, source: str) -> None:
    with SINKS["file"]() as (sink, arrived), SOURCES[source](CONTENT) as content:
        with file_size_limit(MIB + 100), pytest.raises(errors.StoreFull) as caught:
            pump(content, sink)
        use_up(content)
    assert arrived.content == CONTENT[: MIB + 100]
    assert caught.value.fields == {"moved": MIB + 100}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    require_root()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    require(subprocess.run(mount, capture_output=True).returncode == 0, "may not mount a tmpfs")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("source", ["file", "tcp", "polled", "pipe", "bytes"])
def test_a_full_disk(ways: str, small_disk: Path, source: str) -> None:
    with opened(fd := file_with(b"", small_disk)):
        with SOURCES[source](CONTENT) as content:
            with pytest.raises(errors.StoreFull):
                pump(content, FileSink(fd))
            use_up(content)
        landed = everything(fd)
        assert landed == CONTENT[: len(landed)]
        assert len(landed) <= MIB


@pytest.mark.parametrize("source", ["file", "tcp", "bytes"])
def test_a_file_that_may_not_be_written(ways: str, source: str) -> None:
    sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW)
    content = CONTENT[:100_000]
    with opened(sealed), SOURCES[source](content) as into:
        with pytest.raises(errors.StoreUnwritable):
            pump(into, FileSink(sealed))
        use_up(into)


def test_what_failed_leaves_nothing_to_the_next_transfer(ways: str) -> None:
    """A pipe with bytes left in it is closed, not used again."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(40):
        test_a_file_may_not_grow_that_far(ways, "tcp")
        with SINKS["file"]() as (sink, arrived), SOURCES["tcp"](CONTENT[:MIB]) as content:
            how = pump(content, sink).how
        assert arrived.content == CONTENT[:MIB]
        assert how is (How.SPLICE if ways == "linux" else How.COPY)
    assert len(os.listdir("/proc/self/fd")) <= before + 2, "one idle pipe"


def test_a_cancelled_transfer_leaves_nothing_to_the_next(ways: str) -> None:
    class Cancelled(Exception):
        pass

    def cancel(_: int) -> None:
        raise Cancelled

    sink: Sink
    for _ in range(3):
        ours, theirs = tcp_pair()
        with ours, theirs, SINKS["file"]() as (sink, _arrived):
            theirs.sendall(CONTENT[:MIB])
            with pytest.raises(Cancelled):
                pump(Stream(ours.fileno(), MIB), sink, progress=cancel)
        with SINKS["file"]() as (sink, arrived), SOURCES["tcp"](CONTENT) as content:
            pump(content, sink)
        assert arrived.content == CONTENT


def test_an_observer_learns_how_far_it_came(ways: str) -> None:
    heard: list[tuple[int, bool]] = []
    ours, theirs = tcp_pair()

    def leave() -> None:
        theirs.recv(MIB)
        theirs.close()

    with ours, theirs, meanwhile(leave):
        extent = Extent(file_with(CONTENT * 8), 0, len(CONTENT) * 8)
        extent.on_close(lambda sent, ok: heard.append((sent, ok)))
        with pytest.raises(errors.PeerGone) as caught:
            pump(extent, Stream(ours.fileno(), stall=HANG))
        extent.close()
    assert heard == [(caught.value.fields["moved"], False)]
    assert heard[0][0] > 0
