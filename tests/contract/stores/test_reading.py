"""What every store promises who reads from it, those that take no data included."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace import errors
from headrace.stores.base import Store
from headrace.stores.destinations import Destinations, Rules
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.http import HttpStore
from headrace.stores.listed import ListedFiles
from headrace.stores.origin import Origins
from tests.contract.stores import buckets, rbds, swifts
from tests.contract.stores.origin_server import running
from tests.contract.stores.storing import IMAGE_ID, OTHER_ID, descriptors, put
from tests.faults.service import wait_until

CONTENT = bytes(range(256)) * 5000


@dataclass
class Readable:
    """A store; ``place`` has data lie in it, whose URL it returns; ``missing`` is of none."""

    store: Store
    place: Callable[[bytes], str]
    missing: str


def filesystem(tmp_path: Path, _stack: contextlib.ExitStack) -> Readable:
    store = FilesystemStore("file", tmp_path / "images")
    return Readable(store, lambda data: put(store, data), store.url(OTHER_ID))


def listed(tmp_path: Path, _stack: contextlib.ExitStack) -> Readable:
    directory = tmp_path / "listed"
    (directory / "sub").mkdir(parents=True)

    def place(data: bytes) -> str:
        (directory / "sub" / "image.img").write_bytes(data)
        return f"file://{directory}/sub/image.img"

    store = ListedFiles("", [str(directory)], [str(tmp_path / "images")])
    return Readable(store, place, f"file://{directory}/sub/none.img")


def http(_tmp_path: Path, stack: contextlib.ExitStack) -> Readable:
    origin = stack.enter_context(running())

    def place(data: bytes) -> str:
        origin.data["/image"] = data
        return origin.url("/image")

    rules = Rules(allowed_hosts=("127.0.0.1",), allowed_ports=(origin.port,))
    return Readable(HttpStore("web", Origins(Destinations(rules))), place, origin.url("/none"))


def swift(tmp_path: Path, _stack: contextlib.ExitStack) -> Readable:
    return _placed(swifts.store(tmp_path / "images"))


def s3(tmp_path: Path, _stack: contextlib.ExitStack) -> Readable:
    return _placed(buckets.store(buckets.SWIFT, tmp_path / "images"))


def s3_passed_by(tmp_path: Path, _stack: contextlib.ExitStack) -> Readable:
    return _placed(buckets.store(buckets.SWIFT, tmp_path / "images", passes_by=True))


def rgw(tmp_path: Path, _stack: contextlib.ExitStack) -> Readable:
    return _placed(buckets.store(buckets.RGW, tmp_path / "images"))


def rbd(tmp_path: Path, _stack: contextlib.ExitStack) -> Readable:
    return _placed(rbds.store(tmp_path / "images"))


def _placed(store: Store) -> Readable:
    def place(data: bytes) -> str:
        with contextlib.suppress(errors.NotFound):
            store.delete(store.url(IMAGE_ID))
        return put(store, data)

    return Readable(store, place, store.url(OTHER_ID))


ADDRESSES = {
    swift: "swift_address",
    s3: "s3_address",
    s3_passed_by: "s3_address",
    rbd: "ceph_address",
    rgw: "rgw_address",
}
"""The fixtures of what stores need to run."""


@pytest.fixture(
    params=[
        filesystem, listed, http,
        *(pytest.param(make, marks=pytest.mark.slow) for make in (swift, s3, s3_passed_by)),
        *(pytest.param(make, marks=pytest.mark.ceph) for make in (rbd, rgw)),
    ],
    ids=lambda make: make.__name__,
)  # fmt: skip
def readable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Readable]:
    if request.param in ADDRESSES:
        request.getfixturevalue(ADDRESSES[request.param])
    with contextlib.ExitStack() as stack:
        yield request.param(tmp_path, stack)


def test_all_of_it(readable: Readable) -> None:
    url = readable.place(CONTENT)
    assert readable.store.holds(url)
    with contextlib.closing(readable.store.open(url)) as data:
        assert data.length == len(CONTENT)
        blocks = list(iter(lambda: data.read(100_000), b""))
        assert b"".join(blocks) == CONTENT
        assert data.sent == data.length


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (0, len(CONTENT)), (1, len(CONTENT) - 1), (700_001, 300_000), (len(CONTENT) - 1, 1)],
)
def test_a_range_of_it(readable: Readable, offset: int, length: int) -> None:
    with contextlib.closing(readable.store.open(readable.place(CONTENT))) as data:
        data.narrow(offset, length)
        assert data.length == length
        assert data.read() == CONTENT[offset : offset + length]
        assert data.read() == b""


def test_a_range_beyond_it_is_a_defect_of_the_caller(readable: Readable) -> None:
    with contextlib.closing(readable.store.open(readable.place(CONTENT))) as data:
        for offset, length in ((0, len(CONTENT) + 1), (-1, 2), (len(CONTENT), 1)):
            with pytest.raises(ValueError, match="outside"):
                data.narrow(offset, length)


def test_its_end_is_told_once(readable: Readable) -> None:
    url = readable.place(CONTENT)
    told: list[tuple[int, bool | None]] = []
    for wanted in (CONTENT, CONTENT[:10]):
        data = readable.store.open(url)
        data.on_close(lambda sent, ok: told.append((sent, ok)))
        assert data.read(len(wanted)) == wanted
        data.close()
        data.close()
    assert told == [(len(CONTENT), True), (10, False)]


def test_what_is_not_there(readable: Readable) -> None:
    with pytest.raises(errors.NotFound):
        readable.store.open(readable.missing)


@pytest.mark.parametrize("url", ["", "rbd://a/b/c/d", "file:///etc/passwd", "filesystem:///x"])
def test_what_is_elsewhere(readable: Readable, url: str) -> None:
    assert not readable.store.holds(url)
    with pytest.raises((errors.NotFound, errors.StoreNotFound)):
        readable.store.open(url)


def test_nothing_stays_open(readable: Readable) -> None:
    url = readable.place(CONTENT)
    with contextlib.closing(readable.store.open(url)) as data:
        data.read(1)
    before = descriptors()
    for _ in range(5):
        with contextlib.closing(readable.store.open(url)) as data:
            data.narrow(5, 10)
        with pytest.raises(errors.NotFound):
            readable.store.open(readable.missing)
    # An origin lives in this process, too, and closes its ends in threads of its own.
    wait_until(lambda: descriptors() <= before)


def test_who_takes_no_data_says_so_and_removes_none(readable: Readable) -> None:
    url = readable.place(CONTENT)
    store = readable.store
    if store.writable:
        with pytest.raises(errors.InvalidLocation):
            store.check(url)  # only the store itself says where in it something lies
        return
    store.check(url)
    for act in (
        lambda: store.create(IMAGE_ID, None),
        lambda: store.adopt(IMAGE_ID, 0),
        lambda: store.url(IMAGE_ID),
    ):
        with pytest.raises(errors.StoreReadOnly):
            act()
    store.delete(url)
    assert store.sweep() == 0
    with contextlib.closing(store.open(url)) as data:
        assert data.read() == CONTENT
