"""Where an image's data lies: rows of image_locations, changed one by one.

A location that is given up stays on record as pending_delete until its data is gone.
"""

from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace import errors
from headrace.db import quotas, rows, uploads
from headrace.db.engine import transaction
from headrace.db.hints import unindexed
from headrace.db.images import compare_and_set, insert_location
from headrace.db.schema import image_locations, images
from headrace.model import Image, Location, Status

# What an image has once it has data.
_WITH_DATA = (
    "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value",
)  # fmt: skip


@transaction
def mend(connection: Connection, image_id: str, location: Location, now: datetime) -> None:
    """Note the right store beside a location, if it still is where it was."""
    for key, _, meta_data in _live(connection, image_id, location.url):
        known = rows.location(location.url, meta_data).metadata
        mended = {**known, "store": location.metadata["store"]}
        _set(connection, key, meta_data=_json(mended), updated_at=now)


@transaction
def remove(connection: Connection, image: Image, url: str, now: datetime) -> None:
    """Give up one location of an active image; its data is not touched.

    Raises ImageChanged when the image is no longer what ``image`` says, ImageNotFound when it was
    deleted, LastLocation when it would have none left, NotFound when it has no such.
    """
    compare_and_set(connection, image, {"updated_at": now})  # the row's lock: one at a time
    found = _live(connection, image.id)
    gone = [key for key, value, _ in found if value == url]
    if not gone:
        raise errors.NotFound()
    if len(found) == 1:
        raise errors.LastLocation(image_id=image.id)
    given_up = {"deleted": True, "deleted_at": now, "updated_at": now}
    _set(connection, gone[0], status=Status.PENDING_DELETE.value, **given_up)


@transaction
def save(
    connection: Connection,
    before: Image,
    after: Image,
    upload_id: str | None = None,
    worker: str = "",
    demand: quotas.Demand | None = None,
) -> None:
    """Write what ``after`` changes of the locations of ``before``, and what comes with the first.

    With ``upload_id`` there is a lease of ``worker``, which hashes the data from now on and
    publishes none.  Raises ImageChanged when the image is no longer what ``before`` says,
    ImageNotFound when it was deleted, StatusConflict when somebody is at work on it; QuotaExceeded
    when there is no room for what ``demand`` says that it takes.
    """
    now = after.updated_at
    if demand is not None:
        quotas.admit(connection, demand)
    values = {name: getattr(after, name) for name in _WITH_DATA}
    values |= {"status": after.status.value, "updated_at": now}
    compare_and_set(connection, before, values)
    found = _live(connection, before.id)
    if sorted(url for _, url, _ in found) != sorted(each.url for each in before.locations):
        raise errors.ImageChanged(image_id=before.id)  # within one tick of the database's clock
    left = list(after.locations)
    for key, url, meta_data in found:
        known = rows.location(url, meta_data)
        kept = next((each for each in left if each.url == url), None)
        if kept is None:
            given_up = {"deleted": True, "deleted_at": now, "updated_at": now}
            _set(connection, key, status=Status.PENDING_DELETE.value, **given_up)
            continue
        left.remove(kept)
        if kept != known:
            _set(connection, key, meta_data=_json(kept.metadata), updated_at=now)
    for location in left:
        insert_location(connection, before.id, location, now)
    if upload_id is not None:
        uploads.lease(connection, before, upload_id, worker, now, (), {})


@transaction
def hashed(
    connection: Connection, image_id: str, upload_id: str, digests: dict[str, str], now: datetime
) -> None:
    """Note the hashes of an image that became active without; ends the lease of who computed them.

    ``digests`` are columns of images; nothing is noted where there is a hash by now.
    """
    if uploads.end(connection, image_id, upload_id) and digests:
        connection.execute(
            sa.update(images)
            .where(
                images.c.id == image_id,
                images.c.deleted == sa.false(),
                images.c.os_hash_value.is_(None),
            )
            .values(**digests, updated_at=now)
        )


def _live(
    connection: Connection, image_id: str, url: str | None = None
) -> list[tuple[int, str, str | None]]:
    """id, URL and metadata of the image's locations, in the order they were added."""
    statement = (
        sa.select(image_locations.c.id, image_locations.c.value, image_locations.c.meta_data)
        .where(
            image_locations.c.image_id == image_id,
            image_locations.c.status == Status.ACTIVE.value,
            unindexed(image_locations.c.deleted == sa.false()),
        )
        .order_by(image_locations.c.id)
    )
    found = [(key, value, meta) for key, value, meta in connection.execute(statement)]
    return [row for row in found if url is None or row[1] == url]


def _set(connection: Connection, key: int, **values: object) -> None:
    connection.execute(sa.update(image_locations).where(image_locations.c.id == key).values(values))


def _json(metadata: dict[str, object]) -> str:
    return msgspec.json.encode(metadata).decode()
