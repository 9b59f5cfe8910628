"""Deleted images whose data is kept for a time."""

from dataclasses import replace
from datetime import timedelta

import pytest

from headrace import errors, settings
from headrace.api.schemas import Fields
from headrace.db import images as rows
from headrace.model import Viewer
from headrace.service.context import Context
from headrace.service.housekeeping import Housekeeping
from headrace.service.images import Images, Limits
from headrace.stores.registry import Registry
from tests.service.conftest import ADMIN, Service
from tests.service.test_locations import add_location_in_front, location_states
from tests.service.test_races import Paused

HOUR = 3600.0


@pytest.fixture
def delaying(service: Service) -> Service:
    """The service with delayed_delete, and a scrub_time of an hour."""
    stores = Registry([service.store], default="file")
    fields = Fields(settings.CONTAINER_FORMATS, settings.DISK_FORMATS)
    images = Images(
        service.database, stores, service.area, fields.check, Limits(128, 128), service.clock,
        delayed_delete=True,
    )  # fmt: skip
    housekeeping = Housekeeping(
        service.database,
        stores,
        images,
        service.content,
        service.locations,
        service.staging,
        service.jobs,
        60.0,
        service.clock,
        scrub_time=HOUR,
    )
    return replace(service, images=images, housekeeping=housekeeping)


def uploaded(service: Service, **values: object) -> str:
    image_id = service.record(**values)
    service.content.upload(ADMIN, image_id, Paused(b"data"))
    return image_id


def test_the_data_stays_until_its_time_is_over(delaying: Service) -> None:
    image_id = uploaded(delaying)
    delaying.images.delete(ADMIN, image_id)
    with pytest.raises(errors.ImageNotFound):
        delaying.content.download(ADMIN, image_id)
    delaying.clock.ahead = timedelta(seconds=HOUR - 10)
    delaying.housekeeping.sweep()
    assert delaying.files() == [image_id]
    delaying.clock.ahead = timedelta(seconds=HOUR + 10)
    delaying.housekeeping.sweep()
    assert delaying.files() == []


def test_what_cannot_be_removed_stays_on_record(delaying: Service) -> None:
    image_id = uploaded(delaying)
    add_location_in_front(delaying, image_id, "rbd://fsid/pool/image/snap")
    delaying.images.delete(ADMIN, image_id)
    delaying.clock.ahead = timedelta(seconds=2 * HOUR)
    delaying.housekeeping.sweep()
    assert location_states(delaying, image_id) == {"pending_delete"}
    late = delaying.clock()
    assert list(rows.delayed_data(delaying.database, late)) == [image_id]


def test_nobody_deletes_what_is_not_his(delaying: Service) -> None:
    """OSSA-2012-017: the data of others' images went, too, when deletion was delayed."""
    image_id = uploaded(delaying, owner="theirs", visibility="private")
    stranger = Context(Viewer("mine"))
    with pytest.raises(errors.ImageNotFound):
        delaying.images.delete(stranger, image_id)
    kept = uploaded(delaying, protected=True)
    with pytest.raises(errors.ImageProtected):
        delaying.images.delete(ADMIN, kept)
    delaying.clock.ahead = timedelta(seconds=2 * HOUR)
    delaying.housekeeping.sweep()
    assert delaying.files() == sorted([image_id, kept])


def test_what_a_glance_has_put_off_is_its_scrubbers(delaying: Service, service: Service) -> None:
    image_id = uploaded(delaying)
    delaying.images.delete(ADMIN, image_id)
    service.clock.ahead = timedelta(seconds=2 * HOUR)
    service.housekeeping.sweep()
    assert service.files() == [image_id]
