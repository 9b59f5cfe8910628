"""What housekeeping does although a store is not there."""

import shutil
from datetime import timedelta
from pathlib import Path

from headrace.db import images as rows
from headrace.db import uploads
from tests.service.conftest import ADMIN, Service


def interrupted(service: Service, stores: tuple[str, ...] | None = None) -> str:
    """The id of an image whose upload was cut off by a crash, a while ago."""
    image, now = rows.show(service.database, service.record(), ADMIN.viewer), service.clock()
    uploads.claim(service.database, image, image.id, "elsewhere/1/2", now, stores=stores)
    service.clock.ahead += timedelta(hours=1)
    return image.id


def status(service: Service, image_id: str) -> str:
    return service.images.show(ADMIN, image_id).status


def test_uploads_are_taken_back_though_another_stores_directory_is_gone(
    several: Service, tmp_path: Path
) -> None:
    image_id = interrupted(several)
    shutil.rmtree(tmp_path / "cheap")
    several.housekeeping.sweep()
    assert status(several, image_id) == "queued"


def test_an_upload_that_cannot_be_taken_back_holds_nothing_up(
    several: Service, tmp_path: Path
) -> None:
    """It may have left something in a store that does not say."""
    image_id, other = interrupted(several), interrupted(several, ("fast",))
    (tmp_path / "cheap").rename(tmp_path / "away")
    (tmp_path / "cheap").touch()
    several.housekeeping.sweep()
    assert (status(several, image_id), status(several, other)) == ("saving", "queued")
    (tmp_path / "cheap").unlink()
    (tmp_path / "away").rename(tmp_path / "cheap")
    several.housekeeping.sweep()
    assert status(several, image_id) == "queued"
