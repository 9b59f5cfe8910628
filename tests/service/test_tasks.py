"""Tasks that make images: of what an address holds, or of nothing, and then there is none."""

import threading
from dataclasses import replace

import pytest

from headrace import errors
from headrace.db import imports as import_rows
from headrace.model import Image, Status, Task, TaskStatus
from headrace.service import workers
from headrace.service.tasks import NewImage
from tests.image_files import qcow2
from tests.service.callers import OWNER
from tests.service.conftest import ADMIN, Service
from tests.service.test_imports import (
    DATA,
    GUARD,
    LENGTH,
    SHA256,
    Answer,
    idle,
    leases,
    nothing_left,
    origin,
    sending,
)
from tests.service.test_stores import read


def made(service: Service, answer: Answer, **properties: object) -> Task:
    """The task once it has ended."""
    with origin(answer) as uri:
        task = service.tasks.create(ADMIN, NewImage(uri, "raw", properties))
        assert (task.type, task.status) == ("import", TaskStatus.PENDING)
        idle(service)
    return service.tasks.show(ADMIN, task.id)


def no_image(service: Service, task: Task) -> bool:
    assert task.image_id is not None
    with pytest.raises(errors.ImageNotFound):
        service.images.show(ADMIN, task.image_id)
    return nothing_left(service)


def test_a_task_makes_an_image(service: Service) -> None:
    task = made(service, sending(DATA, LENGTH), name="made", hw_disk_bus="virtio", tags=["new"])
    assert (task.status, task.result) == (TaskStatus.SUCCESS, {"image_id": task.image_id})
    assert task.image_id is not None
    image = service.images.show(ADMIN, task.image_id)
    assert (image.status, image.size, image.os_hash_value) == (Status.ACTIVE, len(DATA), SHA256)
    assert (image.name, image.disk_format, image.container_format) == ("made", "raw", "bare")
    assert (image.tags, image.properties) == ({"new"}, {"hw_disk_bus": "virtio"})
    assert read(service, image.id)[1] == DATA
    assert leases(service) == 0


def test_its_properties_say_what_it_is(service: Service) -> None:
    task = made(service, sending(qcow2()), disk_format="qcow2", container_format="bare")
    assert task.status is TaskStatus.SUCCESS
    task = made(service, sending(qcow2()), disk_format=None)
    assert task.status is TaskStatus.SUCCESS
    assert service.images.show(ADMIN, str(task.image_id)).disk_format == "raw"


@pytest.mark.parametrize(
    "answer",
    [
        sending(DATA[:-1], LENGTH),
        sending(DATA, LENGTH, status=404),
        sending(qcow2(backing_offset=512)),
        sending(b"", ("Location", "http://169.254.169.254/"), status=302),
        sending(b"", ("Location", "file:///etc/passwd"), status=302),
    ],
    ids=["short", "404", "OSSA-2015-014 backing file", "OSSN-0105 redirect", "redirect to a file"],
)
def test_a_task_that_fails_leaves_nothing(service: Service, answer: Answer) -> None:
    task = made(service, answer, protected=True)
    assert (task.status, task.result) == (TaskStatus.FAILURE, None)
    assert task.message
    assert task.expires_at is not None
    assert no_image(service, task)


@pytest.mark.parametrize(
    "uri",
    ["file:///etc/passwd", "filesystem:///etc/passwd", "swift+config://x/y", "http://127.1/x",
     "http://169.254.169.254/latest/meta-data/", "http://0x7f000001/", "ftp://example.com/", ""],
)  # fmt: skip
def test_ossn_0105_bug_2152110_tasks_fetch_what_imports_do(service: Service, uri: str) -> None:
    with pytest.raises(errors.InvalidLocation):
        service.tasks.create(ADMIN, NewImage(uri, "raw", {}))
    assert nothing_left(service)


def test_what_the_image_would_be_is_checked_first(service: Service) -> None:
    for properties, error in [
        ({"status": "active"}, errors.PropertyReadOnly),
        ({"os_glance_import_task": "x"}, errors.PropertyReserved),
        ({"locations": []}, errors.PropertyReserved),
        ({"disk_format": "floppy"}, errors.InvalidProperty),
        ({"custom": None}, errors.InvalidProperty),
        ({f"p{number}": "x" for number in range(200)}, errors.QuotaExceeded),
    ]:
        with pytest.raises(error):
            service.tasks.create(ADMIN, NewImage("http://127.0.0.1/", "raw", properties))
    image_id = service.record()
    with pytest.raises(errors.ImageExists):
        service.tasks.create(ADMIN, NewImage("http://127.0.0.1/", "raw", {"id": image_id}))
    with pytest.raises(errors.TooLarge):
        service.tasks.create(ADMIN, NewImage("http://127.0.0.1/", "raw", {"a": "a" * 65500}))
    assert leases(service) == 0
    assert service.images.show(ADMIN, image_id).status is Status.QUEUED


def test_tasks_are_for_administrators(service: Service) -> None:
    with pytest.raises(errors.Forbidden):
        service.tasks.create(OWNER, NewImage("http://127.0.0.1/", "raw", {}))


def test_ossa_2014_004_no_secret_of_the_address_is_on_record(service: Service) -> None:
    with origin(sending(DATA, LENGTH)) as uri:
        secret = uri.replace("http://", "http://user:hush@") + "?signature=hush"
        task = service.tasks.create(ADMIN, NewImage(secret, "raw", {}))
        idle(service)
    assert service.tasks.show(ADMIN, task.id).input == {
        "import_from": uri,
        "import_from_format": "raw",
        "image_properties": {},
    }


def test_ossa_2015_004_a_deleted_image_has_no_data(service: Service) -> None:
    deleted = threading.Event()

    def answer(handler: object) -> None:
        assert deleted.wait(GUARD)
        sending(DATA, LENGTH)(handler)  # type: ignore[arg-type]

    with origin(answer) as uri:
        task = service.tasks.create(ADMIN, NewImage(uri, "raw", {}))
        service.images.delete(ADMIN, str(task.image_id))
        deleted.set()
        idle(service)
    assert service.tasks.show(ADMIN, task.id).status is TaskStatus.FAILURE
    assert nothing_left(service)


def test_a_process_that_dies_leaves_no_image(service: Service) -> None:
    now = service.clock()
    image = Image(
        id="11111111-2222-3333-4444-555555555555", created_at=now, updated_at=now,
        status=Status.IMPORTING, properties={"kept": "not"}, tags=frozenset({"not"}),
    )  # fmt: skip
    task = Task(
        id="11111111-1111-1111-1111-111111111111", owner="", type="import", image_id=image.id,
        created_at=now, updated_at=now,
    )  # fmt: skip
    dead = f"{workers.identity().rsplit('/', 2)[0]}/1/0"
    import_rows.create(service.database, image, task, dead, {})
    (service.datadir / image.id).write_bytes(DATA)  # published, and not on record
    service.housekeeping.sweep()
    assert service.tasks.show(ADMIN, task.id).status is TaskStatus.FAILURE
    assert no_image(service, task)
    with pytest.raises(errors.ImageExists):  # OSSN-0075: an id is not used again
        import_rows.create(service.database, image, replace(task, id="other"), dead, {})


def test_where_nothing_is_fetched_no_task_does(service: Service) -> None:
    service.imports.methods = ("glance-direct", "copy-image")
    with pytest.raises(errors.BadRequest):
        service.tasks.create(ADMIN, NewImage("http://127.0.0.1/", "raw", {}))
