"""Locations that callers name: who may name what, and what becomes of it."""

import hashlib
import time
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace import errors
from headrace.db import schema
from headrace.model import Image, Location, Status, Viewer
from headrace.service.context import Context
from headrace.service.images import ChangeOp
from headrace.service.locations import Hashes, LocationChange, Named
from tests.image_files import qcow2
from tests.service.conftest import ADMIN, Service
from tests.service.test_stores import read, rows, uploaded

DATA = b"data of an image that stays where it is"
SHA256 = hashlib.sha256(DATA).hexdigest()
GUARD = 30.0  # seconds; a hang guard
OWNER = Context(Viewer(project_id="me"), frozenset({"member"}))


@pytest.fixture
def file(several: Service) -> Path:
    path = several.datadir.parent / "listed" / "image.img"
    path.write_bytes(DATA)
    return path


def named(path: Path | str, hashes: Hashes | None = None) -> Named:
    return Named(f"file://{path}", {}, hashes)


def add(named: Named, position: int | None = None) -> LocationChange:
    return LocationChange(ChangeOp.ADD, (named,), position)


def settled(service: Service, image_id: str) -> Image:
    """The image once nothing is hashed any more."""
    deadline = time.monotonic() + GUARD
    while service.locations.active():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return service.images.show(ADMIN, image_id)


def leases(service: Service) -> int:
    with service.database.read() as connection:
        found = connection.execute(sa.select(sa.func.count()).select_from(schema.uploads))
        return int(found.scalar_one())


def test_a_file_is_registered_and_hashed_behind(several: Service, file: Path) -> None:
    image_id = several.record()
    several.locations.add(ADMIN, image_id, named(file))
    assert several.images.show(ADMIN, image_id).status is Status.ACTIVE  # at once
    image = settled(several, image_id)
    assert (image.size, image.virtual_size) == (len(DATA), len(DATA))
    assert (image.os_hash_algo, image.os_hash_value) == ("sha256", SHA256)
    assert image.locations == (Location(f"file://{file}", {}),)
    assert leases(several) == 0
    assert read(several, image_id) == ("", DATA)


def test_a_file_whose_hash_is_named_becomes_active_when_it_is_right(
    several: Service, file: Path
) -> None:
    image_id = several.record()
    sha512 = hashlib.sha512(DATA).hexdigest()
    several.locations.add(ADMIN, image_id, named(file, Hashes("sha512", sha512)))
    image = settled(several, image_id)
    assert (image.status, image.size) == (Status.ACTIVE, len(DATA))
    assert (image.os_hash_algo, image.os_hash_value) == ("sha512", sha512)
    assert read(several, image_id)[1] == DATA


def test_a_file_whose_hash_is_wrong_is_not_taken(several: Service, file: Path) -> None:
    image_id = several.record()
    several.locations.add(ADMIN, image_id, named(file, Hashes("sha256", "0" * 64)))
    image = settled(several, image_id)
    assert (image.status, image.size, image.locations) == (Status.QUEUED, None, ())
    assert leases(several) == 0
    several.locations.add(ADMIN, image_id, named(file, Hashes("sha256", SHA256)))
    assert settled(several, image_id).status is Status.ACTIVE


def test_a_registered_file_is_its_owners(several: Service, file: Path) -> None:
    """It is not removed with the image."""
    image_id = several.record()
    several.locations.add(ADMIN, image_id, named(file))
    settled(several, image_id)
    several.images.delete(ADMIN, image_id)
    assert file.read_bytes() == DATA
    assert [status for _, _, status, _ in rows(several, image_id)] == ["deleted"]


def test_ossa_2014_041_and_2015_002_what_nobody_may_name(several: Service, file: Path) -> None:
    stored = uploaded(several)
    image_id = several.record()
    (file.parent / "link").symlink_to("/etc/passwd")
    for url in (
        "file:///etc/passwd", "filesystem:///etc/passwd", f"filesystem://{file}",
        "swift+config://ref1/container/object", "rbd://fsid/pool/image/snap", "cinder://x", "",
        f"file://{several.datadir}/{stored}", f"file://{several.datadir}/../listed/image.img",
        f"file://{file.parent}/../images/{stored}", f"file://{file.parent}/link",
        f"file://{file.parent}/none", f"file://{file.parent}", "http://example.com/image",
        f"file://{file.parent}/{'x' * 255}",
    ):  # fmt: skip
        with pytest.raises(errors.InvalidLocation) as caught:
            several.locations.add(ADMIN, image_id, Named(url, {}))
        assert str(caught.value) == "invalid location"
        with pytest.raises(errors.InvalidLocation):
            several.locations.update(ADMIN, image_id, [add(Named(url, {}))])
    assert several.images.show(ADMIN, image_id).status is Status.QUEUED


def test_ossa_2014_041_and_2015_002_files_are_for_administrators(
    several: Service, file: Path
) -> None:
    mine = several.record(owner="me")
    for act in (
        lambda: several.locations.add(OWNER, mine, named(file)),
        lambda: several.locations.update(OWNER, mine, [add(named(file))]),
    ):
        with pytest.raises(errors.InvalidLocation):
            act()
    public = several.record(owner="other", visibility="public")
    with pytest.raises(errors.Forbidden):
        several.locations.add(OWNER, public, named(file))
    with pytest.raises(errors.Forbidden):
        several.locations.show(OWNER, mine)


def test_a_registered_file_is_inspected(several: Service, file: Path) -> None:
    file.write_bytes(qcow2(backing_offset=72))
    image_id = several.record(disk_format="qcow2")
    with pytest.raises(errors.UnsafeImage):
        several.locations.add(ADMIN, image_id, named(file))
    other = several.record(disk_format="vmdk")
    with pytest.raises(errors.FormatMismatch):
        several.locations.update(ADMIN, other, [add(named(file))])


def test_what_an_image_must_be_like(several: Service, file: Path) -> None:
    unformed = several.images.create(ADMIN, {}).id
    with pytest.raises(errors.FormatsNotSet):
        several.locations.add(ADMIN, unformed, named(file))
    with pytest.raises(errors.StatusConflict):
        several.locations.add(ADMIN, uploaded(several), named(file))
    file.write_bytes(b"")
    with pytest.raises(errors.InvalidLocation):
        several.locations.add(ADMIN, several.record(), named(file))


def test_hashing_that_died_is_taken_up_again(several: Service, file: Path) -> None:
    image_id = several.record()
    several.locations.add(ADMIN, image_id, named(file))
    settled(several, image_id)
    with several.database.write() as connection:
        connection.execute(sa.update(schema.images).values(os_hash_value=None))
        lease = {"image_id": image_id, "upload_id": "x", "worker": "elsewhere/1/1"}
        connection.execute(sa.insert(schema.uploads), {**lease, "heartbeat": several.clock()})
    several.clock.ahead = timedelta(seconds=61)
    several.housekeeping.sweep()
    assert settled(several, image_id).os_hash_value == SHA256
    assert leases(several) == 0


def test_an_image_whose_hashing_died_before_it_was_active_is_queued_again(
    several: Service,
) -> None:
    image_id = several.record()
    with several.database.write() as connection:
        connection.execute(sa.update(schema.images).values(status="importing"))
        lease = {"image_id": image_id, "upload_id": "x", "worker": "elsewhere/1/1"}
        connection.execute(sa.insert(schema.uploads), {**lease, "heartbeat": several.clock()})
    several.clock.ahead = timedelta(seconds=61)
    several.housekeeping.sweep()
    assert several.images.show(ADMIN, image_id).status is Status.QUEUED
    assert leases(several) == 0


def test_hashing_is_told_to_be_alive(several: Service, file: Path) -> None:
    """Its lease is renewed as an upload's is."""
    image_id = several.record()
    taken = [several.locations._turns.acquire(timeout=GUARD) for _ in range(2)]
    assert all(taken)  # so that hashing waits
    several.locations.add(ADMIN, image_id, named(file))
    several.clock.ahead = timedelta(seconds=50)
    several.housekeeping.beat()
    several.clock.ahead = timedelta(seconds=100)
    several.housekeeping.sweep()
    assert len(several.locations.active()) == 1
    for _ in taken:
        several.locations._turns.release()
    assert settled(several, image_id).os_hash_value == SHA256


# The legacy way: PATCH


def test_a_patch_activates_a_queued_image(several: Service, file: Path) -> None:
    image_id = several.record()
    hashes = Hashes("sha256", SHA256, "0" * 32)
    image = several.locations.update(ADMIN, image_id, [add(named(file, hashes), 0)])
    assert (image.status, image.size) == (Status.ACTIVE, len(DATA))
    assert (image.os_hash_value, image.checksum) == (SHA256, "0" * 32)


def test_a_patch_adds_and_removes_copies(several: Service, file: Path) -> None:
    image_id = several.record()
    other = file.with_name("copy.img")
    other.write_bytes(DATA)
    several.locations.update(ADMIN, image_id, [add(named(file))])
    image = several.locations.update(ADMIN, image_id, [add(named(other))])
    assert [each.url for each in image.locations] == [f"file://{file}", f"file://{other}"]
    image = several.locations.update(ADMIN, image_id, [LocationChange(ChangeOp.REMOVE, (), 0)])
    assert [each.url for each in image.locations] == [f"file://{other}"]
    assert file.exists()


def test_a_copy_has_the_images_size(several: Service, file: Path) -> None:
    image_id = several.record()
    several.locations.update(ADMIN, image_id, [add(named(file))])
    other = file.with_name("other.img")
    other.write_bytes(DATA + b"x")
    with pytest.raises(errors.InvalidLocation):
        several.locations.update(ADMIN, image_id, [add(named(other))])


def test_ossa_2016_006_the_locations_cannot_be_emptied(several: Service, file: Path) -> None:
    image_id = uploaded(several)
    for change in (
        LocationChange(ChangeOp.REMOVE, (), 0),
        LocationChange(ChangeOp.REMOVE, (), None),
        LocationChange(ChangeOp.REPLACE, ()),
    ):
        with pytest.raises(errors.LastLocation):
            several.locations.update(ADMIN, image_id, [change])
    # Nor can other data take the place of what is there.
    with pytest.raises(errors.BadRequest):
        several.locations.update(
            ADMIN, image_id, [LocationChange(ChangeOp.REPLACE, (named(file),))]
        )
    assert read(several, image_id)[1] == b"data"


def test_metadata_is_replaced(several: Service) -> None:
    image_id = uploaded(several)
    url = several.store.url(image_id)
    change = LocationChange(ChangeOp.REPLACE, (Named(url, {"note": "x"}),))
    image = several.locations.update(ADMIN, image_id, [change])
    assert image.locations == (Location(url, {"note": "x", "store": "fast"}),)


def test_steps_that_lead_nowhere(several: Service, file: Path) -> None:
    image_id = several.record()
    with pytest.raises(errors.BadRequest):
        several.locations.update(ADMIN, image_id, [add(named(file), 1)])
    with pytest.raises(errors.BadRequest):
        several.locations.update(ADMIN, image_id, [add(named(file)), add(named(file))])
    with pytest.raises(errors.InvalidLocation):
        several.locations.update(ADMIN, image_id, [add(Named(f"file://{file}", {"x": 5}))])
    wrong = named(file, Hashes("md5", "0" * 32))
    with pytest.raises(errors.Conflict):
        several.locations.update(ADMIN, image_id, [add(wrong)])
    with pytest.raises(errors.StatusConflict):
        several.locations.update(ADMIN, image_id, [LocationChange(ChangeOp.REMOVE, (), 0)])
    assert several.images.show(ADMIN, image_id).status is Status.QUEUED


def test_an_image_has_so_many_locations(several: Service, file: Path) -> None:
    image_id = several.record()
    for number in range(11):
        copy = file.with_name(f"{number}.img")
        copy.write_bytes(DATA)
        if number < 10:
            several.locations.update(ADMIN, image_id, [add(named(copy))])
        else:
            with pytest.raises(errors.QuotaExceeded):
                several.locations.update(ADMIN, image_id, [add(named(copy))])
