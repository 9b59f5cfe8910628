"""Who may do what to an image: every kind of caller, every visibility, every act."""

from collections.abc import Callable, Iterator

import pytest

from headrace import errors
from headrace.model import ImageQuery, MemberStatus, Status
from headrace.service.context import Context
from headrace.transfer.extent import Extent
from tests.service.callers import (
    NOBODY,
    OWNER,
    STRANGER,
    YOURS,
    member,
    reader,
    without_roles,
)
from tests.service.conftest import ADMIN, Service
from tests.service.test_locations import stored as new_image
from tests.service.test_races import Paused, replacing

DONE, FORBIDDEN, NOT_FOUND = "done", "forbidden", "not found"

CALLERS = {
    "admin": ADMIN,
    "owner": OWNER,
    "owner's reader": reader("mine"),
    "member": YOURS,
    "member's reader": reader("yours"),
    "stranger": STRANGER,
    "owner without roles": without_roles("mine"),
    "nobody": NOBODY,
}
# act: visibility: what becomes of it for each of the callers, in their order.
D, F, N = DONE, FORBIDDEN, NOT_FOUND
EXPECTED: dict[str, dict[str, tuple[str, ...]]] = {
    "show": {
        "private": (D, D, D, N, N, N, N, N),
        "shared": (D, D, D, D, D, N, N, N),
        "community": (D, D, D, D, D, D, N, N),
        "public": (D, D, D, D, D, D, N, N),
    },
    "download": {
        "private": (D, D, F, N, N, N, N, N),
        "shared": (D, D, F, D, F, N, N, N),
        "community": (D, D, F, D, F, D, N, N),
        "public": (D, D, F, D, F, D, N, N),
    },
    **{
        act: {
            "private": (D, D, F, N, N, N, N, N),
            "shared": (D, D, F, F, F, N, N, N),
            "community": (D, D, F, F, F, F, N, N),
            "public": (D, D, F, F, F, F, N, N),
        }
        for act in ("update", "delete", "deactivate", "tag")
    },
}


def attempt(act: Callable[[], object]) -> str:
    try:
        found = act()
    except errors.Forbidden:
        return FORBIDDEN
    except errors.ImageNotFound:
        return NOT_FOUND
    if isinstance(found, tuple) and isinstance(found[1], Extent):
        found[1].close()
    return DONE


ACTS: dict[str, Callable[[Service, Context, str], object]] = {
    "show": lambda service, caller, image_id: service.images.show(caller, image_id),
    "download": lambda service, caller, image_id: service.content.download(caller, image_id),
    "update": lambda service, caller, image_id: service.images.update(
        caller, image_id, replacing(name="new")
    ),
    "delete": lambda service, caller, image_id: service.images.delete(caller, image_id),
    "deactivate": lambda service, caller, image_id: service.images.deactivate(caller, image_id),
    "tag": lambda service, caller, image_id: service.images.add_tag(caller, image_id, "new"),
}


def cases() -> Iterator[tuple[str, str, str, str]]:
    for act, by_visibility in EXPECTED.items():
        for visibility, outcomes in by_visibility.items():
            for caller, outcome in zip(CALLERS, outcomes, strict=True):
                yield act, visibility, caller, outcome


@pytest.mark.parametrize("act", EXPECTED)
def test_who_may_do_what(service: Service, act: str) -> None:
    for name, visibility, caller, outcome in cases():
        if name != act:
            continue
        image_id = new_image(service, owner="mine")
        service.members.create(ADMIN, image_id, "yours")
        service.images.update(ADMIN, image_id, replacing(visibility=visibility))
        before = service.images.show(ADMIN, image_id)
        found = attempt(lambda i=image_id, c=caller: ACTS[act](service, CALLERS[c], i))
        assert found == outcome, (act, visibility, caller)
        if outcome != DONE:
            assert service.images.show(ADMIN, image_id) == before
            assert image_id in service.files()  # OSSA-2012-017: refused, and the data intact


@pytest.mark.parametrize(
    ("caller", "values", "outcome"),
    [
        (OWNER, {}, DONE),
        (OWNER, {"owner": "mine"}, DONE),
        (OWNER, {"owner": "yours"}, FORBIDDEN),
        (OWNER, {"owner": None}, FORBIDDEN),
        (OWNER, {"visibility": "private"}, DONE),
        (OWNER, {"visibility": "public"}, FORBIDDEN),
        (OWNER, {"visibility": "community"}, DONE),
        (reader("mine"), {"visibility": "community"}, FORBIDDEN),
        (ADMIN, {"visibility": "public", "owner": "yours"}, DONE),
        (reader("mine"), {}, FORBIDDEN),
        (without_roles("mine"), {}, FORBIDDEN),
        (NOBODY, {}, FORBIDDEN),
        (member("MINE"), {"owner": "mine"}, FORBIDDEN),
    ],
)
def test_who_may_create_what(
    service: Service, caller: Context, values: dict[str, object], outcome: str
) -> None:
    assert attempt(lambda: service.images.create(caller, values)) == outcome


def test_publishing_takes_an_administrator(service: Service) -> None:
    """OSSN-0015: no tenant puts an image before everybody."""
    image_id = service.record(owner="mine")
    with pytest.raises(errors.Forbidden):
        service.images.update(OWNER, image_id, replacing(visibility="public"))
    service.images.update(ADMIN, image_id, replacing(visibility="public"))
    # What it is already is no publishing, and to take it back the owner's right.
    service.images.update(OWNER, image_id, replacing(visibility="public", name="new"))
    service.images.update(OWNER, image_id, replacing(visibility="private"))


def test_an_image_is_given_to_the_community_by_its_owner(service: Service) -> None:
    """Nobody has it in his list for that: one has to ask for the community's."""
    image_id = service.record(owner="mine")
    service.images.update(OWNER, image_id, replacing(visibility="community"))
    assert service.images.list(STRANGER, ImageQuery()).images == []
    (found,) = service.images.list(STRANGER, ImageQuery(visibility="community")).images
    assert found.id == image_id


def test_who_may_list(service: Service) -> None:
    service.record(owner="mine")
    for caller in (ADMIN, OWNER, reader("mine")):
        assert len(service.images.list(caller, ImageQuery()).images) == 1
    for caller in (without_roles("mine"), NOBODY):
        with pytest.raises(errors.Forbidden):
            service.images.list(caller, ImageQuery())
    assert service.images.list(STRANGER, ImageQuery()).images == []


@pytest.mark.parametrize(
    ("visibility", "listed"),
    [
        (None, {"own private", "own shared", "own community", "own public", "public", "accepted"}),
        ("all", {"own private", "own shared", "own community", "own public", "public", "accepted",
                 "community"}),
        ("public", {"own public", "public"}),
        ("private", {"own private"}),
        ("shared", {"own shared", "accepted"}),
        ("community", {"own community", "community"}),
    ],
)  # fmt: skip
def test_what_a_project_finds_listed(
    service: Service, visibility: str | None, listed: set[str]
) -> None:
    for each in ("private", "shared", "community", "public"):
        service.record(owner="yours", name=f"own {each}", visibility=each)
        service.record(owner="mine", name=each, visibility=each)
    for status in ("pending", "accepted", "rejected"):
        image_id = service.record(owner="mine", name=status)
        service.members.create(ADMIN, image_id, "yours")
        service.members.update(ADMIN, image_id, "yours", MemberStatus(status))
    page = service.images.list(YOURS, ImageQuery(limit=100, visibility=visibility))
    assert {image.name for image in page.images} == listed


def test_a_deactivated_image_is_for_administrators(service: Service) -> None:
    """OSSA-2013-027: the one decision that every way of sending data asks for."""
    image_id = new_image(service, owner="mine")
    service.members.create(OWNER, image_id, "yours")
    service.images.deactivate(OWNER, image_id)
    for caller in (OWNER, YOURS):
        with pytest.raises(errors.Forbidden):
            service.content.download(caller, image_id)
        assert service.images.show(caller, image_id).status is Status.DEACTIVATED
        assert service.images.show(caller, image_id).locations == ()
    (image,) = service.images.list(OWNER, ImageQuery()).images
    assert image.locations == ()
    assert service.images.update(OWNER, image_id, replacing(name="new")).locations == ()
    assert len(service.images.show(ADMIN, image_id).locations) == 1
    _, extent = service.content.download(ADMIN, image_id)
    assert extent is not None
    extent.close()

    service.images.reactivate(OWNER, image_id)
    assert len(service.images.show(OWNER, image_id).locations) == 1
    _, extent = service.content.download(YOURS, image_id)
    assert extent is not None
    extent.close()


def test_a_deactivated_image_is_deleted_with_its_data(service: Service) -> None:
    image_id = new_image(service, owner="mine")
    service.images.deactivate(OWNER, image_id)
    service.images.delete(OWNER, image_id)
    assert service.files() == []


def test_an_upload_is_for_the_owner(service: Service) -> None:
    image_id = service.record(owner="mine", visibility="public")
    for caller in (STRANGER, reader("mine")):
        with pytest.raises(errors.Forbidden):
            service.content.upload(caller, image_id, Paused(b"data"))
        with pytest.raises(errors.Forbidden):
            service.content.check_upload(caller, image_id, 4, None)
    service.content.check_upload(OWNER, image_id, 4, None)
    service.content.upload(OWNER, image_id, Paused(b"data"))


def test_what_nobody_owns_is_seen_by_all_and_changed_by_administrators(service: Service) -> None:
    image_id = new_image(service)
    assert service.images.show(ADMIN, image_id).owner is None
    service.members.create(ADMIN, image_id, "theirs")
    for caller in (OWNER, STRANGER):
        assert service.images.show(caller, image_id).id == image_id
        for act in (
            lambda c=caller: service.images.update(c, image_id, replacing(name="new")),
            lambda c=caller: service.images.delete(c, image_id),
            lambda c=caller: service.members.list(c, image_id),
            lambda c=caller: service.members.create(c, image_id, "mine"),
        ):
            with pytest.raises(errors.Forbidden):
                act()
    service.images.delete(ADMIN, image_id)
