"""What the S3 store does beyond what every store does, on services that speak S3."""

import contextlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from headrace import errors
from headrace.model import MIB, Location
from headrace.stores.bucket import Bucket
from headrace.stores.remote import Remote
from headrace.stores.s3 import MOST_PARTS, ObjectParts, S3Store
from headrace.stores.window import WindowWriter
from headrace.transfer import engine
from tests import certificates
from tests.contract.stores import buckets
from tests.contract.stores.origin_server import running
from tests.contract.stores.storing import IMAGE_ID, OTHER_ID, get, published, put
from tests.faults.service import wait_until
from tests.meddler import Fault, Meddler, meddling
from tests.relay import encrypted
from tools.swift import Swift

PART = 5 * MIB
CONTENT = os.urandom(2 * PART + 77)
"""Of three parts."""

NewStore = Callable[..., S3Store]
ADDRESSES = {buckets.SWIFT: "s3_address", buckets.RGW: "rgw_address"}


@pytest.fixture(
    params=[
        pytest.param(buckets.SWIFT, marks=pytest.mark.slow),
        pytest.param(buckets.RGW, marks=pytest.mark.ceph),
    ]
)
def service(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue(ADDRESSES[request.param])
    return str(request.param)


@pytest.fixture
def new_store(service: str, datadir: Path) -> NewStore:
    """``new_store(**options)``: a store, in the same bucket always."""
    return partial(buckets.store, service, datadir)


@pytest.fixture
def names(service: str, datadir: Path) -> Callable[[], list[str]]:
    return partial(buckets.names, service, datadir)


@pytest.fixture
def meddler(service: str) -> Iterator[Meddler]:
    """What stands between a store ``through`` it and the service."""
    with meddling(buckets.port(service)) as between:
        yield between


def landed(store: S3Store, size: int | None = None, image_id: str = IMAGE_ID) -> WindowWriter:
    """A writer in which all of CONTENT has landed, most of it on its way."""
    writer = store.create(image_id, size)
    os.write(writer.sink.fd, CONTENT)
    writer.advance(len(CONTENT))
    return writer


def data_to_its_end(data: Remote) -> bytes:
    return b"".join(iter(lambda: data.read(100_000), b""))


# Objects


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_an_image_goes_in_parts(
    new_store: NewStore, names: Callable[[], list[str]], meddler: Meddler, size: int | None
) -> None:
    store = new_store(through=meddler.url)
    url = published(landed(store, size))
    assert get(store, url) == CONTENT
    assert names() == [IMAGE_ID]
    assert meddler.count("PUT", "partNumber=") == 3


def test_a_small_one_goes_at_once(new_store: NewStore, meddler: Meddler) -> None:
    store = new_store(through=meddler.url, large=3 * PART)
    url = published(landed(store, len(CONTENT)))
    assert get(store, url) == CONTENT
    assert [each[0] for each in meddler.asked].count("POST") == 0


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_uploads_in_parts_replace_nothing(new_store: NewStore, size: int | None) -> None:
    first, second = (landed(new_store(), size) for _ in range(2))
    url = published(first)
    with pytest.raises(errors.DataExists):
        second.commit()
    second.retract()
    assert get(new_store(), url) == CONTENT


def test_a_service_is_asked_not_to_replace(new_store: NewStore, meddler: Meddler) -> None:
    """By the request itself: a look before it is too early."""
    store = new_store(through=meddler.url)
    put(store, b"small", OTHER_ID)  # which makes the bucket
    meddler.asked.clear()
    store.delete(store.url(OTHER_ID))
    put(store, b"small", OTHER_ID)
    published(landed(store))
    heads = [head for method, target, head in meddler.asked if "If-None-Match: *\r\n" in head]
    assert [head.partition(" ")[0] for head in heads] == ["PUT", "POST"]


def test_a_file_is_adopted(new_store: NewStore, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(CONTENT)
    with file.open("rb") as body:
        writer = new_store().adopt(IMAGE_ID, body.fileno())
    assert writer.landed == len(CONTENT)
    writer.advance(writer.landed)
    assert get(new_store(), published(writer)) == CONTENT


def test_data_can_be_pumped_from_the_socket(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    url = published(landed(store))
    with contextlib.closing(store.open(url)) as data, (tmp_path / "image").open("w+b") as file:
        moved = engine.pump_all(data.pieces(), engine.FileSink(file.fileno()))
        assert moved.how is engine.How.SPLICE
        assert file.read() == CONTENT


def test_lists_come_page_by_page(new_store: NewStore, meddler: Meddler) -> None:
    store = new_store(through=meddler.url, page=2, left=timedelta(0))
    ids = [f"{number:08x}{IMAGE_ID[8:]}" for number in range(5)]
    for each in ids:
        put(store, b"data", each)
    assert sorted(store.held()) == ids
    assert meddler.count("GET", "continuation-token=") == 2
    writers = [landed(new_store(), image_id=f"f{each[1:]}") for each in ids[:3]]
    for writer in writers:
        wait_until(lambda writer=writer: writer._there, "the first part")
    time.sleep(1.1)  # times are of whole seconds
    assert store.sweep() == 3
    assert meddler.count("GET", "upload-id-marker=") >= 1
    for writer in writers:
        writer.abort()
    assert sorted(store.held()) == ids


def test_a_list_that_says_there_is_more_and_not_from_where() -> None:
    page = (
        "<ListBucketResult><IsTruncated>true</IsTruncated>"
        f"<Contents><Key>{IMAGE_ID}</Key></Contents></ListBucketResult>"
    )
    with running() as service:
        for query in ("", "continuation-token=&"):
            service.data[f"/images?{query}list-type=2&max-keys=1000"] = page.encode()
        store = S3Store("s3", service.url(""), "images", "access", "secret", windows="/")
        with pytest.raises(errors.ServiceUnavailable):
            list(islice(store.held(), 10))


def test_so_many_are_open_at_a_time(new_store: NewStore) -> None:
    store = new_store(most=1)
    url = put(store, b"data")
    with contextlib.closing(store.open(url)), pytest.raises(errors.OriginsBusy):
        store.open(url)
    assert get(store, url) == b"data"


@pytest.mark.parametrize("size", [5 * MIB, 1 << 40, 40 << 40])
def test_parts_are_large_enough(size: int) -> None:
    parts = _parts(size)
    assert sum(parts.size_of(number) for number in range(MOST_PARTS)) >= size
    assert parts.size_of(0) >= 5 * MIB


def test_parts_of_unknown_data_grow() -> None:
    parts = _parts(None)
    sizes = [parts.size_of(number) for number in range(MOST_PARTS)]
    assert sizes[:1000] == [5 * MIB] * 1000
    assert sum(sizes) > 5 * 10**12
    assert max(sizes) <= 5 << 30


def _parts(size: int | None) -> ObjectParts:
    bucket = Bucket("s3", "http://127.0.0.1:1", "images", "access", "secret")
    return ObjectParts(bucket, IMAGE_ID, "", size, large=5 * MIB, chunk=5 * MIB)


# Faults


@pytest.mark.parametrize("offset", [0, PART + 5])
def test_a_read_that_breaks_is_gone_on_with(
    new_store: NewStore, meddler: Meddler, offset: int
) -> None:
    store = new_store(through=meddler.url)
    url = published(landed(store))
    meddler.asked.clear()
    meddler.faults.append(Fault("GET", IMAGE_ID, times=3 if offset else 2, cut_answer=MIB))
    with contextlib.closing(store.open(url)) as data:
        if offset:
            data.narrow(offset, len(CONTENT) - offset)
        assert data.read(4096) == CONTENT[offset : offset + 4096]
        assert data_to_its_end(data) == CONTENT[offset + 4096 :]
    asked = re.search(r"Range: bytes=([0-9]+)-", meddler.asked[-1][2])
    assert asked is not None
    # A reset loses what was on its way.
    assert offset < int(asked[1]) <= offset + 2 * MIB
    assert "If-Match: " in meddler.asked[-1][2]


@pytest.mark.parametrize("passes_by", [False, True])
def test_a_read_that_breaks_is_gone_on_with_by_a_service_that_comes_to(
    new_store: NewStore, meddler: Meddler, passes_by: bool
) -> None:
    """Nor is it another error that it never does."""
    store = new_store(through=meddler.url, passes_by=passes_by)
    url = published(landed(store))
    refusing = Fault("GET", IMAGE_ID, times=0, status=503)
    meddler.faults += [Fault("GET", IMAGE_ID, cut_answer=MIB), refusing]
    with contextlib.closing(store.open(url)) as data:
        assert data.read(4096) == CONTENT[:4096]
        refusing.times = 4  # as often as it is asked at a time
        assert data_to_its_end(data) == CONTENT[4096:]
        assert refusing.times == 0
    meddler.faults.append(Fault("GET", IMAGE_ID, cut_answer=MIB))
    with contextlib.closing(store.open(url)) as data:
        assert data.read(4096) == CONTENT[:4096]
        refusing.times = 99
        with pytest.raises(errors.TransferError):
            data_to_its_end(data)


@pytest.mark.parametrize("replaced", [True, False])
def test_a_read_that_breaks_is_not_gone_on_with_in_another_object(
    new_store: NewStore, meddler: Meddler, replaced: bool
) -> None:
    store = new_store(through=meddler.url)
    url = published(landed(store))
    meddler.faults.append(Fault("GET", IMAGE_ID, cut_answer=MIB))
    with contextlib.closing(store.open(url)) as data:
        assert data.read(4096) == CONTENT[:4096]
        store.delete(url)
        if replaced:
            put(store, os.urandom(len(CONTENT)))
        with pytest.raises(errors.TransferError):
            data_to_its_end(data)
        assert data.sent <= MIB


def test_a_refusal_that_breaks_off_is_asked_for_again(
    new_store: NewStore, meddler: Meddler
) -> None:
    store = new_store(through=meddler.url)
    put(store, b"there is a bucket", OTHER_ID)
    missing = store.url(IMAGE_ID)
    meddler.faults.append(Fault("GET", IMAGE_ID, cut_answer=1))
    with pytest.raises(errors.NotFound):
        store.open(missing)
    meddler.faults.append(Fault("GET", IMAGE_ID, times=99, cut_answer=1))
    with pytest.raises(errors.ServiceUnavailable):
        store.open(missing)


def test_a_list_that_breaks_off_is_no_shorter_list(new_store: NewStore, meddler: Meddler) -> None:
    store = new_store(through=meddler.url)
    put(store, b"data")
    fault = Fault("GET", "list-type=", cut_answer=300)
    meddler.faults.append(fault)
    assert list(store.held()) == [IMAGE_ID]
    fault.times = 99
    with pytest.raises(errors.ServiceUnavailable):
        list(store.held())


@pytest.mark.slow
def test_a_service_that_is_killed_and_comes_back(
    swift: Swift, s3_address: None, datadir: Path
) -> None:
    store = buckets.store(buckets.SWIFT, datadir, left=timedelta(0))
    held = partial(buckets.names, buckets.SWIFT, datadir)
    url = published(landed(store))
    first, second = store.open(url), store.open(url)
    got = first.read(4096)
    second.read(4096)
    writer = store.create(OTHER_ID, None)
    os.write(writer.sink.fd, CONTENT)
    writer.advance(len(CONTENT))
    wait_until(lambda: held() == [IMAGE_ID, f"{OTHER_ID}+"], "the first part")
    swift.stop("proxy")
    try:
        with contextlib.closing(second), pytest.raises(errors.TransferError):
            data_to_its_end(second)
        with pytest.raises(errors.ServiceUnavailable):
            store.open(url)
        with pytest.raises(errors.ServiceUnavailable):
            writer.commit()
        with pytest.raises(errors.ServiceUnavailable):
            store.delete(url)
    finally:
        swift.start("proxy")
        swift.wait()
    with contextlib.closing(first):
        assert got + data_to_its_end(first) == CONTENT
    time.sleep(1.1)  # times of uploads are of whole seconds
    assert store.sweep() == 1
    assert held() == [IMAGE_ID]
    assert get(store, put(store, b"again", OTHER_ID)) == b"again"


WRITES = {
    "the beginning": Fault("POST", "uploads="),
    "a part": Fault("PUT", "partNumber=2"),
    "the end": Fault("POST", "uploadId="),
}


@pytest.mark.parametrize("how", ["status", "cut_request", "cut_answer", "stall"])
@pytest.mark.parametrize("what", WRITES)
def test_what_fails_once_is_done_again(
    new_store: NewStore, names: Callable[[], list[str]], meddler: Meddler, what: str, how: str
) -> None:
    store = new_store(through=meddler.url, stall=1.0)
    fault = Fault(WRITES[what].method, WRITES[what].part, **{how: {"status": 500}.get(how, 0)})
    fault.stall = how == "stall"
    meddler.faults.append(fault)
    url = published(landed(store))
    assert fault.times == 0
    assert get(store, url) == CONTENT
    assert IMAGE_ID in names()


@pytest.mark.parametrize("status", [500, 507, 403])
@pytest.mark.parametrize("what", WRITES)
def test_what_fails_for_good_leaves_nothing(
    new_store: NewStore, names: Callable[[], list[str]], meddler: Meddler, what: str, status: int
) -> None:
    """A full store is told apart."""
    store = new_store(through=meddler.url)
    meddler.faults.append(Fault(WRITES[what].method, WRITES[what].part, times=99, status=status))
    expected = errors.StoreFull if status == 507 else errors.ServiceUnavailable
    with pytest.raises(expected):
        landed(store).commit()
    assert names() == []
    with pytest.raises(errors.NotFound):
        store.open(store.url(IMAGE_ID))


@pytest.mark.parametrize("size", [len(CONTENT), 1000])
def test_an_answer_that_is_lost_for_good_is_found_out(
    new_store: NewStore, meddler: Meddler, size: int
) -> None:
    """The object is there, and says whose it is, whatever came of the requests."""
    store = new_store(through=meddler.url)
    put(store, b"there is a bucket", OTHER_ID)
    method, part = ("POST", "uploadId=") if size > PART else ("PUT", IMAGE_ID)
    meddler.faults.append(Fault(method, part, times=99, cut_answer=0))
    writer = store.create(IMAGE_ID, None)
    os.write(writer.sink.fd, CONTENT[:size])
    url = published(writer)
    meddler.faults.clear()
    assert get(store, url) == CONTENT[:size]


def test_what_became_visible_goes_whatever_is_said_of_its_parts(
    new_store: NewStore, names: Callable[[], list[str]], meddler: Meddler
) -> None:
    """Of an upload that has become an object services say all manner of things, RGW that it failed.

    Whether it is there cannot be found out at first.
    """
    store = new_store(through=meddler.url, stall=2.0)
    put(store, b"there is a bucket", OTHER_ID)
    writer = landed(store)
    meddler.faults += [
        Fault("POST", "uploadId=", stall=True),
        Fault("POST", "uploadId=", times=99, cut_answer=0),
        Fault("DELETE", "uploadId=", times=99, status=500),
    ]

    def hide() -> None:
        assert meddler.stalled.wait(60)
        meddler.faults.append(Fault("HEAD", IMAGE_ID, times=4, status=500))

    hiding = threading.Thread(target=hide)
    hiding.start()
    with pytest.raises(errors.ServiceUnavailable):
        writer.commit()
    hiding.join()
    assert meddler.faults[-1].times == 0
    assert names() == [OTHER_ID]


@pytest.mark.parametrize("part", ["partNumber=2", IMAGE_ID])
def test_bytes_that_change_on_the_way_are_noticed(
    new_store: NewStore, names: Callable[[], list[str]], meddler: Meddler, part: str
) -> None:
    store = new_store(through=meddler.url, large=4 * PART if part == IMAGE_ID else PART)
    size = len(CONTENT) if part == IMAGE_ID else None
    meddler.faults.append(Fault("PUT", part, flip=4097))
    url = published(landed(store, size))
    assert get(store, url) == CONTENT
    store.delete(url)
    meddler.faults.append(Fault("PUT", part, times=99, flip=4097))
    with pytest.raises(errors.ServiceUnavailable):
        landed(store, size).commit()
    assert names() == []


@pytest.mark.slow
@pytest.mark.parametrize("container", ["", "+segments"])
def test_a_quota_of_the_service_is_a_full_store(
    swift: Swift, s3_address: None, datadir: Path, container: str
) -> None:
    store = buckets.store(buckets.SWIFT, datadir)
    store.delete(published(landed(store)))  # so that there are containers
    path = f"/{buckets.bucket_name(datadir)}{container}"
    assert swift.request("POST", path, X_Container_Meta_Quota_Bytes="1000")[0] == 204
    writer = store.create(IMAGE_ID, None)
    os.write(writer.sink.fd, CONTENT if container else CONTENT[:2000])
    with pytest.raises(errors.StoreFull):
        writer.commit()
    assert buckets.names(buckets.SWIFT, datadir) == []


def test_an_upload_that_is_given_up_ends_soon(new_store: NewStore, meddler: Meddler) -> None:
    store = new_store(through=meddler.url)
    meddler.faults.append(Fault("PUT", "partNumber=1", stall=True))
    writer = landed(store)
    assert meddler.stalled.wait(30)
    began = time.monotonic()
    writer.abort()
    assert time.monotonic() - began < 20  # and not the minute for which a service may be silent


def test_a_service_that_takes_nothing_is_no_slow_client(datadir: Path) -> None:
    """The error is not the one of a client that stands still."""
    kept: list[socket.socket] = []

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                kept.append(listener.accept()[0])
                if kept[-1].recv(4096).startswith(b"HEAD "):
                    kept[-1].sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        store = S3Store(
            "s3", host, "images", "access", "secret",
            windows=str(datadir.parent), stall=0.3, pause=0.01, large=64 * MIB,
        )  # fmt: skip
        writer = store.create(IMAGE_ID, 32 * MIB)
        os.ftruncate(writer.sink.fd, 32 * MIB)
        with pytest.raises(errors.ServiceUnavailable):
            writer.commit()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for each in kept:
        each.close()


# TLS


def test_a_service_that_speaks_tls(new_store: NewStore, service: str, tmp_path: Path) -> None:
    certificate = certificates.make(tmp_path / "certificate.pem")
    with encrypted(buckets.port(service), certificate) as url:
        store = new_store(through=url, cafile=str(certificate))
        place = published(landed(store))
        assert place.startswith(f"s3+{url}/")
        assert get(store, place) == CONTENT
        with pytest.raises(errors.ServiceUnavailable):  # nobody vouches for it
            new_store(through=url).open(place)
        elsewhere = new_store(
            through=url.replace("127.0.0.1", "localhost"), cafile=str(certificate)
        )
        with pytest.raises(errors.ServiceUnavailable):  # nor for this name
            elsewhere.open(elsewhere.url(IMAGE_ID))


# What is left behind


def test_only_what_nobody_works_on_is_swept(
    new_store: NewStore, names: Callable[[], list[str]]
) -> None:
    writer = landed(new_store())
    time.sleep(1.1)  # times are of whole seconds
    assert new_store().sweep() == 0
    assert new_store(left=timedelta(hours=1)).sweep() == 0
    kept = put(new_store(), b"kept", OTHER_ID)
    assert new_store(left=timedelta(0)).sweep() == 1
    with pytest.raises(errors.ServiceUnavailable):
        writer.commit()
    assert names() == [OTHER_ID]
    assert get(new_store(), kept) == b"kept"


def test_what_is_left_is_looked_for_now_and_then(new_store: NewStore, meddler: Meddler) -> None:
    """The housekeeping of every process sweeps, many times an hour."""
    store = new_store(through=meddler.url)
    put(store, b"data")
    for _ in range(5):
        assert store.sweep() == 0
    assert meddler.count("GET", "uploads=") == 1


def test_uploads_of_others_are_theirs(new_store: NewStore, service: str, datadir: Path) -> None:
    put(new_store(), b"data")
    bucket = buckets.bucket(service, datadir)
    assert bucket.ask("POST", "backup.tar", {"uploads": ""}).fine
    time.sleep(1.1)
    assert new_store(left=timedelta(0)).sweep() == 0
    assert "backup.tar+" in buckets.names(service, datadir)


def test_a_bucket_that_is_not_there(new_store: NewStore) -> None:
    store = new_store(creates=False)
    for attempt in (
        lambda: put(store, b"data"),
        lambda: store.open(store.url(IMAGE_ID)),
        lambda: list(store.held()),
        store.sweep,
    ):
        with pytest.raises(errors.ServiceUnavailable):
            attempt()


# Locations and keys


def test_old_locations_have_keys_in_them(new_store: NewStore) -> None:
    store = new_store()
    url = put(store, b"data")
    scheme, _, place = url.partition("://")
    for old in (f"s3://access:sec/r@et@{place}", f"s3+https://access:secret@{place}"):
        assert store.holds(old)
        assert get(store, old) == b"data"
        assert Location(old).shown.endswith(f"://{place}")
        assert "sec" not in Location(old).shown
    assert Location(url).shown == url
    store.delete(f"{scheme}://access:secret@{place}")
    with pytest.raises(errors.NotFound):
        store.open(url)


def test_another_buckets_locations_are_not_its_own(new_store: NewStore) -> None:
    store = new_store()
    url = put(store, b"data")
    host = url.split("/")[2]
    for other in (url.replace("/images-", "/others-"), url.replace(host, "127.0.0.2:80")):
        assert not store.holds(other)
        with pytest.raises(errors.StoreNotFound):
            store.open(other)
    for other in (f"{url}/{IMAGE_ID}", f"{url}?versionId=1", url.replace(IMAGE_ID, "secrets")):
        assert not store.holds(other)
    with pytest.raises(errors.InvalidLocation):
        store.check(url)  # only the service itself says where in it something lies


def test_keys_are_told_nobody(
    new_store: NewStore, service: str, datadir: Path, caplog: pytest.LogCaptureFixture,
    meddler: Meddler,
) -> None:  # fmt: skip
    """Neither the right ones nor wrong ones, in what is logged or raised at any fault."""
    _, access, secret = buckets.told(service)
    wrong = S3Store(
        "s3", meddler.url, buckets.bucket_name(datadir), access, "wrong-secret", windows="/var/tmp"
    )
    store = new_store(through=meddler.url, passes_by=True)
    said = [repr(store), repr(store._bucket), str(store.properties)]
    with caplog.at_level(logging.DEBUG):
        url = put(store, b"data")
        presigned = str(store.presigned(url))
        for fault in (None, Fault("PUT", times=99, status=500), Fault("GET", times=99, status=403)):
            meddler.faults[:] = [fault] if fault else []
            for each in (wrong, store):
                for attempt in (
                    lambda each=each: put(each, b"x", OTHER_ID),
                    lambda each=each: each.delete(each.url(OTHER_ID)),
                    lambda each=each: list(each.held()),
                    lambda each=each: each.open(each.url(OTHER_ID)).read(),
                ):
                    try:
                        attempt()
                    except errors.Error as error:
                        said += [str(error), repr(error), repr(error.__cause__)]
    said.append(caplog.text)
    signature = presigned.rpartition("=")[2]
    for text in said:
        for key in (access, secret, "wrong-secret", signature, "Signature=", "/images-"):
            assert key not in text
    assert secret not in presigned


def test_a_service_at_amazons_has_buckets_in_its_hosts() -> None:
    def url(host: str, bucket: str = "images", **how: Any) -> str:
        store = S3Store("s3", host, bucket, "access", "secret", windows="/", passes_by=True, **how)
        return str(store.presigned(store.url(IMAGE_ID)))

    virtual = url("https://s3.eu-west-3.amazonaws.com")
    assert virtual.startswith(f"https://images.s3.eu-west-3.amazonaws.com/{IMAGE_ID}?")
    assert "%2Feu-west-3%2Fs3%2F" in virtual
    assert url("s3.amazonaws.com").startswith("http://images.s3.amazonaws.com/")
    assert "%2Fus-east-1%2Fs3%2F" in url("s3.amazonaws.com")
    dotted = url("https://s3.amazonaws.com", "my.images")  # which no certificate would cover
    assert dotted.startswith("https://s3.amazonaws.com/my.images/")
    here = url("object.example.com:8080", region="here")
    assert here.startswith(f"http://object.example.com:8080/images/{IMAGE_ID}?")
    assert "%2Fhere%2Fs3%2F" in here
    assert url("object.example.com", style="virtual").startswith("http://images.object.example.com")


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("", "images"), ("ftp://example.com", "images"), ("example.com/path", "images"),
        ("key:secret@example.com", "images"), ("example.com;x", "images"),
        ("example.com", "a/b"), ("example.com", "a b"),
    ],
)  # fmt: skip
def test_addresses_that_cannot_be(host: str, bucket: str) -> None:
    with pytest.raises(errors.ConfigurationError) as raised:
        S3Store("s3", host, bucket, "access", "secret", windows="/")
    assert "secret" not in str(raised.value)


def test_authorities_that_are_not_there() -> None:
    with pytest.raises(errors.ConfigurationError, match="authorities"):
        S3Store("s3", "https://h", "images", "a", "s", windows="/", cafile="/no/such/file")


def test_names_of_services_are_found() -> None:
    store = S3Store("s3", "https://h:9000/", "images", "a", "s", windows="/")
    assert store.url(IMAGE_ID) == f"s3+https://h:9000/images/{IMAGE_ID}"
    assert S3Store("s3", "h", "images", "a", "s", windows="/").url(IMAGE_ID).startswith("s3://h/")


def test_nobody_fetches_by_himself_unless_told_so(new_store: NewStore) -> None:
    url = put(new_store(), b"data")
    assert new_store().presigned(url) is None
    with contextlib.closing(new_store().open(url)) as data:
        assert data.presigned() is None
