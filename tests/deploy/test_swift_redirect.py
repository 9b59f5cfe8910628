"""nginx fetches the data of images in Swift itself, by a temp URL that nobody else sees."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import config, errors
from headrace.api import backends
from headrace.model import MIB
from tests.deploy import redirects
from tests.deploy.conftest import Deployed, path, require_host
from tests.deploy.redirects import by_headrace, by_nginx
from tests.deploy.redirects import meddler as meddler
from tests.deploy.redirects import nginx as nginx
from tests.deploy.wire import Answer, Wire
from tests.meddler import Fault, Meddler
from tools import hosts
from tools.swift import KEY, Swift

pytestmark = pytest.mark.slow

TEMP_KEY = "the-key-of-temp-urls"
CONTAINER = "passed-by"
DATA = os.urandom(5 * MIB + 41)
SECRETS = ("temp_url", CONTAINER, KEY, TEMP_KEY, "127.0.0.1", "AUTH_")
CONF = """\
[DEFAULT]
enabled_backends = objects:swift
[glance_store]
default_backend = objects
[objects]
{options}
swift_store_endpoint = {endpoint}
swift_temp_url_key = {key}
swift_store_large_object_chunk_size = 2
[headrace]
store_redirect = true
"""


@pytest.fixture(scope="module")
def redirecting(swift: Swift, meddler: Meddler) -> Iterator[Deployed]:
    require_host("nginx")
    account, _ = swift.token()
    status, _, _ = swift.request("POST", X_Account_Meta_Temp_URL_Key=TEMP_KEY)
    assert status == 204
    options = "\n".join(f"{name} = {value}" for name, value in swift.options(CONTAINER).items())
    conf = CONF.format(options=options, endpoint=f"{meddler.url}{account}", key=TEMP_KEY)
    with hosts.running("nginx", conf=conf) as host:
        yield Deployed(host, DATA)


def told_nothing(answer: Answer, nginx: Deployed) -> None:
    redirects.told_nothing(answer, nginx, SECRETS, ("temp_url_sig", KEY, TEMP_KEY))


def test_whole_and_in_part(nginx: Deployed, meddler: Meddler) -> None:
    """Of several segments, not a byte of which passes Headrace."""
    answer = nginx.ask("GET", path(nginx.whole))
    assert (answer.status, answer.body == DATA) == (200, True)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "etag" not in answer.headers
    told_nothing(answer, nginx)
    part = nginx.ask("GET", path(nginx.whole), "Range: bytes=2097000-4200000")
    assert (part.status, part.body == DATA[2097000:4200001]) == (206, True)
    told_nothing(part, nginx)
    assert len(by_nginx(meddler)) == 2
    assert "Range: bytes=2097000-4200000\r\n" in by_nginx(meddler)[1]
    assert set(by_headrace(meddler)) == {"HEAD"}


def test_only_who_gets_the_data_is_sent_there(nginx: Deployed, meddler: Meddler) -> None:
    redirect = "x-accel-redirect"
    with Wire(nginx.host.state_dir / "headrace.sock") as wire:
        given = wire.request("GET", path(nginx.whole))
        assert given.headers[redirect].startswith(f"/headrace-stores/http/127.0.0.1:{meddler.here}")
        assert TEMP_KEY not in given.headers[redirect]
        missing = wire.request("GET", path("00000000-0000-4000-8000-000000000000"))
    assert (missing.status, redirect in missing.headers) == (404, False)
    location = given.headers[redirect].partition("?")[0]  # or the log would have it
    meddler.asked.clear()
    assert nginx.ask("GET", location).status == 404, "it is closed to clients"
    assert by_nginx(meddler) == []


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_swift_that_refuses(nginx: Deployed, meddler: Meddler, status: int) -> None:
    meddler.faults.append(Fault("GET", times=9, status=status))
    answer = nginx.ask("GET", path(nginx.whole))
    assert answer.status == 502
    told_nothing(answer, nginx)


def test_nginx_must_be_told_where_swift_is(swift: Swift, tmp_path: Path) -> None:
    options = "\n".join(f"{name} = {value}" for name, value in swift.options(CONTAINER).items())
    text = CONF.format(options=options, endpoint="", key=TEMP_KEY)
    (tmp_path / "conf").write_text(text)
    with pytest.raises(errors.ConfigurationError, match="needs swift_store_endpoint"):
        backends.redirects(config.load([tmp_path / "conf"]))
