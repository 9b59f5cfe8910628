"""The image cache in front of a remote store: who may have what is decided before, what is fetched
is fetched once, and what is wrong reaches nobody whole.
"""

import contextlib
import hashlib
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.cache.directory import Directory
from headrace.cache.filling import Fill
from headrace.client.partial import Expected
from headrace.db import schema
from headrace.model import MIB, Image
from headrace.service.cache import Cache
from headrace.service.cache_contents import LEGACY, Part
from headrace.service.context import Context
from headrace.service.locations import Hashes, Named
from headrace.stores.destinations import Destinations, Rules
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.http import HttpStore
from headrace.stores.origin import Origins
from headrace.stores.registry import Label, Registry
from headrace.transfer.extent import Extent
from headrace.transfer.growing import Growing
from tests.contract.stores.origin_server import Origin, running
from tests.service.callers import OWNER, STRANGER
from tests.service.conftest import ADMIN, Service, serving
from tests.service.test_named_locations import settled
from tests.service.test_stores import uploaded

GUARD = 30.0  # seconds; a hang guard
DATA = random.Random(1).randbytes(3 * MIB)
CACHE = 8 * MIB


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running() as found:
        yield found


@pytest.fixture
def service(tmp_path: Path, origin: Origin) -> Iterator[Service]:
    """With a cache of 8 MiB in front of a store of type http."""
    here = Destinations(Rules(allowed_hosts=("127.0.0.1",), allowed_ports=()))
    stores = [
        FilesystemStore("file", tmp_path / "images"),
        HttpStore("web", Origins(here, stall=5.0)),
    ]
    labels = {"file": Label(), "web": Label()}
    yield from serving(tmp_path, Registry(stores, "file", labels), cache_size=CACHE)


class Paced:
    """Sends pieces of 1 MiB, each once it is let."""

    def __init__(self, origin: Origin) -> None:
        self._turns = threading.Semaphore(0)
        origin.pieces = self

    def __call__(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), MIB):
            assert self._turns.acquire(timeout=GUARD)
            yield data[start : start + MIB]

    def let(self, pieces: int) -> None:
        self._turns.release(pieces)


def remote(
    service: Service,
    origin: Origin,
    data: bytes = DATA,
    said: bytes | None = None,
    **values: object,
) -> str:
    """An active image whose data is at the origin, which was asked for nothing since.

    ``said`` is what it says from now on.
    """
    path = f"/{len(origin.data)}"
    origin.data[path] = data
    image_id = service.record(**values)
    digest = hashlib.sha256(data).hexdigest()
    service.locations.add(ADMIN, image_id, Named(origin.url(path), {}, Hashes("sha256", digest)))
    assert settled(service, image_id).status == "active"
    if said is not None:
        origin.data[path] = said
    origin.asked.clear()
    return image_id


def cache(service: Service) -> Cache:
    assert service.content.cache is not None
    return service.content.cache


def download(
    service: Service, image_id: str, begins: int | None = None, caller: Context = ADMIN
) -> bytes:
    _, data = service.content.download(caller, image_id, (), begins)
    assert data is not None
    with contextlib.closing(data):
        if begins is not None:
            data.narrow(begins, data.length - begins)
        return b"".join(iter(lambda: data.read(MIB), b""))


def filled(service: Service, image_id: str, size: int = len(DATA)) -> None:
    """Wait until an image is in the cache."""
    wait(lambda: in_cache(service, image_id, size))


def in_cache(service: Service, image_id: str, size: int = len(DATA)) -> bool:
    extent = cache(service).directory.open(image_id, size)
    if extent is not None:
        extent.close()
    return extent is not None


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_miss_and_a_hit(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)
    assert download(service, image_id) == DATA
    filled(service, image_id)
    assert download(service, image_id) == DATA
    assert download(service, image_id, begins=MIB) == DATA[MIB:]
    assert len(origin.asked) == 1


def test_a_hit_is_a_plain_file(service: Service, origin: Origin) -> None:
    """Which every host sends as it sends an image of the filesystem store."""
    image_id = remote(service, origin)
    download(service, image_id)
    filled(service, image_id)
    _, data = service.content.download(ADMIN, image_id)
    assert data is not None
    assert not isinstance(data, Growing)
    assert data.path == os.path.join(cache(service).directory.path, image_id)
    data.close()


def test_a_crowd_is_one_read_of_the_store(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)
    with ThreadPoolExecutor(20) as crowd:
        found = list(crowd.map(lambda _: download(service, image_id), range(40)))
    assert set(found) == {DATA}
    assert len(origin.asked) == 1


def test_what_has_landed_is_sent_while_the_rest_is_on_its_way(
    service: Service, origin: Origin
) -> None:
    image_id = remote(service, origin)
    paced = Paced(origin)
    _, first = service.content.download(ADMIN, image_id)
    _, late = service.content.download(ADMIN, image_id)
    _, ranged = service.content.download(ADMIN, image_id, (), 10)
    assert isinstance(first, Growing)
    assert isinstance(late, Growing)
    assert isinstance(ranged, Growing)
    ranged.narrow(10, 100)
    paced.let(1)
    assert first.read(MIB)
    assert ranged.read() == DATA[10:110]
    first.close()  # its leaving stops nothing
    paced.let(2)
    assert late.read() == DATA
    for data in (late, ranged):
        data.close()
    filled(service, image_id)
    assert len(origin.asked) == 1


@contextlib.contextmanager
def no_more_threads() -> Iterator[None]:
    """Meanwhile none can begin: there is not as much memory as it would have."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)


def test_a_fill_that_cannot_begin_leaves_nothing(
    service: Service, origin: Origin, tmp_path: Path
) -> None:
    image = service.images.show(ADMIN, remote(service, origin))
    (tmp_path / "data").write_bytes(DATA)
    with no_more_threads(), pytest.raises(RuntimeError, match="thread"):
        cache(service).fill(image, lambda: Extent(os.open(tmp_path / "data", 0), 0, len(DATA)))
    assert cache(service).active() == []
    assert cache(service).directory.used() == 0


def test_a_fill_that_cannot_be_gone_on_with_now_is_so_later(
    service: Service, origin: Origin
) -> None:
    image_id = remote(service, origin)
    entry = cache(service).directory.begin(image_id, len(DATA))
    assert entry is not None
    entry.leave()
    _, data = service.content.download(ADMIN, image_id)
    assert data is not None
    with contextlib.closing(data):
        with no_more_threads(), pytest.raises(RuntimeError, match="thread"):
            data.read(1)
        assert data.read() == DATA


def test_the_last_byte_waits_for_the_hash(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin, said=DATA[:-1] + bytes([DATA[-1] ^ 1]))
    _, data = service.content.download(ADMIN, image_id)
    assert data is not None
    with contextlib.closing(data), pytest.raises(errors.FillFailed):
        data.read()
    assert not in_cache(service, image_id)
    wait(lambda: not cache(service).active())
    cache(service).sweep()
    assert cache(service).directory.used() == 0


def test_a_store_that_breaks_off_is_asked_for_the_rest(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)

    def break_off(data: bytes) -> Iterator[bytes]:
        origin.pieces = lambda data: (data,)
        yield data[:MIB]
        raise ConnectionResetError

    origin.pieces = break_off
    assert download(service, image_id) == DATA
    ranges = [heads.get("Range") for _, _, heads in origin.asked]
    assert ranges[0] is None
    assert ranges[-1] == f"bytes={MIB}-{len(DATA) - 1}"


def test_a_store_that_refuses_refuses_the_caller(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)
    origin.statuses["/0"] = 500
    with pytest.raises(errors.ServiceUnavailable):
        service.content.download(ADMIN, image_id)
    assert cache(service).directory.follow(image_id) is None
    del origin.statuses["/0"]
    assert download(service, image_id) == DATA


def test_data_of_another_size_is_not_cached(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin, said=DATA + b"x")
    with pytest.raises(errors.StoreCorrupt):
        service.content.download(ADMIN, image_id)


def test_what_does_not_fit_is_passed_by(service: Service, origin: Origin) -> None:
    data = random.Random(2).randbytes(CACHE + 1)
    image_id = remote(service, origin, data)
    for _ in range(2):
        assert download(service, image_id) == data
    assert len(origin.asked) == 2
    assert cache(service).directory.used() == 0


def test_a_range_does_not_have_the_whole_fetched(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)
    assert download(service, image_id, begins=2 * MIB) == DATA[2 * MIB :]
    assert cache(service).directory.used() == 0


def test_an_image_whose_hash_is_not_known_is_passed_by(service: Service, origin: Origin) -> None:
    """Whether its bytes are right, nobody could say."""
    image_id = remote(service, origin)
    nothing = {"os_hash_algo": None, "os_hash_value": None, "checksum": None}
    with service.database.write() as connection:
        connection.execute(sa.update(schema.images).values(**nothing))
    for _ in range(2):
        assert download(service, image_id) == DATA
    assert len(origin.asked) == 2
    assert cache(service).directory.used() == 0


def test_files_are_not_copied(service: Service) -> None:
    image_id = uploaded(service)
    assert download(service, image_id) == b"data"
    assert cache(service).directory.used() == 0
    service.cached.queue(ADMIN, image_id)
    wait(lambda: not service.cached.list(ADMIN).queued)
    assert cache(service).directory.used() == 0


def test_a_dead_processs_fill_is_gone_on_with(service: Service, origin: Origin) -> None:
    """Its followers elsewhere see that nobody holds its lock."""
    image_id = remote(service, origin)
    entry = cache(service).directory.begin(image_id, len(DATA))
    assert entry is not None
    os.write(entry.fd, DATA[:MIB])
    _, data = service.content.download(ADMIN, image_id)
    assert data is not None
    assert data.read(MIB) == DATA[:MIB]
    assert origin.asked == []
    entry.leave()
    rest = b"".join(iter(lambda: data.read(MIB), b""))
    assert DATA[:MIB] + rest == DATA
    data.close()
    assert origin.asked[-1][2]["Range"] == f"bytes={MIB}-{len(DATA) - 1}"


def test_a_process_that_stops_leaves_its_fill_to_others(
    service: Service, origin: Origin, tmp_path: Path
) -> None:
    image_id = remote(service, origin)
    paced = Paced(origin)
    _, data = service.content.download(ADMIN, image_id)
    assert data is not None
    paced.let(1)
    arrived = b""
    while len(arrived) < MIB:  # in as many pieces as it lands in
        arrived += data.read(MIB - len(arrived))
    (fill,) = cache(service).active()
    cache(service).stop()
    assert fill.join(GUARD)
    image = service.images.show(ADMIN, image_id)
    go_on(Directory(tmp_path / "cache", CACHE), image)
    assert b"".join(iter(lambda: data.read(MIB), b"")) == DATA[MIB:]
    data.close()


def go_on(directory: Directory, image: Image) -> None:
    """As another process does."""
    entry = directory.begin(image.id, image.size or 0)
    assert entry is not None
    landed = entry.landed
    assert image.os_hash_value is not None
    expected = Expected(image.id, image.size, image.os_hash_algo, image.os_hash_value)
    Fill(entry, expected, lambda offset: contextlib.nullcontext([DATA[offset:]])).run()
    assert landed >= MIB


def test_ossa_2013_027_hits_are_for_those_who_may_download(
    service: Service, origin: Origin
) -> None:
    image_id = remote(service, origin, owner="mine")
    assert download(service, image_id, caller=OWNER) == DATA
    filled(service, image_id)
    assert download(service, image_id, caller=OWNER) == DATA
    with pytest.raises(errors.ImageNotFound):
        service.content.download(STRANGER, image_id)
    service.images.deactivate(OWNER, image_id)
    with pytest.raises(errors.Forbidden):
        service.content.download(OWNER, image_id)
    assert download(service, image_id) == DATA  # an administrator


def test_who_may_not_download_has_nothing_cached(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin, owner="mine")
    with pytest.raises(errors.ImageNotFound):
        service.content.download(STRANGER, image_id)
    assert origin.asked == []
    assert cache(service).directory.follow(image_id) is None


def test_a_deleted_image_is_evicted(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)
    download(service, image_id)
    filled(service, image_id)
    service.images.delete(ADMIN, image_id)
    assert not in_cache(service, image_id)
    assert cache(service).directory.used() == 0


def test_an_image_that_another_node_deleted_is_evicted_in_time(
    service: Service, origin: Origin
) -> None:
    image_id, kept = remote(service, origin), remote(service, origin)
    for each in (image_id, kept):
        download(service, each)
        filled(service, each)
    service.images._forget = None  # the other node's cache is another
    service.images.delete(ADMIN, image_id)
    assert in_cache(service, image_id)
    cache(service).sweep()
    assert not in_cache(service, image_id)
    assert in_cache(service, kept)


def test_hits_are_counted(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)
    download(service, image_id)
    filled(service, image_id)
    for _ in range(3):
        download(service, image_id)
    assert [each.hits for each in service.cached.list(ADMIN).cached] == [3]
    cache(service).beat()
    download(service, image_id)
    assert [each.hits for each in service.cached.list(ADMIN).cached] == [4]


def test_what_is_queued_is_fetched(service: Service, origin: Origin) -> None:
    image_id, other = remote(service, origin), remote(service, origin)
    for each in (image_id, other):
        service.cached.queue(ADMIN, each)
    wait(lambda: not service.cached.list(ADMIN).queued)
    assert in_cache(service, image_id)
    assert in_cache(service, other)
    assert len(origin.asked) == 2


def test_what_cannot_be_fetched_is_not_tried_for_ever(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)
    origin.statuses["/0"] = 404
    service.cached.queue(ADMIN, image_id)
    wait(lambda: not service.cached.list(ADMIN).queued)
    assert len(origin.asked) == 1
    with service.database.write() as connection:
        connection.execute(sa.update(schema.image_locations).values(value="rbd://in/no/store/here"))
    service.cached.queue(ADMIN, image_id)
    wait(lambda: not service.cached.list(ADMIN).queued)


def test_what_is_away_stays_queued(service: Service, origin: Origin) -> None:
    """A store that does not answer, or another process that fetches it and may die."""
    away, other, elsewhere = (remote(service, origin) for _ in range(3))
    origin.statuses["/0"] = 503
    entry = cache(service).directory.begin(elsewhere, len(DATA))
    assert entry is not None
    for each in (away, elsewhere, other):
        service.cached.queue(ADMIN, each)
    wait(lambda: other not in service.cached.list(ADMIN).queued)
    assert in_cache(service, other)
    assert set(service.cached.list(ADMIN).queued) == {away, elsewhere}
    del origin.statuses["/0"]
    entry.leave()
    service.cached.queue(ADMIN, away)
    wait(lambda: not service.cached.list(ADMIN).queued)
    assert in_cache(service, away)
    assert in_cache(service, elsewhere)


def test_what_a_dead_process_left_is_not_lost_by_a_store_that_is_away(
    service: Service, origin: Origin
) -> None:
    image_id = remote(service, origin)
    entry = cache(service).directory.begin(image_id, len(DATA))
    assert entry is not None
    os.write(entry.fd, DATA[:MIB])
    entry.leave()
    origin.statuses["/0"] = 503
    service.cached.queue(ADMIN, image_id)
    wait(lambda: origin.asked)
    del origin.statuses["/0"]

    def settled_now() -> bool:
        service.cached.queue(ADMIN, image_id)
        return in_cache(service, image_id)

    wait(settled_now)
    assert origin.asked[-1][2]["Range"] == f"bytes={MIB}-{len(DATA) - 1}"


def test_only_active_images_are_queued(service: Service) -> None:
    with pytest.raises(errors.BadRequest):
        service.cached.queue(ADMIN, service.record())
    with pytest.raises(errors.ImageNotFound):
        service.cached.queue(ADMIN, "none")


def test_clearing(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)
    download(service, image_id)
    filled(service, image_id)
    cache(service).directory.queue(image_id)
    assert service.cached.clear(ADMIN, Part.QUEUE) == 1
    assert in_cache(service, image_id)
    assert service.cached.clear(ADMIN, Part.ALL) == 1
    assert not in_cache(service, image_id)


def test_one_image_is_removed(service: Service, origin: Origin) -> None:
    image_id = remote(service, origin)
    download(service, image_id)
    filled(service, image_id)
    service.cached.delete(ADMIN, image_id)
    assert not in_cache(service, image_id)


def test_it_is_for_administrators(service: Service) -> None:
    contents = service.cached
    acts: list[Callable[[], object]] = [
        lambda: contents.list(OWNER),
        lambda: contents.queue(OWNER, "none"),
        lambda: contents.delete(OWNER, "none"),
        lambda: contents.clear(OWNER, Part.ALL),
        lambda: contents.unqueue(OWNER, "none", LEGACY),
        lambda: contents.clean(OWNER),
        lambda: contents.prune(OWNER),
        lambda: contents.nodes(OWNER, "none"),
    ]
    for act in acts:
        with pytest.raises(errors.Forbidden):
            act()


@pytest.mark.parametrize("what", ["a file", "nothing"])
def test_a_directory_that_cannot_be_written_to_is_told(
    service: Service, origin: Origin, what: str
) -> None:
    """Images are sent all the same."""
    image_id = remote(service, origin)
    directory = Path(cache(service).directory.path)
    shutil.rmtree(directory)
    if what == "a file":
        directory.touch()
    contents = service.cached
    acts: list[Callable[[], object]] = [
        lambda: contents.list(ADMIN),
        lambda: contents.clear(ADMIN, Part.CACHE),
        lambda: contents.clean(ADMIN),
        lambda: contents.prune(ADMIN),
    ]
    for act in acts:
        with pytest.raises(errors.StoreUnwritable):
            act()
    with pytest.raises(errors.StoreUnwritable):
        service.cached.queue(ADMIN, image_id)
    assert download(service, image_id) == DATA
    cache(service).sweep()
