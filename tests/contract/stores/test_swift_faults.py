"""What goes wrong between the Swift store and its Swift: nothing is lost, nothing is left."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace import errors
from headrace.stores.swift import SwiftStore
from headrace.stores.swift_account import Access
from tests.contract.stores import swifts
from tests.contract.stores.storing import IMAGE_ID, get, published, put
from tests.meddler import Fault, Meddler, meddling
from tools.swift import KEY, Swift

pytestmark = pytest.mark.slow

CONTENT = os.urandom(1_000_000)
SEGMENT = 300_000
SEGMENTS = 4
MANIFEST = f"{IMAGE_ID}?multipart-manifest=put"
SECOND = "/00000001"
TRIES = 3


@pytest.fixture
def meddler(swift: Swift) -> Iterator[Meddler]:
    with meddling(swift.port) as between:
        yield between


@pytest.fixture
def container(datadir: Path, swift_address: None) -> str:
    return swifts.container(datadir)


@pytest.fixture
def store(datadir: Path, swift: Swift, container: str, meddler: Meddler) -> SwiftStore:
    swift.request("PUT", f"/{container}")
    return through(meddler, swift, datadir)


def through(
    meddler: Meddler, swift: Swift, datadir: Path, stall: float = 30, **how: Any
) -> SwiftStore:
    """A store whose Swift is on the other side."""
    access = Access(endpoint=meddler.url + swift.token()[0], stall=stall)
    return swifts.store(datadir, access=access, segment=SEGMENT, **how)


def tried(store: SwiftStore) -> None:
    """An upload, of which data comes before its end."""
    writer = store.create(IMAGE_ID, len(CONTENT))
    try:
        os.write(writer.sink.fd, CONTENT)
        writer.advance(len(CONTENT))
        published(writer)
    finally:
        writer.abort()


@pytest.mark.parametrize("cut", [1, SEGMENT, 700_000, len(CONTENT) - 1])
def test_a_read_that_breaks_goes_on_where_it_was(
    datadir: Path, swift: Swift, store: SwiftStore, meddler: Meddler, cut: int
) -> None:
    url = put(store, CONTENT)
    meddler.faults = [Fault("GET", IMAGE_ID, cut_answer=cut)]
    assert get(through(meddler, swift, datadir, retries=1), url) == CONTENT
    first, second = (head for method, _, head in meddler.asked if method == "GET")
    assert "Range:" not in first
    assert f"-{len(CONTENT) - 1}\r\n" in second.partition("Range: bytes=")[2]


def test_a_range_that_breaks_goes_on_where_it_was(
    datadir: Path, swift: Swift, store: SwiftStore, meddler: Meddler
) -> None:
    url = put(store, CONTENT)
    with contextlib.closing(through(meddler, swift, datadir, retries=2).open(url)) as data:
        meddler.faults = [Fault("GET", IMAGE_ID, times=2, cut_answer=100_000)]
        data.narrow(123_456, 500_000)
        assert b"".join(iter(lambda: data.read(65536), b"")) == CONTENT[123_456:623_456]


def test_a_read_that_keeps_breaking_is_an_error(
    datadir: Path, swift: Swift, store: SwiftStore, meddler: Meddler
) -> None:
    url = put(store, CONTENT)
    meddler.faults = [Fault("GET", IMAGE_ID, times=9, cut_answer=100_000)]
    with pytest.raises(errors.TransferError):
        get(through(meddler, swift, datadir, retries=2), url)
    assert meddler.count("GET", IMAGE_ID) == 3


def test_what_became_another_image_is_not_gone_on_with(
    datadir: Path, swift: Swift, store: SwiftStore, meddler: Meddler
) -> None:
    url = put(store, CONTENT)
    meddler.faults = [Fault("GET", IMAGE_ID, cut_answer=100_000)]
    with contextlib.closing(through(meddler, swift, datadir, retries=3).open(url)) as data:
        store.delete(url)
        put(store, CONTENT[::-1])
        with pytest.raises(errors.TransferError):
            list(iter(lambda: data.read(65536), b""))


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_swift_that_refuses_is_no_image_that_is_missing(
    store: SwiftStore, meddler: Meddler, status: int
) -> None:
    url = put(store, CONTENT)
    meddler.faults = [
        Fault(method, times=99, status=status) for method in ("GET", "HEAD", "DELETE")
    ]
    for act in (
        lambda: store.open(url),
        lambda: store.delete(url),
        lambda: store.create(IMAGE_ID, None),
        lambda: list(store.held()),
        store.sweep,
    ):
        with pytest.raises(errors.ServiceUnavailable, match=f"store swift answers {status}"):
            act()
    meddler.faults = []
    assert get(store, url) == CONTENT


def test_a_list_that_breaks_off_is_no_shorter_list(store: SwiftStore, meddler: Meddler) -> None:
    """Nor is it a defect of ours, after which an image would stay in saving."""
    url = put(store, CONTENT)
    for part, act in (
        ("?format=json", lambda: list(store.held())),
        ("?multipart-manifest=get", lambda: store.delete(url)),
    ):
        meddler.faults = [Fault("GET", part, cut_answer=100)]
        with pytest.raises(errors.ServiceUnavailable, match="does not answer"):
            act()
        assert meddler.faults[0].times == 0


def test_a_deletion_that_broke_off_is_finished_by_the_next(
    store: SwiftStore, meddler: Meddler, swift: Swift, container: str
) -> None:
    """Also of an image that a Glance put in chunks, when what named them is gone."""
    path = f"/{container}/{IMAGE_ID}"
    for name in (*(f"{IMAGE_ID}-{number:05d}" for number in (1, 2, 3)), f"{IMAGE_ID}-backup"):
        swift.request("PUT", f"/{container}/{name}", b"chunk")
    swift.request("PUT", path, X_Object_Manifest=f"{container}/{IMAGE_ID}-000")
    meddler.faults = [Fault("DELETE", f"{IMAGE_ID}-00002", status=503)]
    with pytest.raises(errors.ServiceUnavailable):
        store.delete(store.url(IMAGE_ID))
    assert f"{IMAGE_ID}-00002" in swift.names(container)
    with pytest.raises(errors.NotFound):
        store.delete(store.url(IMAGE_ID))
    assert f"{IMAGE_ID}-00002" not in swift.names(container)
    assert f"{IMAGE_ID}-backup" in swift.names(container)


def test_a_sweep_does_not_believe_that_a_listed_image_is_not_there(
    datadir: Path, swift: Swift, store: SwiftStore, meddler: Meddler, container: str
) -> None:
    """Swift says so of what lies on servers that are away."""
    url = put(store, CONTENT)
    swift.request("PUT", f"/{container}/{IMAGE_ID}/{'0' * 32}/00000000", b"of another upload")
    sweeping = through(meddler, swift, datadir, forgotten=timedelta(0))
    meddler.faults = [Fault("HEAD", IMAGE_ID, status=404)]
    assert sweeping.sweep() == 0
    assert meddler.faults[0].times == 0
    assert get(store, url) == CONTENT
    assert through(meddler, swift, datadir, forgotten=timedelta(0)).sweep() == 1
    assert get(store, url) == CONTENT


def test_a_swift_that_is_away_is_no_image_that_is_missing(
    datadir: Path, swift: Swift, store: SwiftStore, meddler: Meddler
) -> None:
    url = put(store, CONTENT)
    meddler.port = 1
    for act in (store.open, store.delete):
        with pytest.raises(errors.ServiceUnavailable, match="does not answer"):
            act(url)


def test_a_read_that_stands_still_is_given_up(
    datadir: Path, swift: Swift, store: SwiftStore, meddler: Meddler
) -> None:
    url = put(store, CONTENT)
    meddler.faults = [Fault("GET", stall=True)]
    with pytest.raises(errors.ServiceUnavailable, match="TimeoutError"):
        through(meddler, swift, datadir, stall=0.3).open(url)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", SECOND, status=500),
        Fault("PUT", SECOND, status=503, times=TRIES - 1),
        Fault("PUT", SECOND, cut_request=0),
        Fault("PUT", SECOND, cut_request=123_456),
        Fault("PUT", SECOND, cut_answer=0),
        Fault("PUT", SECOND, flip=123_456),
        Fault("PUT", MANIFEST, cut_answer=0),
    ],
    ids=lambda fault: f"{fault}"[6:70],
)
def test_what_goes_wrong_for_a_moment_is_done_again(
    store: SwiftStore, meddler: Meddler, swift: Swift, container: str, fault: Fault
) -> None:
    meddler.faults = [fault]
    tried(store)
    assert fault.times == 0
    assert get(store, store.url(IMAGE_ID)) == CONTENT
    assert len(swift.names(container)) == 1 + SEGMENTS


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("PUT", SECOND, status=500), errors.StoreUnwritable),
        (Fault("PUT", SECOND, status=403), errors.StoreUnwritable),
        (Fault("PUT", SECOND, cut_request=123_456), errors.ServiceUnavailable),
        (Fault("PUT", SECOND, flip=123_456), errors.StoreUnwritable),
        (Fault("PUT", MANIFEST, status=500), errors.StoreUnwritable),
        (Fault("PUT", MANIFEST, status=400), errors.StoreUnwritable),
        (Fault("PUT", MANIFEST, cut_request=1), errors.StoreUnwritable),
        (Fault("PUT", SECOND, status=413), errors.StoreFull),
        (Fault("PUT", SECOND, status=507), errors.StoreFull),
        (Fault("PUT", MANIFEST, status=507), errors.StoreFull),
    ],
    ids=lambda each: f"{each}"[6:70],
)
def test_what_goes_on_being_wrong_is_an_error_and_nothing_is_left(
    store: SwiftStore,
    meddler: Meddler,
    swift: Swift,
    container: str,
    fault: Fault,
    error: type[errors.Error],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    fault.times = 99
    meddler.faults = [fault]
    with pytest.raises(error) as raised:
        tried(store)
    fault.times = 0
    assert swift.names(container) == []
    with pytest.raises(errors.NotFound):
        store.open(store.url(IMAGE_ID))
    put(store, CONTENT)  # nothing is in its way
    for secret in (KEY, swift.token()[1], swift.url, meddler.url):
        assert secret not in f"{raised.value}{caplog.text}"


def test_a_quota_that_is_used_up_is_a_full_store(
    store: SwiftStore, meddler: Meddler, swift: Swift, container: str
) -> None:
    swift.request("POST", f"/{container}", X_Container_Meta_Quota_Bytes="200000")
    with pytest.raises(errors.StoreFull):
        tried(store)
    assert swift.names(container) == []
    assert meddler.count("PUT", "/0000000") <= SEGMENTS  # it is not tried again


def test_a_server_of_swifts_that_dies_while_an_image_is_put(
    store: SwiftStore, swift: Swift, container: str
) -> None:
    writer = store.create(IMAGE_ID, None)
    os.write(writer.sink.fd, CONTENT)
    swift.stop("object")
    try:
        with pytest.raises(errors.StoreUnwritable):
            published(writer)
    finally:
        swift.start("object")
        swift.wait()
    assert swift.names(container) == []
    put(store, CONTENT)


def test_a_proxy_that_does_not_say_that_it_goes_on_gets_the_body(
    datadir: Path, swift: Swift, store: SwiftStore, meddler: Meddler
) -> None:
    meddler.faults = [Fault("PUT", SECOND, unasked=True)]
    tried(through(meddler, swift, datadir, stall=2))
    assert meddler.count("PUT", SECOND) == 1
    assert get(store, store.url(IMAGE_ID)) == CONTENT


def test_an_upload_that_is_given_up_does_not_wait(
    datadir: Path, swift: Swift, store: SwiftStore, meddler: Meddler, container: str
) -> None:
    meddler.faults = [Fault("PUT", SECOND, stall=True)]
    writer = store.create(IMAGE_ID, len(CONTENT))
    os.write(writer.sink.fd, CONTENT)
    writer.advance(len(CONTENT))
    assert meddler.stalled.wait(30)
    began = time.monotonic()
    writer.abort()
    assert time.monotonic() - began < 25  # a hang guard: the stall is 30 s
    assert swift.names(container) == []


def test_many_puts_with_a_token_that_has_ended_log_in_once(
    store: SwiftStore, swift: Swift, meddler: Meddler, container: str
) -> None:
    put(store, CONTENT)
    store.delete(store.url(IMAGE_ID))
    swift.forget_tokens()
    meddler.asked.clear()
    tried(store)
    refused = meddler.count("HEAD", IMAGE_ID)
    assert refused == 3  # refused; none there; whose it is
    assert meddler.count("PUT", "/0000000") == SEGMENTS


def test_readers_and_writers_at_the_same_time(store: SwiftStore) -> None:
    url = put(store, CONTENT)
    seen: list[bytes] = []
    threads = [threading.Thread(target=lambda: seen.append(get(store, url))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [CONTENT] * 8
