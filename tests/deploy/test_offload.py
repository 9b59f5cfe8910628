"""Behind nginx: what it sends and receives in Headrace's place, and what it must not."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import config
from tests.deploy.callers import only_its_owner_is_given
from tests.deploy.conftest import (
    MIB,
    OCTETS,
    Deployed,
    path,
    require_host,
)
from tests.deploy.wire import Answer, Wire
from tests.faults.service import wait_until
from tests.needs import require_root
from tools import hosts

pytestmark = pytest.mark.slow

FRONTS = {"nginx": "x-accel-redirect", "apache": "x-sendfile"}


@pytest.fixture(scope="module", params=FRONTS)
def front(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    require_host(request.param)
    with hosts.running(request.param) as host:
        yield Deployed(host)


@pytest.fixture
def nginx() -> Iterator[Deployed]:
    """One of the test's own."""
    require_host("nginx")
    with hosts.running("nginx") as host:
        yield Deployed(host)


@pytest.fixture(scope="module")
def shared() -> Iterator[Deployed]:
    """An nginx for all tests to which it is all the same what else is in the store."""
    require_host("nginx")
    with hosts.running("nginx") as host:
        yield Deployed(host)


def backend(deployed: Deployed) -> Wire:
    """A connection to Headrace itself, as the front end has them."""
    return Wire(deployed.host.state_dir / "headrace.sock")


def arrivals(deployed: Deployed) -> list[str]:
    return [name for name in deployed.stored() if name.startswith(".headrace-uploads/")]


# Downloads


def test_headrace_names_the_file_only_where_it_gives_the_data(front: Deployed) -> None:
    header = FRONTS[front.host.name]
    with backend(front) as wire:
        given = wire.request("GET", path(front.whole))
        assert (given.status, given.body) == (200, b"")
        assert front.whole in given.headers[header]
        refused = {
            "unknown": path("00000000-0000-4000-8000-000000000000"),
            "no data": path(front.create()),
            "no image": path("../../etc/passwd"),
        }
        for target in refused.values():
            answer = wire.request("GET", target)
            assert answer.status in (204, 404)
            assert header not in answer.headers
        for fields in (["Range: bytes=0-1,5-6"], ["Range: bytes=99999999-"]):
            answer = wire.request("GET", path(front.whole), *fields)
            assert answer.status in (400, 416)
            assert header not in answer.headers
    with backend(front) as wire:
        answer = wire.request("HEAD", path(front.whole))
        assert answer.status == 405
        assert header not in answer.headers


@pytest.mark.parametrize(
    "target",
    [
        "/headrace-images/{}",
        "/headrace-images/../headrace-images/{}",
        "//headrace-images/{}",
        "/headrace-images/.headrace-uploads/0000000001",
        "/.headrace/upload",
        "/.headrace/ask",
        "/%68eadrace-images/{}",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_what_is_nginxs_own_is_closed_to_clients(front: Deployed, target: str, method: str) -> None:
    answer = front.ask(method, target.format(front.whole))
    assert answer.status in (404, 405, 411)
    assert front.data[:64] not in answer.body


def test_a_client_cannot_ask_for_a_redirect(front: Deployed) -> None:
    """The header is an answer's; in a request it means nothing."""
    fields = [f"X-Accel-Redirect: /headrace-images/{front.whole}", "X-Sendfile: /etc/passwd"]
    answer = front.ask("GET", "/v2/images/00000000-0000-4000-8000-000000000000/file", *fields)
    assert answer.status == 404


@pytest.mark.parametrize("mode", FRONTS.values())
def test_who_may_not_see_an_image_is_not_told_of_its_file(tmp_path: Path, mode: str) -> None:
    settings: dict[tuple[str, str], object] = {
        ("headrace", "state_dir"): str(tmp_path / "state"),
        ("headrace", "delivery"): mode,
        ("headrace", "unauthenticated_ok"): True,
    }
    only_its_owner_is_given(config.load([], settings), mode)


# Uploads


def test_nginx_asks_before_it_reads(nginx: Deployed) -> None:
    """A refused upload's body never reaches the disk, and its answer does not wait for it."""
    with nginx.connect() as wire:
        wire.send(wire.head("PUT", path(nginx.whole), OCTETS, f"Content-Length: {64 * MIB}"))
        answer = wire.read_head()
        assert answer.status == 409
    assert arrivals(nginx) == []
    with nginx.connect() as wire:
        wire.send(wire.head("PUT", path(nginx.create()), OCTETS, f"Content-Length: {64 * MIB}"))
        wire.send(bytes(2 * MIB))
        wait_until(lambda: len(arrivals(nginx)) == 1, "the first of the body")
    wait_until(lambda: arrivals(nginx) == [], "the removal of what broke off")


@pytest.mark.parametrize("bound", ["image_size_cap", "user_storage_quota"])
def test_an_upload_as_large_as_allowed_and_one_larger(bound: str) -> None:
    """The bound holds before nginx reads what says its size, and after for what does not.

    A quota's is held by Headrace alone: nothing of such an upload is nginx's to write.
    """
    require_host("nginx")
    with hosts.running("nginx", conf=f"[DEFAULT]\n{bound} = 1000000\n") as host:
        deployed = Deployed(host)
        image = deployed.create()
        for size in (1_000_001, 50_000_000):
            answer = deployed.ask("PUT", path(image), OCTETS, f"Content-Length: {size}")
            assert answer.status == 413
        with deployed.connect() as wire:
            wire.send(wire.head("PUT", path(image), OCTETS, "Transfer-Encoding: chunked"))
            wire.send(b"%x\r\n" % 50_000_000, bytes(2_200_000))
            assert wire.answer("PUT").status == 413, "before the rest has come"
        assert deployed.status(image) == "queued"
        wait_until(lambda: deployed.stored() == [], "the removal of what is too large")
        assert deployed.ask("PUT", path(image), OCTETS, body=bytes(1_000_000)).status == 204


def tell(wire: Wire, image: str, **words: object) -> Answer:
    """Say to Headrace what nginx says when it has received an upload."""
    fields = [f"X-Headrace-Upload{name.title()}: {value}" for name, value in words.items()]
    fields = [field.replace("Upload_", "Upload-") for field in fields]
    return wire.request("PUT", path(image), OCTETS, "X-Headrace-Upload: file", *fields)


def test_only_nginxs_user_is_believed(nginx: Deployed) -> None:
    """Whoever else can connect to the socket, root for one, cannot name a file."""
    require_root()
    victim = nginx.host.image_dir / ".headrace-uploads" / "0000009999"
    victim.write_bytes(b"somebody else's upload")
    owner = nginx.host.image_dir.stat()
    os.chown(victim, owner.st_uid, owner.st_gid)
    victim.chmod(0o600)
    image = nginx.create()
    with victim.open("r+b"), backend(nginx) as wire:
        answer = tell(wire, image, _file=victim, _length=22)
        assert answer.status == 400
        assert "must run as the same user" in answer.body.decode()
        ask = wire.request("PUT", path(image), OCTETS, "X-Headrace-Upload: ask")
        assert ask.status == 403
    assert nginx.status(image) == "queued"
    assert victim.exists()


PROGRAM = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(sys.stdin.buffer.read())
    print(sock.recv(65536).decode())
"""


@pytest.mark.parametrize(
    ("file", "length", "status", "text"),
    [
        ("{arrivals}/0000000001", "4", 204, ""),
        ("{arrivals}/0000000001", "5", 400, "not as long"),
        ("{arrivals}/0000000001", "", 400, "not as long"),
        ("{arrivals}/0000000002", "4", 400, "No such file"),
        ("{arrivals}/../{image}", "4", 400, "not where uploads arrive"),
        ("/etc/passwd", "4", 400, "not where uploads arrive"),
        ("", "4", 400, "not where uploads arrive"),
    ],
)
def test_what_nginxs_user_may_name(
    shared: Deployed, file: str, length: str, status: int, text: str
) -> None:
    directory = shared.host.image_dir / ".headrace-uploads"
    arrived = directory / "0000000001"
    arrived.write_bytes(b"data")
    owner = shared.host.image_dir.stat()
    os.chown(arrived, owner.st_uid, owner.st_gid)
    arrived.chmod(0o600)
    image = shared.create()
    lines = [
        f"PUT {path(image)} HTTP/1.1",
        "Host: localhost",
        OCTETS,
        "X-Headrace-Upload: file",
        "X-Headrace-Upload-File: " + file.format(arrivals=directory, image=shared.whole),
        f"X-Headrace-Upload-Length: {length}",
        "Connection: close",
    ]
    request = ("\r\n".join(line for line in lines if not line.endswith(": ")) + "\r\n\r\n").encode()
    place = shared.host.place
    done = subprocess.run(
        [*map(str, place.become()), str(place.python), "-c", PROGRAM,
         str(shared.host.state_dir / "headrace.sock")],
        input=request, capture_output=True, check=True, cwd="/",
    )  # fmt: skip
    answer = done.stdout.decode()
    assert answer.startswith(f"HTTP/1.1 {status} "), answer
    assert text in answer
    assert shared.status(image) == ("active" if status == 204 else "queued")
    assert shared.ask("GET", path(shared.whole)).body == shared.data


def test_an_image_deleted_while_it_was_received(nginx: Deployed) -> None:
    image = nginx.create()
    with nginx.connect() as wire:
        wire.send(wire.head("PUT", path(image), OCTETS, f"Content-Length: {3 * MIB}"))
        wire.send(bytes(2 * MIB))
        wait_until(lambda: arrivals(nginx) != [], "the first of the body")
        assert nginx.ask("DELETE", f"/v2/images/{image}").status == 204
        wire.send(bytes(MIB))
        assert wire.answer("PUT").status == 404
    wait_until(lambda: nginx.stored() == [], "the removal of what it received")


@pytest.mark.parametrize("chunked", [False, True])
def test_nginx_cannot_write(nginx: Deployed, chunked: bool) -> None:
    """What it has read of a body by then must not pass for all of it."""
    require_root()
    image = nginx.create()
    (nginx.host.image_dir / ".headrace-uploads").chmod(0o500)
    with nginx.connect() as wire:
        size = 3 * MIB
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        wire.send(wire.head("PUT", path(image), OCTETS, framing))
        head, tail = (b"%x\r\n" % size, b"\r\n0\r\n\r\n") if chunked else (b"", b"")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send(head, bytes(size), tail)
        assert wire.answer("PUT").status == 500
    assert nginx.status(image) == "queued"
    assert nginx.stored() == []


def test_every_refusal_of_a_question_is_one_that_nginx_understands(shared: Deployed) -> None:
    """Also those that are made before anybody knows what is asked."""
    known = path(shared.create())
    with backend(shared) as wire:
        for target, *fields in (
            (known, "X-Openstack-Request-Id: " + "x" * 100),
            (known, "X-Openstack-Request-Id: /"),
            (known + "/deeper",),
            ("/v2/images",),
            ("/nowhere",),
        ):
            answer = wire.request("PUT", target, OCTETS, "X-Headrace-Upload: ask", *fields)
            assert answer.status == 403, target


def test_the_next_one_is_told_why(shared: Deployed) -> None:
    """Refused when asked, an upload is passed on and gets the status that is its own."""
    answer = shared.ask(
        "PUT", path(shared.create()), OCTETS, "X-Openstack-Request-Id: " + "x" * 100, body=b"data"
    )
    assert answer.status == 431


def test_a_client_that_leaves_when_it_has_sent_all(shared: Deployed) -> None:
    """Its image is made: it has done its part."""
    image = shared.create()
    with shared.connect() as wire:
        wire.send(wire.head("PUT", path(image), OCTETS, f"Content-Length: {32 * MIB}"))
        wire.send(bytes(32 * MIB))
    wait_until(lambda: shared.status(image) == "active", "the image")


@pytest.mark.parametrize("name", ["haproxy", "apache"])
def test_no_other_front_says_what_nginx_says(name: str) -> None:
    """Not even with the settings of nginx left over, and as Headrace's own user."""
    require_host(name)
    left_over = "[headrace]\nupload_offload = true\ndelivery = x-accel-redirect\n"
    with hosts.running(name, conf=left_over) as host:
        deployed = Deployed(host)
        theft = host.image_dir / ".headrace-uploads" / "0000000001"
        theft.parent.mkdir(mode=0o700)
        theft.write_bytes(b"somebody else's")
        owner = host.image_dir.stat()
        for each in (theft.parent, theft):
            os.chown(each, owner.st_uid, owner.st_gid)
        theft.chmod(0o600)
        image = deployed.create()
        fields = (
            "X-Headrace-Upload: file",
            f"X-Headrace-Upload-File: {os.fsencode(theft).decode('latin-1')}",
            "X-Headrace-Upload-Length: 15",
        )
        assert deployed.ask("PUT", path(image), OCTETS, *fields, body=b"mine").status == 204
        assert deployed.ask("GET", path(image)).body == b"mine"
        assert theft.exists()


def test_two_uploads_of_one_image(nginx: Deployed) -> None:
    """Both may be received; the first that is whole wins, and the other leaves nothing."""
    size = 4 * MIB
    image, first, second = nginx.create(), os.urandom(size), os.urandom(size)
    with nginx.connect() as one, nginx.connect() as two:
        for wire, data in ((one, first), (two, second)):
            wire.send(wire.head("PUT", path(image), OCTETS, f"Content-Length: {size}"))
            wire.send(data[: size // 2])
        wait_until(lambda: len(arrivals(nginx)) == 2, "both")
        two.send(second[size // 2 :])
        assert two.answer("PUT").status == 204
        one.send(first[size // 2 :])
        assert one.answer("PUT").status == 409
    assert nginx.ask("GET", path(image)).body == second
    wait_until(lambda: nginx.stored() == [image], "the removal of the other")


def test_what_a_killed_nginx_leaves_is_swept() -> None:
    require_host("nginx")
    with hosts.running("nginx", conf="[headrace]\nupload_lease = 3\n") as host:
        deployed = Deployed(host)
        image = deployed.create()
        with deployed.connect() as wire:
            wire.send(wire.head("PUT", path(image), OCTETS, f"Content-Length: {3 * MIB}"))
            wire.send(bytes(2 * MIB))
            wait_until(lambda: arrivals(deployed) != [], "the first of the body")
            for pid in hosts.family(host.place.processes["nginx"].pid):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: arrivals(deployed) == [], "the sweep")
        with backend(deployed) as behind:
            record = behind.request("GET", f"/v2/images/{image}").json
        assert record["status"] == "queued"


def test_an_nginx_of_another_user_is_declined_and_all_works() -> None:
    """Its directory is not ours then: uploads pass through it, and the log says why once."""
    require_root()
    require_host("nginx")

    def as_nobody(recipe: str) -> str:
        return recipe.replace("user www-data www-data;", "user nobody www-data;")

    with hosts.running("nginx", change=as_nobody, front_as_root=True) as host:
        deployed = Deployed(host)
        data = os.urandom(3 * MIB)
        images = [deployed.add(data) for _ in range(2)]
        assert arrivals(deployed) == []
        log = host.place.log("headrace").read_text()
        assert log.count("uploads are not offloaded") == 1, log
        assert "must run as the same user" in log
        stored = [(host.image_dir / image).read_bytes() for image in images]
        assert stored == [data, data]
