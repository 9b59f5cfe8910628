"""What happens between a look at an image and the decision that rests on it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from headrace import errors, settings
from headrace.api.schemas import Fields
from headrace.db import engine, migrate
from headrace.model import Status
from headrace.service.images import Change, ChangeOp, Images, Limits
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.registry import Registry
from headrace.transfer.engine import Source
from tests.conftest import KINDS, NewDatabase
from tests.image_files import qcow2
from tests.service.conftest import ADMIN, Clock, Service


class Paused:
    """A body that does something else once before its bytes come."""

    file = None

    def __init__(self, data: bytes, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._data = data
        self._meanwhile = meanwhile
        self.length = len(data)

    def pieces(self) -> Iterator[Source]:
        self._meanwhile()
        yield self._data


def replacing(**values: object) -> list[Change]:
    return [Change(ChangeOp.REPLACE, name, value) for name, value in values.items()]


def concurrently(*acts: Callable[[], object]) -> list[errors.Error | None]:
    """What became of acts that were begun at the same moment."""
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> errors.Error | None:
        start.wait(timeout=60)
        try:
            act()
        except errors.Error as error:
            return error
        return None

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def test_data_is_inspected_as_what_the_image_is_in_the_end(service: Service) -> None:
    evil = qcow2(backing_offset=512)
    for _ in range(60):
        image_id = service.record(container_format="ovf")
        upload, _patch = concurrently(
            lambda i=image_id: service.content.upload(ADMIN, i, Paused(evil)),
            lambda i=image_id: service.images.update(
                ADMIN, i, replacing(container_format="bare", disk_format="qcow2")
            ),
        )
        image = service.images.show(ADMIN, image_id)
        if image.container_format == "bare":
            assert image.status is Status.QUEUED
            assert isinstance(upload, errors.UnsafeImage)


def test_no_change_undoes_another(service: Service) -> None:
    for _ in range(60):
        image_id = service.record(visibility="public")
        hidden, noted = concurrently(
            lambda i=image_id: service.images.update(ADMIN, i, replacing(visibility="private")),
            lambda i=image_id: service.images.update(ADMIN, i, [Change(ChangeOp.ADD, "note", "x")]),
        )
        image = service.images.show(ADMIN, image_id)
        assert hidden is noted is None
        assert (image.visibility, image.properties) == ("private", {"note": "x"})


def test_a_protected_image_is_never_deleted(service: Service) -> None:
    for _ in range(60):
        image_id = service.record()
        protected, deleted = concurrently(
            lambda i=image_id: service.images.update(ADMIN, i, replacing(protected=True)),
            lambda i=image_id: service.images.delete(ADMIN, i),
        )
        # Exactly one of them was told that it succeeded.
        assert (protected is None) != (deleted is None)
        assert isinstance(protected or deleted, (errors.ImageNotFound, errors.ImageProtected))


def test_an_upload_that_lost_its_lease_takes_its_file_with_it(service: Service) -> None:
    image_id = service.record()

    def lose_it() -> None:
        service.clock.ahead += timedelta(hours=1)
        service.housekeeping.sweep()
        assert service.images.show(ADMIN, image_id).status is Status.QUEUED

    with pytest.raises(errors.StatusConflict):
        service.content.upload(ADMIN, image_id, Paused(b"late", lose_it))
    assert service.files() == []
    service.content.upload(ADMIN, image_id, Paused(b"next"))
    assert service.images.show(ADMIN, image_id).status is Status.ACTIVE


def test_an_upload_that_lost_its_lease_spares_its_successors_file(service: Service) -> None:
    image_id = service.record()

    def be_overtaken() -> None:
        service.clock.ahead += timedelta(hours=1)
        service.housekeeping.sweep()
        service.content.upload(ADMIN, image_id, Paused(b"next"))

    with pytest.raises(errors.DataExists):
        service.content.upload(ADMIN, image_id, Paused(b"late", be_overtaken))
    image, extent = service.content.download(ADMIN, image_id)
    assert image.status is Status.ACTIVE
    assert extent is not None
    assert extent.read() == b"next"
    extent.close()


def test_uploads_that_go_on_keep_their_lease(service: Service) -> None:
    image_id = service.record()
    assert service.content.active_uploads() == []

    def beat() -> None:
        assert len(service.content.active_uploads()) == 1
        service.clock.ahead += timedelta(hours=1)
        service.housekeeping.beat()
        service.housekeeping.sweep()

    service.content.upload(ADMIN, image_id, Paused(b"data", beat))
    assert service.images.show(ADMIN, image_id).status is Status.ACTIVE
    assert service.content.active_uploads() == []


def test_an_image_deleted_in_mid_upload_leaves_nothing(service: Service) -> None:
    image_id = service.record()
    with pytest.raises(errors.ImageGone):
        service.content.upload(
            ADMIN, image_id, Paused(b"data", lambda: service.images.delete(ADMIN, image_id))
        )
    assert service.files() == []


def test_an_image_is_taken_out_of_use_or_deleted(service: Service) -> None:
    for _ in range(60):
        image_id = service.record()
        service.content.upload(ADMIN, image_id, Paused(b"data"))
        deactivated, deleted = concurrently(
            lambda i=image_id: service.images.deactivate(ADMIN, i),
            lambda i=image_id: service.images.delete(ADMIN, i),
        )
        assert deleted is None
        assert deactivated is None or isinstance(deactivated, errors.ImageNotFound)
        assert service.files() == []


def test_of_two_actions_the_last_one_stands(service: Service) -> None:
    """Each was told that it succeeded, and the image is what one of them made it."""
    image_id = service.record(name="before")
    service.content.upload(ADMIN, image_id, Paused(b"data"))
    for number in range(60):
        outcomes = concurrently(
            lambda: service.images.deactivate(ADMIN, image_id),
            lambda: service.images.reactivate(ADMIN, image_id),
            lambda n=number: service.images.update(ADMIN, image_id, replacing(name=f"{n}")),
        )
        assert outcomes == [None, None, None]
        image = service.images.show(ADMIN, image_id)
        assert image.status in (Status.ACTIVE, Status.DEACTIVATED)
        assert image.name == f"{number}"


def test_an_action_does_not_meet_an_upload(service: Service) -> None:
    """An image is deactivated before its data came, which is refused, or after; never midway."""
    for _ in range(30):
        image_id = service.record()
        uploaded, deactivated = concurrently(
            lambda i=image_id: service.content.upload(ADMIN, i, Paused(b"data")),
            lambda i=image_id: service.images.deactivate(ADMIN, i),
        )
        assert uploaded is None
        assert deactivated is None or isinstance(deactivated, errors.StatusForbids)
        status = Status.ACTIVE if deactivated else Status.DEACTIVATED
        assert service.images.show(ADMIN, image_id).status is status


def test_tags_added_at_once_are_all_there(service: Service) -> None:
    for _ in range(30):
        image_id = service.record(tags=["old"])
        outcomes = concurrently(
            lambda i=image_id: service.images.add_tag(ADMIN, i, "a"),
            lambda i=image_id: service.images.add_tag(ADMIN, i, "b"),
            lambda i=image_id: service.images.delete_tag(ADMIN, i, "old"),
        )
        assert outcomes == [None, None, None]
        assert service.images.show(ADMIN, image_id).tags == {"a", "b"}


@pytest.mark.parametrize("kind", KINDS)
def test_no_crowd_gives_an_image_more_properties_or_tags_than_it_may_have(
    tmp_path: Path, new_database: NewDatabase, kind: str
) -> None:
    database = engine.connect(new_database(kind))
    migrate.prepare(database)
    store = FilesystemStore("file", tmp_path / "images")
    fields = Fields(settings.CONTAINER_FORMATS, settings.DISK_FORMATS)
    limits, crowd, rounds = Limits(properties=4, tags=3), 4, 6
    images = Images(
        database, Registry([store], default="file"), store, fields.check, limits, Clock()
    )

    def persist(act: Callable[[], object]) -> Callable[[], object]:
        """As a client does whom somebody was always quicker than."""

        def until_done() -> None:
            while True:
                try:
                    act()
                except errors.ImageChanged:
                    continue
                return

        return until_done

    def add_property(image_id: str, name: str) -> Callable[[], object]:
        change = Change(ChangeOp.ADD, name, "x")
        return persist(lambda: images.update(ADMIN, image_id, [change]))

    def add_tag(image_id: str, name: str) -> Callable[[], object]:
        return persist(lambda: images.add_tag(ADMIN, image_id, name))

    try:
        for _ in range(rounds):
            image_id = images.create(ADMIN, {"a": "", "b": "", "tags": ["a"]}).id
            acts = [add(image_id, f"{n}") for n in range(crowd) for add in (add_property, add_tag)]
            outcomes = concurrently(*acts)
            refused = [each for each in outcomes if each is not None]
            assert {each.code for each in refused} == {"quota.exceeded"}
            assert len(refused) == 4
            found = images.show(ADMIN, image_id)
            assert (len(found.properties), len(found.tags)) == (4, 3)
    finally:
        database.close()
