"""The http store against origins of every manner."""

import base64
import contextlib
import logging
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.stores.destinations import Destinations, Rules
from headrace.stores.http import HttpStore
from headrace.stores.origin import Origins
from headrace.transfer import engine
from tests import certificates
from tests.contract.stores.origin_server import Origin, running

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running() as found:
        found.data["/image"] = CONTENT
        yield found


def rules(*origins: Origin) -> Rules:
    ports = tuple(each.port for each in origins)
    return Rules(allowed_hosts=("127.0.0.1", "images.example.com"), allowed_ports=ports)


def resolve(name: str, port: int) -> list[str]:
    return {"images.example.com.": ["127.0.0.1"]}.get(name, ["169.254.169.254"])


def store_for(*origins: Origin, **manners: object) -> HttpStore:
    destinations = Destinations(rules(*origins), resolve)
    return HttpStore("web", Origins(destinations, **manners))  # type: ignore[arg-type]


def fetched(store: HttpStore, url: str) -> bytes:
    with contextlib.closing(store.open(url)) as data:
        return data.read()


def test_the_connection_goes_to_the_checked_address_under_the_name_asked_for(
    origin: Origin,
) -> None:
    """There is no such name; only what the check found is connected to."""
    url = f"http://images.example.com:{origin.port}/image"
    assert fetched(store_for(origin), url) == CONTENT
    ((method, path, headers),) = origin.asked
    assert (method, path) == ("GET", "/image")
    assert headers["Host"] == f"images.example.com:{origin.port}"
    assert headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in headers


def test_what_has_been_read_to_its_end_can_be_cut(origin: Origin) -> None:
    """As a service that stops does with all that is fetched: no data, and it would not stop."""
    fetched = Origins(Destinations(rules(origin))).download(origin.url("/image"))
    with contextlib.closing(fetched):
        assert fetched.read(len(CONTENT)) == CONTENT
        assert fetched.read(1) == b""
        fetched.cut()


@pytest.mark.parametrize("content", [CONTENT, b""])
def test_an_origin_that_stands_still_after_its_head(
    origin: Origin, tmp_path: Path, content: bytes
) -> None:
    """What is pumped from its socket is cut short; of nothing nothing is missing."""
    over = threading.Event()

    def wait(_data: bytes) -> list[bytes]:
        over.wait(60)
        return []

    origin.data["/image"], origin.pieces = content, wait
    told = pytest.raises(errors.TransferError) if content else contextlib.nullcontext()
    with (
        contextlib.closing(store_for(origin, stall=0.5).open(origin.url("/image"))) as data,
        (tmp_path / "image").open("wb") as file,
    ):
        try:
            with told:
                engine.pump_all(data.pieces(), engine.FileSink(file.fileno()))
        finally:
            over.set()


def test_every_address_is_tried_in_turn(origin: Origin) -> None:
    def several(_name: str, _port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first

    store = HttpStore("web", Origins(Destinations(rules(origin), several)))
    assert fetched(store, f"http://images.example.com:{origin.port}/image") == CONTENT


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(origin: Origin, status: int) -> None:
    origin.redirect("/a", origin.url("/b"), status)
    origin.redirect("/b", "image", status)
    assert fetched(store_for(origin), origin.url("/a")) == CONTENT


def test_at_most_five_redirects(origin: Origin) -> None:
    for number in range(6):
        origin.redirect(f"/{number}", f"/{number + 1}")
    origin.data["/6"] = CONTENT
    assert fetched(store_for(origin), origin.url("/1")) == CONTENT
    with pytest.raises(errors.ServiceUnavailable, match="without end"):
        store_for(origin).open(origin.url("/0"))


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/latest/meta-data/", "http://0x7f000001/", "http://2130706433/",
        "http://[::1]/", "http://[::1/", "file:///etc/passwd",
        "http://rebound.example.com/", "//169.254.169.254/",
    ],
)  # fmt: skip
def test_ossa_2026_004_redirects_are_checked_like_the_first_address(
    origin: Origin, to: str
) -> None:
    origin.redirect("/a", to)
    with pytest.raises(errors.ServiceUnavailable) as caught:
        store_for(origin).open(origin.url("/a"))
    assert "169" not in str(caught.value)
    assert [path for _, path, _ in origin.asked] == ["/a"]


def test_ossa_2026_004_a_redirect_to_another_port_of_the_same_host(origin: Origin) -> None:
    with running() as other:
        other.data["/secret"] = b"secret"
        origin.redirect("/a", other.url("/secret"))
        with pytest.raises(errors.ServiceUnavailable):
            store_for(origin).open(origin.url("/a"))
        assert other.asked == []


def test_ossa_2026_004_what_is_recorded_is_checked_again_at_every_download() -> None:
    """A location that was good, or that a Glance took, may have become another."""
    store = HttpStore("web", Origins(Destinations(Rules())))
    for url in ("http://127.0.0.1/", "http://169.254.169.254/", "http://example.com:22/"):
        with pytest.raises(errors.ServiceUnavailable):
            store.open(url)


def test_credentials_go_to_the_origin_that_they_are_for_only(origin: Origin) -> None:
    with running() as other:
        other.data["/image"] = CONTENT
        origin.redirect("/a", other.url("/image"))
        url = f"http://me:p%40ss@127.0.0.1:{origin.port}/a"
        assert fetched(store_for(origin, other), url) == CONTENT
        (_, _, first), (_, _, second) = origin.asked[0], other.asked[0]
        assert first["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
        assert "Authorization" not in second


def test_ossa_2013_002_and_2014_004_no_credentials_in_errors_and_logs(
    origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    origin.data["/denied"] = b""
    origin.statuses["/denied"] = 403
    origin.redirect("/loop", "/loop")
    store = store_for(origin)
    with running() as gone:
        closed = gone.port
    said = []
    with caplog.at_level(logging.DEBUG):
        for path, port in (("denied", 0), ("none", 0), ("loop", 0), ("x", closed), ("x", 1)):
            url = f"http://me:hunter2@127.0.0.1:{port or origin.port}/{path}?token=hunter2"
            with pytest.raises(errors.Error) as caught:
                store.open(url)
            said.append(f"{caught.value}{caught.value.__cause__}{caught.value.fields}")
    for text in (*said, caplog.text):
        assert "hunter2" not in text
        assert "127.0.0.1" not in text


@pytest.mark.parametrize("status", [204, 301, 400, 401, 403, 416, 429, 500, 503])
def test_answers_without_the_data(origin: Origin, status: int) -> None:
    origin.data["/bad"] = b"" if status == 204 else CONTENT
    origin.statuses["/bad"] = status
    with pytest.raises(errors.ServiceUnavailable):
        store_for(origin).open(origin.url("/bad"))


@pytest.mark.parametrize("heads", [{"Transfer-Encoding": "chunked"}, {"Content-Encoding": "gzip"}])
def test_data_of_unknown_size_or_in_disguise(origin: Origin, heads: dict[str, str]) -> None:
    origin.heads["/image"] = heads
    with pytest.raises(errors.ServiceUnavailable):
        store_for(origin).open(origin.url("/image"))


def test_a_range_is_asked_for_as_one(origin: Origin) -> None:
    with contextlib.closing(store_for(origin).open(origin.url("/image"))) as data:
        data.narrow(1000, 5)
        assert data.read() == CONTENT[1000:1005]
    assert origin.asked[-1][2]["Range"] == "bytes=1000-1004"


def test_an_origin_need_not_know_ranges(origin: Origin) -> None:
    origin.ranges = False
    with contextlib.closing(store_for(origin).open(origin.url("/image"))) as data:
        data.narrow(200_000, 5)
        assert data.read() == CONTENT[200_000:200_005]


def test_another_range_than_asked_for_is_none(origin: Origin) -> None:
    with contextlib.closing(store_for(origin).open(origin.url("/image"))) as data:
        origin.data["/image"] = CONTENT[:1002]  # it became shorter
        with pytest.raises(errors.ServiceUnavailable):
            data.narrow(1000, 5)


def test_an_origin_that_breaks_off(origin: Origin) -> None:
    origin.announced = len(CONTENT) + 1
    with contextlib.closing(store_for(origin).open(origin.url("/image"))) as data:
        assert data.length == len(CONTENT) + 1
        got = b"".join(data.read(1000) for _ in range(0, len(CONTENT), 1000))
        assert (got, data.sent) == (CONTENT, len(CONTENT))
        with pytest.raises(errors.TransferError):
            data.read(1000)


@pytest.mark.parametrize("part", [(0, len(CONTENT)), (1000, 5), (7, 200_000)])
def test_the_socket_itself_can_be_pumped(
    origin: Origin, tmp_path: Path, part: tuple[int, int]
) -> None:
    offset, length = part
    with (
        contextlib.closing(store_for(origin).open(origin.url("/image"))) as data,
        open(tmp_path / "image", "w+b") as file,
    ):
        data.narrow(offset, length)
        moved = engine.pump_all(data.pieces(), engine.FileSink(file.fileno()))
        assert (moved.bytes, data.sent) == (length, length)
        assert file.read() == CONTENT[offset : offset + length]
        if length > 100_000:
            assert moved.how is engine.How.SPLICE


def test_so_many_are_open_at_a_time(origin: Origin) -> None:
    """Each holds a thread for as long as its client likes."""
    store = HttpStore("web", Origins(Destinations(rules(origin), resolve)), most=2)
    url = origin.url("/image")
    with contextlib.closing(store.open(url)), contextlib.closing(store.open(url)) as second:
        with pytest.raises(errors.OriginsBusy):
            store.open(url)
        second.close()
        second.close()
        with pytest.raises(errors.NotFound):  # which gives its turn back
            store.open(origin.url("/none"))
        with contextlib.closing(store.open(url)) as third:
            assert third.read() == CONTENT
    assert fetched(store, url) == CONTENT


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[Origin, Path]]:
    certificate = certificates.make(tmp_path / "certificate.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with running(context) as found:
        found.data["/image"] = CONTENT
        yield found, certificate


def test_certificates_are_verified(encrypted: tuple[Origin, Path]) -> None:
    origin, certificate = encrypted
    with pytest.raises(errors.ServiceUnavailable):
        store_for(origin).open(origin.url("/image"))
    assert fetched(store_for(origin, cafile=str(certificate)), origin.url("/image")) == CONTENT
    assert fetched(store_for(origin, insecure=True), origin.url("/image")) == CONTENT
    # It is the name asked for that is verified, not the address connected to.
    with pytest.raises(errors.ServiceUnavailable):
        store_for(origin, cafile=str(certificate)).open(
            f"https://images.example.com:{origin.port}/image"
        )


def test_authorities_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"none\.pem"):
        Origins(Destinations(Rules()), cafile=str(tmp_path / "none.pem"))
