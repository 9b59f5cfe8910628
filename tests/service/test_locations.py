"""Data in several places, some of them not ours to ask."""

import logging
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import schema
from headrace.db.images import insert_location
from headrace.model import Location
from tests.service.conftest import ADMIN, Service
from tests.service.test_races import Paused


def stored(service: Service, **values: object) -> str:
    """The id of a new image with data."""
    image_id = service.record(**values)
    service.content.upload(ADMIN, image_id, Paused(b"data"))
    return image_id


def add_location_in_front(service: Service, image_id: str, url: str) -> None:
    """A location as another service on the same database may have recorded it."""
    with service.database.write() as connection:
        insert_location(connection, image_id, Location(url), service.clock())
        newest = connection.execute(sa.select(sa.func.max(schema.image_locations.c.id))).scalar()
        connection.execute(
            schema.image_locations.update()
            .where(schema.image_locations.c.id == newest)
            .values(id=-1)
        )


def location_states(service: Service, image_id: str) -> set[str]:
    locations = schema.image_locations
    with service.database.read() as connection:
        return set(
            connection.execute(
                sa.select(locations.c.status).where(locations.c.image_id == image_id)
            ).scalars()
        )


def elsewhere(tmp_path: Path, image_id: str) -> str:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / image_id).write_bytes(b"data")
    return f"file://{tmp_path}/elsewhere/{image_id}"


@pytest.mark.parametrize("url", ["rbd://fsid/pool/image/snap", None])
def test_data_of_another_store_is_not_taken_for_gone(
    service: Service, tmp_path: Path, url: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    image_id = stored(service)
    add_location_in_front(service, image_id, url or elsewhere(tmp_path, image_id))
    with caplog.at_level(logging.ERROR, "headrace"):
        service.images.delete(ADMIN, image_id)
        service.housekeeping.sweep()
        service.housekeeping.sweep()
    assert "pending_delete" in location_states(service, image_id)
    assert len([record for record in caplog.records if "still there" in record.message]) == 1


def test_a_download_says_when_the_data_cannot_be_asked_for(
    service: Service, tmp_path: Path
) -> None:
    image_id = stored(service)
    (service.datadir / image_id).unlink()
    add_location_in_front(service, image_id, elsewhere(tmp_path, image_id))
    with pytest.raises(errors.StoreNotFound):
        service.content.download(ADMIN, image_id)


@pytest.mark.parametrize("copy", [b"tru", None])
def test_a_bad_first_copy_does_not_hide_a_good_second_one(
    service: Service, copy: bytes | None
) -> None:
    image_id = stored(service)
    other = "00000000-0000-4000-8000-000000000000"
    if copy is not None:
        (service.datadir / other).write_bytes(copy)
    add_location_in_front(service, image_id, service.store.url(other))
    _, extent = service.content.download(ADMIN, image_id)
    assert extent is not None
    assert extent.read() == b"data"
    extent.close()
