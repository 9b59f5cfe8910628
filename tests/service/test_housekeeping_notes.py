"""What housekeeping says of its work, for whoever keeps an account of what happens to images."""

from datetime import timedelta
from typing import Any

from headrace.db import images as rows
from headrace.db import uploads
from headrace.service.housekeeping import Housekeeping
from tests.service.conftest import ADMIN, Service
from tests.service.test_delayed_delete import delaying as delaying
from tests.service.test_delayed_delete import uploaded
from tests.service.test_locations import add_location_in_front

Notes = list[tuple[str, str]]
LEASE = 60.0


def noting(service: Service, **more: Any) -> tuple[Housekeeping, Notes]:
    notes: Notes = []
    housekeeping = Housekeeping(
        service.database,
        service.registry,
        service.images,
        service.content,
        service.locations,
        service.staging,
        service.jobs,
        LEASE,
        service.clock,
        note=lambda action, image_id: notes.append((action, image_id)),
        **more,
    )
    return housekeeping, notes


def test_uploads_that_are_taken_back(service: Service) -> None:
    housekeeping, notes = noting(service)
    image = rows.show(service.database, service.record(), ADMIN.viewer)
    uploads.claim(service.database, image, "upload", "elsewhere/1/2", service.clock())
    housekeeping.sweep()
    assert notes == []
    service.clock.ahead = timedelta(seconds=2 * LEASE)
    housekeeping.sweep()
    housekeeping.sweep()
    assert notes == [("update/take-back", image.id)]


def test_data_that_is_scrubbed_and_not_what_stays(delaying: Service) -> None:
    housekeeping, notes = noting(delaying, scrub_time=LEASE)
    gone, stays = uploaded(delaying), uploaded(delaying)
    add_location_in_front(delaying, stays, "rbd://fsid/pool/image/snap")
    for image_id in (gone, stays):
        delaying.images.delete(ADMIN, image_id)
    delaying.clock.ahead = timedelta(seconds=2 * LEASE)
    housekeeping.sweep()
    assert notes == [("delete/data", gone)]
