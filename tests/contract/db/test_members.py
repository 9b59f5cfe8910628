"""Members of images, on every kind of database."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from headrace import errors
from headrace.db import images, members, schema
from headrace.db.engine import Database
from headrace.model import Image, Member, MemberStatus, Viewer, Visibility
from tests.contract.db import examples
from tests.contract.db.examples import ADMIN, add_member, statements, stored

ANY_NUMBER = -1
# In whole seconds, as MySQL keeps them.
NOW, LATER = (time.replace(microsecond=0) for time in (examples.NOW, examples.LATER))


def image() -> Image:
    return examples.image(created_at=NOW, updated_at=NOW)


def test_a_new_member_is_pending(database: Database) -> None:
    shared = image()
    images.create(database, shared)
    made = members.create(database, shared, "yours", ANY_NUMBER, LATER)
    assert made == Member(image_id=shared.id, project="yours", created_at=LATER, updated_at=LATER)
    assert made.status is MemberStatus.PENDING
    assert members.show(database, shared.id, "yours") == made
    (row,) = stored(database, schema.image_members, shared.id)
    assert (row["can_share"], row["deleted"], row["deleted_at"]) == (False, False, None)
    # The image itself is as it was: its time of change, above all.
    assert images.show(database, shared.id, ADMIN) == shared


def test_a_project_is_a_member_once(database: Database) -> None:
    shared = image()
    images.create(database, shared)
    members.create(database, shared, "yours", ANY_NUMBER, NOW)
    with pytest.raises(errors.MemberExists):
        members.create(database, shared, "yours", ANY_NUMBER, LATER)
    assert len(stored(database, schema.image_members, shared.id)) == 1


def test_a_member_that_comes_back_has_its_row_and_is_pending_again(database: Database) -> None:
    shared = image()
    images.create(database, shared)
    members.create(database, shared, "yours", ANY_NUMBER, NOW)
    members.update(database, shared.id, "yours", MemberStatus.ACCEPTED, NOW)
    members.delete(database, shared, "yours", LATER)
    (gone,) = stored(database, schema.image_members, shared.id)
    assert (gone["deleted"], gone["deleted_at"], gone["status"]) == (True, LATER, "accepted")
    again = members.create(database, shared, "yours", ANY_NUMBER, LATER + timedelta(seconds=1))
    assert (again.status, again.created_at) == (MemberStatus.PENDING, NOW)
    (back,) = stored(database, schema.image_members, shared.id)
    assert (back["id"], back["deleted"], back["deleted_at"]) == (gone["id"], False, None)


def test_a_row_that_glance_removed_is_taken_up(database: Database) -> None:
    shared = image()
    images.create(database, shared)
    add_member(database, shared.id, "yours", "rejected", deleted=True)
    assert members.list_all(database, shared.id) == []
    made = members.create(database, shared, "yours", ANY_NUMBER, LATER)
    assert members.list_all(database, shared.id) == [made]
    assert len(stored(database, schema.image_members, shared.id)) == 1


def test_members_are_listed_in_their_order(database: Database) -> None:
    shared, other = image(), image()
    for each in (shared, other):
        images.create(database, each)
        for project in ("b", "a", "c"):
            members.create(database, each, project, ANY_NUMBER, NOW)
    members.delete(database, shared, "a", LATER)
    assert [each.project for each in members.list_all(database, shared.id)] == ["b", "c"]
    assert {each.image_id for each in members.list_all(database, shared.id)} == {shared.id}


def test_a_status_is_set_and_what_is_no_member_has_none(database: Database) -> None:
    shared = image()
    images.create(database, shared)
    members.create(database, shared, "yours", ANY_NUMBER, NOW)
    for status in (MemberStatus.ACCEPTED, MemberStatus.REJECTED, MemberStatus.PENDING):
        changed = members.update(database, shared.id, "yours", status, LATER)
        assert (changed.status, changed.created_at, changed.updated_at) == (status, NOW, LATER)
        # Set to what it is: no change, and no "not found" on a database that counts changed rows.
        assert members.update(database, shared.id, "yours", status, LATER) == changed
    for act in (
        lambda: members.show(database, shared.id, "theirs"),
        lambda: members.update(database, shared.id, "theirs", MemberStatus.ACCEPTED, NOW),
        lambda: members.delete(database, shared, "theirs", NOW),
    ):
        with pytest.raises(errors.MemberNotFound):
            act()


def test_the_quota_counts_who_is_there(database: Database) -> None:
    shared = image()
    images.create(database, shared)
    add_member(database, shared.id, "gone", deleted=True)
    for project in ("a", "b"):
        members.create(database, shared, project, 2, NOW)
    with pytest.raises(errors.QuotaExceeded):
        members.create(database, shared, "c", 2, NOW)
    members.delete(database, shared, "a", LATER)
    members.create(database, shared, "gone", 2, NOW)
    with pytest.raises(errors.QuotaExceeded):
        members.create(database, shared, "a", 2, NOW)
    with pytest.raises(errors.QuotaExceeded):
        members.create(database, shared, "a", 0, NOW)


def test_no_crowd_passes_the_quota_or_adds_a_project_twice(database: Database) -> None:
    shared = image()
    images.create(database, shared)

    def add(project: str) -> bool:
        try:
            members.create(database, shared, project, 3, NOW)
        except (errors.QuotaExceeded, errors.MemberExists):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(add, [f"p{number % 4}" for number in range(16)]))
    assert added.count(True) == 3
    assert len(stored(database, schema.image_members, shared.id)) == 3


def test_nothing_is_decided_by_an_image_that_was_changed(database: Database) -> None:
    before = image()
    images.create(database, before)
    members.create(database, before, "yours", ANY_NUMBER, NOW)
    after = images.update(database, before, replace(before, visibility=Visibility.PRIVATE))
    with pytest.raises(errors.ImageChanged):
        members.create(database, before, "theirs", ANY_NUMBER, NOW)
    with pytest.raises(errors.ImageChanged):
        members.delete(database, before, "yours", NOW)
    # The rows stay, but mean nothing for as long as the image is not shared.
    assert [each.project for each in members.list_all(database, before.id)] == ["yours"]
    with pytest.raises(errors.ImageNotFound):
        images.show(database, before.id, Viewer("yours"))
    images.delete(database, after, LATER)
    with pytest.raises(errors.ImageNotFound):
        members.create(database, after, "theirs", ANY_NUMBER, NOW)
    assert members.list_all(database, before.id) == []


def test_what_members_cost(database: Database) -> None:
    shared = image()
    images.create(database, shared)
    with statements(database) as created:
        members.create(database, shared, "yours", 9, NOW)
    with statements(database) as listed:
        members.list_all(database, shared.id)
    with statements(database) as updated:
        members.update(database, shared.id, "yours", MemberStatus.ACCEPTED, NOW)
    assert (len(created), len(listed), len(updated)) == (5, 1, 2)
