"""Whether records and stores agree, in all the ways in which they may not."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from headrace.db import schema
from headrace.service.agreement import Agreement, Fault, Finding
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.registry import Registry
from tests.service.conftest import ADMIN, Service
from tests.service.test_races import Paused

NOBODYS = "00000000-0000-4000-8000-000000000000"


def uploaded(service: Service, data: bytes = b"data") -> str:
    image_id = service.record()
    service.content.upload(ADMIN, image_id, Paused(data))
    return image_id


def check(service: Service, verify: bool = False) -> Agreement:
    return Agreement(service.database, Registry([service.store], default="file"), verify=verify)


def faults(service: Service, verify: bool = False) -> list[tuple[Fault, str]]:
    return [(each.fault, each.image_id) for each in check(service, verify).run()]


def test_a_sound_service_has_no_faults(service: Service) -> None:
    for _ in range(3):
        uploaded(service)
    service.record()
    service.images.delete(ADMIN, uploaded(service))
    (service.datadir / "notes.txt").write_text("not an image's")
    (service.datadir / f".headrace-{NOBODYS}.part").write_text("not an image's yet")
    checked = check(service, verify=True)
    assert list(checked.run()) == []
    assert (checked.images, checked.files, checked.hashed) == (3, 3, 12)


def test_every_fault_is_found(service: Service) -> None:
    missing, short, altered, nowhere, gone = (uploaded(service) for _ in range(5))
    (service.datadir / missing).unlink()
    (service.datadir / short).write_bytes(b"dat")
    (service.datadir / altered).write_bytes(b"date")
    (service.datadir / NOBODYS).write_bytes(b"?")
    with service.database.write() as connection:
        locations = schema.image_locations
        connection.execute(sa.delete(locations).where(locations.c.image_id == nowhere))
        connection.execute(
            sa.update(locations)
            .where(locations.c.image_id == gone)
            .values(value="rbd://fsid/pool/image/snap")
        )
    seen = [
        (Fault.MISSING, missing),
        (Fault.WRONG_SIZE, short),
        (Fault.MISSING, nowhere),
        (Fault.UNREADABLE, gone),
        (Fault.NO_RECORD, NOBODYS),
    ]
    assert sorted(faults(service)) == sorted(seen)
    assert sorted(faults(service, verify=True)) == sorted([*seen, (Fault.WRONG_HASH, altered)])


@pytest.mark.parametrize("state", ["queued", "deleted"])
def test_data_of_an_image_without_a_claim_to_it_is_nobodys(service: Service, state: str) -> None:
    image_id = service.record()
    if state == "deleted":
        service.images.delete(ADMIN, image_id)
    (service.datadir / image_id).write_bytes(b"?")
    assert faults(service) == [(Fault.NO_RECORD, image_id)]


def test_data_on_its_way_in_or_out_is_no_fault(service: Service) -> None:
    image_id = service.record()
    found: list[tuple[Fault, str]] = []

    def look() -> None:
        (service.datadir / image_id).write_bytes(b"a Glance writes it under its name")
        found.extend(faults(service))
        (service.datadir / image_id).unlink()

    service.content.upload(ADMIN, image_id, Paused(b"data", look))
    with service.database.write() as connection:
        connection.execute(sa.update(schema.images).values(status="deleted", deleted=True))
        connection.execute(
            sa.update(schema.image_locations).values(status="pending_delete", deleted=True)
        )
    assert found + faults(service) == []


class Meanwhile(FilesystemStore):
    """A store in which something happens just before it is asked."""

    def __init__(self, service: Service, image_id: str) -> None:
        super().__init__("file", service.datadir)
        self._service = service
        self._image_id = image_id

    def open(self, url: str):  # type: ignore[no-untyped-def]
        if self._image_id in url:
            self._delete()
        return super().open(url)

    def held(self) -> Iterator[str]:
        held = list(super().held())
        self._delete()
        return iter(held)

    def _delete(self) -> None:
        image_id, self._image_id = self._image_id, "none"
        if image_id != "none":
            self._service.images.delete(ADMIN, image_id)


def test_an_image_that_is_deleted_meanwhile_is_no_fault(service: Service) -> None:
    for _ in range(2):
        uploaded(service)
        store = Meanwhile(service, uploaded(service))
        checked = Agreement(service.database, Registry([store], default="file"), verify=True)
        assert list(checked.run()) == []


def test_a_fault_says_where_and_what(service: Service) -> None:
    image_id = uploaded(service)
    (service.datadir / image_id).write_bytes(b"longer")
    (found,) = check(service).run()
    assert found == Finding(Fault.WRONG_SIZE, image_id, "file", "6 bytes instead of 4")
