"""Who asks for more than there may be is told so, at once, and loses nothing."""

import os

from tests.deploy.wire import Wire
from tests.faults.conftest import Start
from tests.faults.service import BLOCK, Service, wait_until

OCTETS = "Content-Type: application/octet-stream"
SIZE = 16 * BLOCK
DATA = os.urandom(SIZE)


def begin(wire: Wire, service: Service, *fields: str) -> str:
    """An upload of which the first half is sent; its image."""
    image_id = service.create()
    wire.send(
        wire.head("PUT", f"/v2/images/{image_id}/file", OCTETS, f"Content-Length: {SIZE}", *fields)
    )
    wire.send(DATA[: SIZE // 2])
    wait_until(lambda: service.status(image_id) == "saving", "the claim")
    return image_id


def test_one_upload_too_many(start: Start) -> None:
    """It is refused before its body is sent, and can be had later; all else is answered."""
    service = start(env={"OS_HEADRACE__MAX_UPLOADS": "1"})
    with service.connect() as first:
        began = begin(first, service)
        late = service.create()
        with service.connect() as second:
            head = (OCTETS, f"Content-Length: {SIZE}", "Expect: 100-continue")
            second.send(second.head("PUT", f"/v2/images/{late}/file", *head))
            answer = second.answer("PUT")
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            assert answer.headers["x-headrace-error"] == "upload.busy"
        assert service.status(late) == "queued"
        assert service.request("GET", "/v2/images").status == 200
        first.send(DATA[SIZE // 2 :])
        assert first.answer("PUT").status == 204
        assert service.upload(late, DATA).status == 204
        for image_id in (began, late):
            assert service.request("GET", f"/v2/images/{image_id}/file").body == DATA


def test_a_refused_upload_gives_its_place_free(start: Start) -> None:
    service = start(env={"OS_HEADRACE__MAX_UPLOADS": "1", "OS_DEFAULT__IMAGE_SIZE_CAP": str(SIZE)})
    for _ in range(3):
        assert service.upload(service.create(), DATA + b"x").status == 413
    assert service.upload(service.create(), DATA).status == 204


def test_one_download_too_many(start: Start) -> None:
    service = start(env={"OS_HEADRACE__DOWNLOADS_PER_CLIENT": "2"})
    target = f"/v2/images/{service.active(DATA)}/file"
    with (
        service.connect(receive_buffer=65536) as one,
        service.connect(receive_buffer=65536) as two,
    ):
        for wire in (one, two):
            wire.send(wire.head("GET", target))
            wire.wait_for_head()
        refused = service.request("GET", target)
        assert (refused.status, refused.headers["retry-after"]) == (429, "5")
        assert refused.headers["x-headrace-error"] == "download.too_many"
        assert one.answer().body == DATA
        wait_until(lambda: service.request("GET", target).body == DATA, "its place")
        assert two.answer().body == DATA
