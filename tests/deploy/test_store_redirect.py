"""nginx fetches the data of images in an S3 store itself, by a URL that nobody else sees."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import config
from headrace.model import MIB
from tests.deploy import redirects
from tests.deploy.callers import only_its_owner_is_given
from tests.deploy.conftest import OCTETS, Deployed, path, require_host
from tests.deploy.redirects import by_headrace, by_nginx
from tests.deploy.redirects import meddler as meddler
from tests.deploy.redirects import nginx as nginx
from tests.deploy.wire import Answer, Wire
from tests.meddler import Fault, Meddler
from tools import hosts
from tools.swift import KEY, USER, Swift

pytestmark = pytest.mark.slow

BUCKET = "redirected"
REDIRECT = "x-accel-redirect"
DATA = os.urandom(6 * MIB + 41)
SECRETS = ("Signature", BUCKET, USER, KEY, "127.0.0.1")
CONF = """\
[DEFAULT]
enabled_backends = objects:s3, files:file
[glance_store]
default_backend = objects
[objects]
s3_store_host = {url}
s3_store_access_key = {user}
s3_store_secret_key = {key}
s3_store_bucket = {bucket}
s3_store_create_bucket_on_put = true
s3_store_large_object_size = 5
s3_store_large_object_chunk_size = 5
[files]
filesystem_store_datadir = {files}
[headrace]
store_redirect = true
"""


def settings(url: str, files: str | Path) -> str:
    return CONF.format(url=url, user=USER, key=KEY, bucket=BUCKET, files=files)


@pytest.fixture(scope="module")
def redirecting(meddler: Meddler) -> Iterator[Deployed]:
    require_host("nginx")
    with hosts.running("nginx", conf=settings(meddler.url, "state/files")) as host:
        yield Deployed(host, DATA)


def told_nothing(answer: Answer, nginx: Deployed) -> None:
    redirects.told_nothing(answer, nginx, SECRETS, ("X-Amz-", KEY))


def test_the_whole(nginx: Deployed, meddler: Meddler) -> None:
    answer = nginx.ask("GET", path(nginx.whole))
    assert (answer.status, answer.body == DATA) == (200, True)
    image = nginx.ask("GET", f"/v2/images/{nginx.whole}").json
    assert answer.headers["content-md5"] == image["checksum"]
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    assert "etag" not in answer.headers
    assert "last-modified" not in answer.headers
    told_nothing(answer, nginx)
    assert by_headrace(meddler) == ["HEAD"]  # not a byte of it
    assert len(by_nginx(meddler)) == 1


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("0-0", 0, 0), ("5-1000000", 5, 1000000), ("-7", len(DATA) - 7, len(DATA) - 1),
     ("6291400-", 6291400, len(DATA) - 1)],
)  # fmt: skip
def test_a_range(nginx: Deployed, meddler: Meddler, asked: str, first: int, last: int) -> None:
    answer = nginx.ask("GET", path(nginx.whole), f"Range: bytes={asked}")
    assert (answer.status, answer.body == DATA[first : last + 1]) == (206, True)
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"
    told_nothing(answer, nginx)
    assert by_headrace(meddler) == ["HEAD"]
    assert f"Range: bytes={first}-{last}\r\n" in by_nginx(meddler)[0]


def test_what_headrace_decides_about_ranges_holds(nginx: Deployed, meddler: Meddler) -> None:
    answer = nginx.ask("GET", path(nginx.whole), "Range: bytes=0-9", 'If-Range: "tag"')
    assert (answer.status, answer.body == DATA) == (200, True)
    for field in ("Range: bytes=99999999-", "Range: bytes=0-1,5-6"):
        answer = nginx.ask("GET", path(nginx.whole), field)
        assert answer.status in (400, 416)
        told_nothing(answer, nginx)
    assert len(by_nginx(meddler)) == 1
    for field in ("If-None-Match: *", "Content-Range: bytes 5-9/*"):  # old clients', in a request
        answer = nginx.ask("GET", path(nginx.whole), field)
        assert answer.status in (200, 206)
        assert answer.body in (DATA, DATA[5:10])
    assert len(by_nginx(meddler)) == 1, "Headrace has sent these itself"


def test_the_store_learns_nothing_of_the_client(nginx: Deployed, meddler: Meddler) -> None:
    fields = ["X-Auth-Token: t0ken", "Cookie: session=1", "Authorization: Basic QQ==",
              "If-Match-Nothing: 1", "X-Forwarded-For: 192.0.2.1"]  # fmt: skip
    assert nginx.ask("GET", path(nginx.whole), *fields).status == 200
    head = by_nginx(meddler)[0]
    names = {line.partition(":")[0] for line in head.split("\r\n")[1:] if line}
    assert names <= {"Host", "Connection"}


def test_head_is_no_method_of_data(nginx: Deployed, meddler: Meddler) -> None:
    answer = nginx.ask("HEAD", path(nginx.whole))
    assert answer.status == 405
    told_nothing(answer, nginx)
    assert meddler.asked == []


def test_only_who_gets_the_data_is_sent_there(nginx: Deployed, meddler: Meddler) -> None:
    def ask(target: str, *fields: str, method: str = "GET") -> Answer:
        with Wire(nginx.host.state_dir / "headrace.sock") as wire:
            return wire.request(method, target, *fields)

    given = ask(path(nginx.whole), "Range: bytes=0-9")
    assert given.headers[REDIRECT].startswith(
        f"/headrace-stores/http/127.0.0.1:{meddler.here}/{BUCKET}/{nginx.whole}?"
    )
    assert given.headers["x-headrace-range"] == "bytes=0-9"
    assert (given.body, KEY in given.headers[REDIRECT]) == (b"", False)
    refused = {
        path("00000000-0000-4000-8000-000000000000"): 404,
        path(nginx.create()): 204,
        path("../../etc/passwd"): 404,
    }
    for target, status in refused.items():
        for fields in ([], ["Range: bytes=0-1"]):
            answer = ask(target, *fields)
            assert (answer.status, REDIRECT in answer.headers) == (status, False)
    assert REDIRECT not in ask(path(nginx.whole), method="HEAD").headers


@pytest.mark.parametrize(
    "target",
    [
        "/headrace-stores/http/127.0.0.1:{port}/{bucket}/{image}",
        "//headrace-stores/http/127.0.0.1:{port}/{bucket}/{image}",
        "/%68eadrace-stores/http/127.0.0.1:{port}/{bucket}/{image}?signature=1",
        "/headrace-stores/http/192.0.2.1/",
    ],
)
def test_the_location_is_closed_to_clients(nginx: Deployed, meddler: Meddler, target: str) -> None:
    answer = nginx.ask(
        "GET", target.format(port=meddler.here, bucket=BUCKET, image=nginx.whole),
        f"X-Accel-Redirect: /headrace-stores/http/127.0.0.1:{meddler.here}/",
    )  # fmt: skip
    assert answer.status == 404
    assert meddler.asked == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", times=9, status=403), Fault("GET", times=9, status=404),
        Fault("GET", times=9, status=500), Fault("GET", times=9, status=307),
        Fault("GET", times=9, cut_answer=0),
    ],
    ids=["refuses", "has lost it", "fails", "sends on", "is away"],
)  # fmt: skip
@pytest.mark.parametrize("fields", [(), ("Range: bytes=1-9",)], ids=["whole", "range"])
def test_a_store_that(
    nginx: Deployed, meddler: Meddler, fault: Fault, fields: tuple[str, ...]
) -> None:
    meddler.faults.append(fault)
    answer = nginx.ask("GET", path(nginx.whole), *fields)
    assert answer.status == 502
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    told_nothing(answer, nginx)


def test_a_store_that_breaks_off(nginx: Deployed, meddler: Meddler) -> None:
    """What is short is seen to be short."""
    meddler.faults.append(Fault("GET", cut_answer=MIB))
    answer = nginx.ask("GET", path(nginx.whole))
    assert not answer.whole
    assert DATA.startswith(answer.body)
    told_nothing(answer, nginx)


def test_a_store_that_is_away_from_the_start(nginx: Deployed, meddler: Meddler) -> None:
    meddler.faults.append(Fault("HEAD", times=99, status=500))
    answer = nginx.ask("GET", path(nginx.whole))
    assert answer.status == 503
    told_nothing(answer, nginx)


def test_other_stores_are_as_ever(nginx: Deployed, meddler: Meddler) -> None:
    image = nginx.create()
    fields = (OCTETS, "x-image-meta-store: files")
    assert nginx.ask("PUT", path(image), *fields, body=DATA).status == 204
    meddler.asked.clear()
    answer = nginx.ask("GET", path(image), "Range: bytes=5-99")
    assert (answer.status, answer.body) == (206, DATA[5:100])
    assert meddler.asked == []


def test_who_may_not_have_an_image_is_not_sent_there(swift: Swift, tmp_path: Path) -> None:
    file = tmp_path / "headrace.conf"
    file.write_text(settings(swift.url, tmp_path / "files"))
    conf = config.load(
        [file],
        {
            ("headrace", "state_dir"): str(tmp_path / "state"),
            ("headrace", "delivery"): REDIRECT,
            ("headrace", "unauthenticated_ok"): True,
        },
    )
    only_its_owner_is_given(conf, REDIRECT)
