"""Sharing: who may know of members, make them, and speak for them."""

import pytest

from headrace import errors
from headrace.model import ImageQuery, MemberStatus, Status
from headrace.service.context import Context
from headrace.service.images import Change, ChangeOp
from tests.service.callers import NOBODY, OWNER, STRANGER, YOURS, reader, without_roles
from tests.service.conftest import ADMIN, Service
from tests.service.test_races import Paused, concurrently, replacing

ACCEPTED, PENDING, REJECTED = MemberStatus.ACCEPTED, MemberStatus.PENDING, MemberStatus.REJECTED


@pytest.fixture
def shared(service: Service) -> str:
    """An image of "mine", shared with "yours"."""
    image_id = service.record(owner="mine")
    service.members.create(OWNER, image_id, "yours")
    return image_id


def listed(service: Service, caller: Context, **query: str) -> list[str]:
    page = service.images.list(caller, ImageQuery(**query))  # type: ignore[arg-type]
    return [image.id for image in page.images]


def test_nobody_is_given_an_image_unasked(service: Service, shared: str) -> None:
    """OSSN-0005: who shares an image cannot put it in front of others."""
    assert service.images.show(YOURS, shared).id == shared
    assert listed(service, YOURS) == listed(service, YOURS, visibility="shared") == []
    assert listed(service, YOURS, member_status="pending") == [shared]
    service.members.update(YOURS, shared, "yours", ACCEPTED)
    assert listed(service, YOURS) == [shared]
    service.members.update(YOURS, shared, "yours", REJECTED)
    assert listed(service, YOURS) == []
    assert listed(service, YOURS, member_status="rejected") == [shared]
    assert listed(service, YOURS, member_status="all", visibility="shared") == [shared]
    assert service.images.show(YOURS, shared).id == shared


def test_only_the_project_itself_accepts(service: Service, shared: str) -> None:
    service.members.create(OWNER, shared, "third")
    for caller in (OWNER, reader("yours")):
        with pytest.raises(errors.Forbidden):
            service.members.update(caller, shared, "yours", ACCEPTED)
    with pytest.raises(errors.Forbidden):
        service.members.update(YOURS, shared, "third", ACCEPTED)
    assert {each.status for each in service.members.list(OWNER, shared)} == {PENDING}
    assert service.members.update(YOURS, shared, "yours", ACCEPTED).status is ACCEPTED
    assert service.members.update(ADMIN, shared, "third", REJECTED).status is REJECTED


def test_only_the_owner_shares(service: Service, shared: str) -> None:
    for caller in (YOURS, reader("mine")):
        with pytest.raises(errors.Forbidden):
            service.members.create(caller, shared, "third")
        with pytest.raises(errors.Forbidden):
            service.members.delete(caller, shared, "yours")
    service.members.delete(OWNER, shared, "yours")
    with pytest.raises(errors.ImageNotFound):
        service.images.show(YOURS, shared)
    service.members.create(ADMIN, shared, "yours")
    assert [each.project for each in service.members.list(OWNER, shared)] == ["yours"]


def test_a_member_may_know_all_others(service: Service, shared: str) -> None:
    service.members.create(OWNER, shared, "third")
    for caller in (OWNER, YOURS, reader("yours"), ADMIN):
        assert len(service.members.list(caller, shared)) == 2
        assert service.members.show(caller, shared, "third").project == "third"


@pytest.mark.parametrize(
    "caller", [STRANGER, NOBODY, without_roles("yours")], ids=["stranger", "nobody", "no roles"]
)
def test_a_stranger_learns_nothing(service: Service, shared: str, caller: Context) -> None:
    for act in (
        lambda: service.images.show(caller, shared),
        lambda: service.members.list(caller, shared),
        lambda: service.members.show(caller, shared, "yours"),
        lambda: service.members.create(caller, shared, "theirs"),
        lambda: service.members.update(caller, shared, "yours", ACCEPTED),
        lambda: service.members.delete(caller, shared, "yours"),
    ):
        with pytest.raises(errors.ImageNotFound):
            act()


@pytest.mark.parametrize("visibility", ["private", "public", "community"])
def test_only_a_shared_image_has_members(service: Service, shared: str, visibility: str) -> None:
    service.images.update(ADMIN, shared, replacing(visibility=visibility))
    for act in (
        lambda: service.members.list(OWNER, shared),
        lambda: service.members.create(OWNER, shared, "third"),
        lambda: service.members.delete(OWNER, shared, "yours"),
        lambda: service.members.update(ADMIN, shared, "yours", ACCEPTED),
    ):
        with pytest.raises(errors.ImageNotShared):
            act()
    with pytest.raises(errors.MemberNotFound):
        service.members.show(OWNER, shared, "yours")
    if visibility == "private":
        with pytest.raises(errors.ImageNotFound):
            service.images.show(YOURS, shared)
    else:
        with pytest.raises(errors.Forbidden):
            service.members.list(YOURS, shared)
    service.images.update(ADMIN, shared, replacing(visibility="shared"))
    assert [each.project for each in service.members.list(OWNER, shared)] == ["yours"]


def test_a_secret_member_is_not_found(service: Service, shared: str) -> None:
    """Of an image that all may see, who its members are is nobody else's business."""
    service.images.update(ADMIN, shared, replacing(visibility="public"))
    with pytest.raises(errors.MemberNotFound):
        service.members.show(STRANGER, shared, "yours")


def test_what_members_may_not_do(service: Service, shared: str) -> None:
    service.members.update(YOURS, shared, "yours", ACCEPTED)
    for act in (
        lambda: service.images.update(YOURS, shared, replacing(name="mine now")),
        lambda: service.images.add_tag(YOURS, shared, "tag"),
        lambda: service.images.deactivate(YOURS, shared),
        lambda: service.images.delete(YOURS, shared),
        lambda: service.content.upload(YOURS, shared, Paused(b"data")),
    ):
        with pytest.raises(errors.Forbidden):
            act()
    assert service.images.show(OWNER, shared).status is Status.QUEUED


@pytest.mark.parametrize("status", [PENDING, ACCEPTED, REJECTED])
def test_members_of_any_status_download(
    service: Service, shared: str, status: MemberStatus
) -> None:
    service.content.upload(OWNER, shared, Paused(b"data"))
    service.members.update(YOURS, shared, "yours", status)
    _, extent = service.content.download(YOURS, shared)
    assert extent is not None
    extent.close()


def test_an_image_is_not_shared_once_it_is_private(service: Service) -> None:
    """Whoever is told that an image was shared finds it so, however close the two came."""
    for _ in range(60):
        image_id = service.record(owner="mine")
        hidden, shared = concurrently(
            lambda i=image_id: service.images.update(OWNER, i, replacing(visibility="private")),
            lambda i=image_id: service.members.create(OWNER, i, "yours"),
        )
        assert hidden is None
        assert shared is None or isinstance(shared, errors.ImageNotShared)
        with pytest.raises(errors.ImageNotFound):
            service.images.show(YOURS, image_id)


def test_a_deleted_image_has_no_members(service: Service, shared: str) -> None:
    for _ in range(60):
        image_id = service.record(owner="mine")
        deleted, shared_ = concurrently(
            lambda i=image_id: service.images.delete(OWNER, i),
            lambda i=image_id: service.members.create(OWNER, i, "yours"),
        )
        assert deleted is None
        assert shared_ is None or isinstance(shared_, errors.ImageNotFound)
        with pytest.raises(errors.ImageNotFound):
            service.members.list(ADMIN, image_id)


def test_a_gift_takes_an_administrator(service: Service, shared: str) -> None:
    """A tenant can neither give an image away nor take one by changing its owner."""
    for caller, owner in ((OWNER, "yours"), (OWNER, None), (YOURS, "yours")):
        with pytest.raises(errors.Forbidden):
            service.images.update(caller, shared, [Change(ChangeOp.REPLACE, "owner", owner)])
    service.images.update(ADMIN, shared, replacing(owner="yours"))
    with pytest.raises(errors.ImageNotFound):
        service.images.show(OWNER, shared)
