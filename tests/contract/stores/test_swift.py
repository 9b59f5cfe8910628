"""The Swift store: its locations, who logs in, what others have put there."""

import contextlib
import hashlib
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from headrace import errors
from headrace.stores.swift import SwiftStore
from headrace.stores.swift_account import Access, Account, Reference
from headrace.stores.swift_place import Containers
from tests import certificates
from tests.contract.stores import swifts
from tests.contract.stores.origin_server import running as origin
from tests.contract.stores.storing import IMAGE_ID, OTHER_ID, get, put
from tests.relay import encrypted
from tools.keystone import PASSWORD, REGION, Keystone
from tools.swift import KEY, STRANGER, USER, Swift, running

pytestmark = pytest.mark.slow

CONTENT = bytes(range(256)) * 4000
SEGMENT = 300_000
SEGMENTS = 4


@pytest.fixture
def container(datadir: Path, swift_address: None) -> str:
    return swifts.container(datadir)


@pytest.fixture
def store(datadir: Path, container: str) -> SwiftStore:
    return swifts.store(datadir, segment=SEGMENT)


def test_an_image_is_segments_that_a_manifest_names(
    store: SwiftStore, swift: Swift, container: str
) -> None:
    url = put(store, CONTENT)
    assert url == f"swift+config://ref1/{container}/{IMAGE_ID}"
    names = swift.names(container)
    assert [name.partition("/")[0] for name in names] == [IMAGE_ID] * (1 + SEGMENTS)
    status, headers, body = swift.request(
        "GET", f"/{container}/{IMAGE_ID}?multipart-manifest=get&format=raw"
    )
    assert (status, headers["X-Static-Large-Object"]) == (200, "True")
    parts = [CONTENT[at : at + SEGMENT] for at in range(0, len(CONTENT), SEGMENT)]
    assert [(each["etag"], each["size_bytes"]) for each in json.loads(body)] == [
        (hashlib.md5(part).hexdigest(), len(part)) for part in parts
    ]
    store.delete(url)
    assert swift.names(container) == []


def test_what_is_told_of_it(store: SwiftStore, container: str) -> None:
    assert store.properties == {
        "container": container,
        "large_object_size": 5120,
        "large_object_chunk_size": 0,
    }
    assert (store.kind, store.local) == ("swift", False)


@pytest.mark.parametrize(
    "url",
    [
        "swift+config://ref1/{container}/{id}",
        "{scheme}://{user}:{key}@{address}/{container}/{id}",
        "{scheme}://{user}:an%20old%20key@{address}/{container}/{id}",
    ],
)
def test_locations_that_a_glance_wrote_are_found(
    store: SwiftStore, swift: Swift, container: str, url: str
) -> None:
    put(store, CONTENT)
    scheme, _, address = swift.auth_url.partition("://")
    user, key = map(quote, (USER, KEY))
    found = url.format(
        scheme=f"swift+{scheme}", user=user, key=key, address=address, container=container,
        id=IMAGE_ID,
    )  # fmt: skip
    assert store.holds(found)
    assert get(store, found) == CONTENT
    store.delete(found)
    assert swift.names(container) == []


def test_a_location_of_another_user_is_read_by_the_key_it_holds(
    store: SwiftStore, swift: Swift, container: str
) -> None:
    address = swift.auth_url.removeprefix("http://")
    url = f"swift+http://{quote(STRANGER)}:{quote(KEY)}@{address}/{container}/{IMAGE_ID}"
    assert store.holds(url)
    with pytest.raises(errors.NotFound):  # in the account of the stranger
        store.open(url)
    put(store, CONTENT)
    with pytest.raises(errors.NotFound):
        store.delete(url)
    wrong = f"swift+http://{quote(STRANGER)}:wrong@{address}/{container}/{IMAGE_ID}"
    with pytest.raises(errors.ServiceUnavailable) as refused:
        store.open(wrong)
    assert "wrong" not in str(refused.value)


def test_user_and_key_of_a_location_are_told_apart_though_quoted(
    datadir: Path, swift_address: None
) -> None:
    with origin() as login:
        address = f"127.0.0.1:{login.port}/auth"
        configured = Reference(f"http://{address}", USER, KEY, "1")
        store = swifts.store(
            datadir, references={"ref1": configured}, containers=Containers("images")
        )
        url = f"swift+http://{quote('an:other')}:{quote('k:e@y%')}@{address}/images/{IMAGE_ID}"
        with pytest.raises(errors.ServiceUnavailable):
            store.open(url)
    ((_, _, headers),) = login.asked
    assert (headers["X-Auth-User"], headers["X-Auth-Key"]) == ("an:other", "k:e@y%")


def test_of_many_who_wait_for_a_login_that_fails_one_has_tried(
    datadir: Path, swift_address: None
) -> None:
    """Or the last of them would wait for as many times as long as there are."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/auth"
        store = swifts.store(
            datadir,
            references={"ref1": Reference(address, USER, KEY, "1")},
            containers=Containers("images"),
            access=Access(stall=2.0),
        )
        together = threading.Barrier(6, timeout=60)

        def read() -> None:
            together.wait()
            with pytest.raises(errors.ServiceUnavailable):
                store.open(store.url(IMAGE_ID))

        with ThreadPoolExecutor(6) as pool:
            for each in [pool.submit(read) for _ in range(6)]:
                each.result()
        listener.setblocking(False)
        tried = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.accept()[0].close()
                tried += 1
        assert tried < 6  # a latecomer tries anew


@pytest.mark.parametrize(
    "url",
    [
        "swift+config://ref2/{container}/{id}",
        "swift+config://ref1/another/{id}",
        "swift+http://{user}:{key}@127.0.0.1:1/auth/v1.0/{container}/{id}",
        "swift+https://{user}:{key}@{address}/{container}/{id}",
        "swift://{user}:{key}@{address}/{container}/{id}",
        "swift+http://{address}/{container}/{id}",
    ],
)
def test_no_key_goes_where_nobody_configured_it_to(
    store: SwiftStore, swift: Swift, container: str, url: str
) -> None:
    address = swift.auth_url.removeprefix("http://")
    elsewhere = url.format(
        user=quote(USER), key=quote(KEY), address=address, container=container, id=IMAGE_ID
    )
    assert not store.holds(elsewhere)
    for act in (store.open, store.delete):
        with pytest.raises(errors.StoreNotFound) as refused:
            act(elsewhere)
        assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "swift+config://ref1/c",
        "swift+config://ref1/",
        "swift+config://",
        "swift+config:///c/{id}",
        "swift+config://ref1/c/{id}/..",
        "swift+ftp://h/c/{id}",
        "swift+config://ref1/c/{id}?multipart-manifest=get",
        "{id}",
    ],
)
def test_what_is_no_location_of_it(store: SwiftStore, url: str) -> None:
    url = url.format(id=IMAGE_ID)
    assert not store.holds(url)
    with pytest.raises(errors.NotFound):
        store.open(url)


@pytest.mark.parametrize(
    "url",
    [
        "swift+config://ref1/{container}/{id}",
        "swift+http://u:k@h/v1/{container}/{id}",
        "swift://h/v1/c/{id}",
    ],
)
def test_no_caller_may_name_a_location_of_it(store: SwiftStore, container: str, url: str) -> None:
    """OSSA-2014-041, OSSA-2015-002: it would be read by the service's own key."""
    with pytest.raises(errors.InvalidLocation):
        store.check(url.format(container=container, id=IMAGE_ID))


def test_an_object_that_a_glance_put_whole(store: SwiftStore, swift: Swift, container: str) -> None:
    swift.request("PUT", f"/{container}")
    swift.request("PUT", f"/{container}/{IMAGE_ID}", CONTENT)
    url = store.url(IMAGE_ID)
    assert get(store, url) == CONTENT
    assert list(store.held()) == [IMAGE_ID]
    with pytest.raises(errors.DataExists):
        store.create(IMAGE_ID, None)
    store.delete(url)
    assert swift.names(container) == []


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_an_object_that_a_glance_put_in_chunks(
    store: SwiftStore, swift: Swift, container: str, kind: str
) -> None:
    swift.request("PUT", f"/{container}")
    chunks = [CONTENT[:500_000], CONTENT[500_000:]]
    for number, chunk in enumerate(chunks, 1):
        swift.request("PUT", f"/{container}/{IMAGE_ID}-{number:05d}", chunk)
    path = f"/{container}/{IMAGE_ID}"
    if kind == "dynamic":
        swift.request("PUT", path, X_Object_Manifest=f"{container}/{IMAGE_ID}-")
    else:
        named = [
            {"path": f"{path}-{number:05d}", "etag": None, "size_bytes": None} for number in (1, 2)
        ]
        swift.request("PUT", f"{path}?multipart-manifest=put", json.dumps(named).encode())
    put(store, b"another", OTHER_ID)
    url = store.url(IMAGE_ID)
    assert get(store, url) == CONTENT
    with contextlib.closing(store.open(url)) as data:
        data.narrow(499_990, 20)
        assert data.read() == CONTENT[499_990:500_010]
    assert sorted(store.held()) == sorted([IMAGE_ID, OTHER_ID])
    store.delete(url)
    assert {name.partition("/")[0] for name in swift.names(container)} == {OTHER_ID}


def test_more_segments_than_a_manifest_names_are_a_dynamic_object(
    datadir: Path, swift: Swift, container: str
) -> None:
    store = swifts.store(datadir, segment=SEGMENT, named=SEGMENTS - 1)
    url = put(store, CONTENT)
    _, headers, _ = swift.request("HEAD", f"/{container}/{IMAGE_ID}")
    assert headers["X-Object-Manifest"].startswith(f"{container}/{IMAGE_ID}/")
    assert get(store, url) == CONTENT
    store.delete(url)
    assert swift.names(container) == []


def test_no_image_has_more_segments_than_one_listing(datadir: Path, container: str) -> None:
    store = swifts.store(datadir, segment=2)
    with pytest.raises(errors.StoreFull):
        store.create(IMAGE_ID, 20_001)
    store.create(IMAGE_ID, 20_000).abort()


def test_containers_by_the_beginnings_of_ids(datadir: Path, swift: Swift, container: str) -> None:
    store = swifts.store(datadir, containers=Containers(container, 10, create=True))
    urls = [put(store, b"1"), put(store, b"2", OTHER_ID)]
    assert urls[0] == f"swift+config://ref1/{container}_{IMAGE_ID[:11]}/{IMAGE_ID}"
    assert swift.names(f"{container}_{IMAGE_ID[:11]}")[0] == IMAGE_ID
    assert sorted(store.held()) == sorted([IMAGE_ID, OTHER_ID])
    others = swifts.store(datadir)
    assert [get(others, url) for url in urls] == [b"1", b"2"]
    for url in urls:
        store.delete(url)
    assert list(store.held()) == []


def test_a_container_is_made_only_if_that_is_wanted(datadir: Path, container: str) -> None:
    store = swifts.store(datadir, containers=Containers(container))
    assert list(store.held()) == []
    assert store.sweep() == 0
    for content in (CONTENT, b""):
        with pytest.raises(errors.StoreUnwritable):
            put(store, content)


def test_listings_are_read_page_by_page(swift: Swift, container: str, swift_address: None) -> None:
    swift.request("PUT", f"/{container}")
    names = [f"{letter}/{number}" for letter in "abc" for number in (1, 2)]
    for name in names:
        swift.request("PUT", f"/{container}/{name}")
    account = Account("Swift", swifts.reference(), Access())
    for page in (1, 2, 5, 6, 7):
        assert [each["name"] for each in account.names(container, page=page)] == names
        listed = account.names(container, delimiter="/", page=page)
        assert [each["subdir"] for each in listed] == ["a/", "b/", "c/"]
    assert [each["name"] for each in account.names(container, "b/", page=1)] == ["b/1", "b/2"]


def _orphan(store: SwiftStore, swift: Swift, container: str, image_id: str) -> list[str]:
    """What a process leaves that is killed in an upload of the image."""
    writer = store.create(image_id, None)
    os.write(writer.sink.fd, CONTENT)
    writer.advance(len(CONTENT))
    assert writer._pool is not None
    writer._pool.shutdown()
    return [name for name in swift.names(container) if name.startswith(f"{image_id}/")]


def test_a_sweep_removes_what_crashed_uploads_left(
    datadir: Path, store: SwiftStore, swift: Swift, container: str
) -> None:
    kept = put(store, CONTENT)
    third = OTHER_ID.replace("7", "8")
    orphans = [
        *_orphan(store, swift, container, OTHER_ID),
        *_orphan(swifts.store(datadir, segment=SEGMENT), swift, container, third),
    ]
    again = f"{IMAGE_ID}/{'0' * 32}/00000000"
    for name in (again, f"{IMAGE_ID}/strange", "strange"):
        swift.request("PUT", f"/{container}/{name}", b"x")
    assert len(orphans) > 1
    assert store.sweep() == 0  # they may be of uploads that go on
    old = swifts.store(datadir, forgotten=timedelta(0))
    assert old.sweep() == 3
    assert old.sweep() == 0
    left = swift.names(container)
    assert not {*orphans, again} & set(left)
    assert {f"{IMAGE_ID}/strange", "strange"} <= set(left)
    assert get(store, kept) == CONTENT


def test_a_deletion_removes_what_crashed_uploads_of_the_image_left(
    store: SwiftStore, swift: Swift, container: str
) -> None:
    assert _orphan(store, swift, container, IMAGE_ID)
    with pytest.raises(errors.NotFound):
        store.delete(store.url(IMAGE_ID))
    assert swift.names(container) == []


def test_a_token_that_has_ended_is_replaced(
    store: SwiftStore, swift: Swift, container: str
) -> None:
    url = put(store, CONTENT)
    swift.forget_tokens()
    assert get(store, url) == CONTENT
    swift.forget_tokens()
    put(store, CONTENT, OTHER_ID)
    swift.forget_tokens()
    assert sorted(store.held()) == sorted([IMAGE_ID, OTHER_ID])


def test_a_wrong_key_is_not_told(
    datadir: Path, container: str, caplog: pytest.LogCaptureFixture
) -> None:
    """OSSA-2013-002, OSSA-2014-004: no key is in errors or logs."""
    caplog.set_level(logging.DEBUG)
    wrong = Reference(os.environ[swifts.ADDRESS], USER, "no key of it", "1")
    store = swifts.store(datadir, references={"ref1": wrong})
    for act in (
        lambda: store.create(IMAGE_ID, None),
        lambda: store.open(store.url(IMAGE_ID)),
        lambda: store.delete(store.url(IMAGE_ID)),
        lambda: list(store.held()),
    ):
        with pytest.raises(errors.ServiceUnavailable) as refused:
            act()
        assert str(refused.value) == "service unavailable: store swift answers 401"
    for told in (caplog.text, repr(wrong), repr(store)):
        assert "no key of it" not in told


def test_through_tls(datadir: Path, swift: Swift, container: str, tmp_path: Path) -> None:
    certificate = certificates.make(tmp_path / "both.pem")
    with encrypted(swift.port, certificate) as url:
        endpoint = url + swift.token()[0]
        trusting = Access(endpoint=endpoint, cafile=str(certificate))
        store = swifts.store(datadir, access=trusting, segment=SEGMENT)
        assert get(store, put(store, CONTENT)) == CONTENT
        with pytest.raises(errors.ServiceUnavailable, match="SSLCertVerificationError"):
            swifts.store(datadir, access=Access(endpoint=endpoint)).open(store.url(IMAGE_ID))
        careless = swifts.store(datadir, access=Access(endpoint=endpoint, insecure=True))
        careless.delete(store.url(IMAGE_ID))


@pytest.fixture(scope="module")
def swift_of_keystone(
    keystone: Keystone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Swift]:
    """Another Swift, of which the catalog of a Keystone tells."""
    with running(tmp_path_factory.mktemp("swift"), keystone) as swift:
        swift.register()
        yield swift


def test_with_a_token_of_keystone(
    datadir: Path, keystone: Keystone, swift_of_keystone: Swift
) -> None:
    domains = {"user_domain_id": "default", "project_domain_id": "default"}
    member = Reference(keystone.url, "demo:member", PASSWORD, **domains)

    def store(reference: Reference, **how: str) -> SwiftStore:
        return SwiftStore(
            "swift", {"ref1": reference}, "ref1", Access(**how), Containers(create=True),
            str(datadir.parent), segment=SEGMENT,
        )  # fmt: skip

    url = put(store(member, region=REGION), CONTENT)
    assert get(store(member, interface="internal"), url) == CONTENT
    with pytest.raises(errors.ServiceUnavailable, match="does not answer"):
        store(member, interface="admin").open(url)
    with pytest.raises(errors.ServiceUnavailable, match="EndpointNotFound"):
        store(member, region="elsewhere").open(url)
    with pytest.raises(errors.ServiceUnavailable, match="cannot log in") as refused:
        store(Reference(keystone.url, "demo:member", "wrong one", **domains)).open(url)
    assert "wrong one" not in str(refused.value)
    old = f"swift+http://demo%3Amember:{quote(PASSWORD)}@{keystone.url[7:]}/glance/{IMAGE_ID}"
    assert get(store(member), old) == CONTENT
    store(member).delete(old)
