"""Property protections: who may create, read, update and delete which custom property."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from headrace import errors
from headrace.api.enforcer import Enforced
from headrace.db import images as rows
from headrace.model import ImageQuery, Viewer
from headrace.service.context import Context
from headrace.service.images import READ_ONLY, RESERVED, Change, ChangeOp
from headrace.service.protections import Act, Format, Protections, check_rules, read
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.registry import Registry
from tests.service.callers import NOBODY, OWNER, reader
from tests.service.conftest import ADMIN, Service, serving

FILE = """
[^billing_]
create = admin,Billing
read = admin,billing
update = admin,billing
delete = !

[^x_seen]
create = @
read = @
update = admin
delete = admin

[^x_dropped]
create = member
read = !
update = member
delete = member

[^x_once]
create = @
read = !
update = !
delete = !

[^x_]
create = @
read = @
update = @
delete = @

[empty]
create =
read =
update =
delete =
"""
ROOT = replace(ADMIN, roles=frozenset({"admin"}))
BILLING = Context(Viewer("mine"), frozenset({"member", "billing"}))


def written(path: Path, text: str, form: Format = Format.ROLES) -> Protections:
    path.write_text(text)
    return read(path, form)


@pytest.fixture
def protections(tmp_path: Path) -> Protections:
    return written(tmp_path / "protections.conf", FILE)


@pytest.fixture
def protected(tmp_path: Path, protections: Protections) -> Iterator[Service]:
    registry = Registry([FilesystemStore("file", tmp_path / "images")], default="file")
    yield from serving(tmp_path, registry, protections=protections)


def change(op: ChangeOp, name: str, value: str = "new") -> list[Change]:
    return [Change(op, name, value)]


def stored(service: Service, image_id: str) -> dict[str, str]:
    return rows.show(service.database, image_id, Viewer(is_admin=True)).properties


# --- what a file says


def test_the_first_section_that_is_found_decides(protections: Protections) -> None:
    """OSSN-0013: the order of the file, whatever order a parser's dictionary has."""
    assert not protections.allow(OWNER, Act.UPDATE, "x_seen")
    assert protections.allow(OWNER, Act.UPDATE, "x_other")
    assert not protections.allow(OWNER, Act.READ, "x_dropped")


def test_what_no_section_is_found_in_is_nobodys(protections: Protections) -> None:
    for act in Act:
        assert not protections.allow(ROOT, act, "other")
        assert not protections.allow(ROOT, act, "empty")


def test_roles_are_those_of_the_caller_or_of_the_service_asking(protections: Protections) -> None:
    nova = Context(Viewer("mine"), frozenset({"reader"}), frozenset({"billing"}))
    assert protections.allow(ROOT, Act.READ, "billing_code")
    assert protections.allow(BILLING, Act.CREATE, "billing_code")  # written Billing
    assert protections.allow(nova, Act.READ, "billing_code")
    assert not protections.allow(OWNER, Act.READ, "billing_code")
    assert not protections.allow(ROOT, Act.DELETE, "billing_code")


def test_everybody_is_who_has_no_role_too(protections: Protections) -> None:
    assert protections.allow(NOBODY, Act.READ, "x_seen")


def test_a_role_contains_others(tmp_path: Path) -> None:
    text = "[.*]\ncreate = member\nread = reader\nupdate = member\ndelete = admin\n"
    found = written(tmp_path / "f", text)
    member = Context(Viewer("mine"), frozenset({"member"}))
    assert found.allow(member, Act.READ, "p")
    assert not found.allow(reader("mine"), Act.UPDATE, "p")


def test_the_services_own_properties_are_protected_otherwise(tmp_path: Path) -> None:
    closed = "create = !\nread = !\nupdate = !\ndelete = !\n"
    found = written(tmp_path / "f", f"[os_glance_.*]\n{closed}[.*]\n{closed}")
    assert found.allow(NOBODY, Act.READ, "os_glance_import_task")
    # Only the beginning of a name makes it one of them.
    assert not found.allow(ROOT, Act.READ, "my_os_glance_import_task")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[(]\ncreate=@\nread=@\nupdate=@\ndelete=@", "no regular expression"),
        ("[a]\ncreate=@\nread=@\nupdate=@", "does not say who may delete"),
        ("[a]\ncreate=@,!\nread=@\nupdate=@\ndelete=@", "for everybody (@) and for nobody (!)"),
        ("[a]\ncreate=@\n[a]\nread=@", "already exists"),
        ("create=@", "no section headers"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "protections.conf"
    if text is not None:
        path.write_text(text)
    with pytest.raises(errors.ConfigurationError) as refused:
        read(path, Format.ROLES)
    assert words in str(refused.value)
    assert "protections.conf" in str(refused.value)


def test_rules_of_the_policy_may_stand_for_roles(tmp_path: Path) -> None:
    text = "[.*]\ncreate=@\nread=audit\nupdate=!\ndelete=context_is_admin\n"
    found = written(tmp_path / "f", text, Format.POLICIES)
    rules = Enforced({"audit": "role:auditor and project_id:mine"})
    auditor = Context(Viewer("mine"), frozenset({"auditor"}), rules=rules)
    assert found.allow(auditor, Act.READ, "p")
    assert found.allow(auditor, Act.CREATE, "p")
    assert not found.allow(replace(auditor, viewer=Viewer("yours")), Act.READ, "p")
    assert not found.allow(auditor, Act.UPDATE, "p")
    assert found.allow(replace(ROOT, rules=rules), Act.DELETE, "p")
    assert not found.allow(OWNER, Act.READ, "p")  # without rules there is none to say yes
    check_rules(found, rules.texts)
    with pytest.raises(errors.ConfigurationError, match="audit"):
        check_rules(found, Enforced({}).texts)
    with pytest.raises(errors.ConfigurationError, match="more than one rule"):
        written(tmp_path / "f", text.replace("audit", "audit,other"), Format.POLICIES)


# --- what becomes of images


def test_who_may_not_read_a_property_is_not_shown_it(protected: Service) -> None:
    image_id = protected.images.create(BILLING, {"billing_code": "7", "x_a": "1"}).id
    assert protected.images.show(BILLING, image_id).properties == {"billing_code": "7", "x_a": "1"}
    assert protected.images.show(OWNER, image_id).properties == {"x_a": "1"}
    (listed,) = protected.images.list(OWNER, ImageQuery()).images
    assert listed.properties == {"x_a": "1"}
    updated = protected.images.update(OWNER, image_id, change(ChangeOp.REPLACE, "x_a"))
    assert updated.properties == {"x_a": "new"}
    # What somebody cannot see his changes leave as it is.
    assert stored(protected, image_id) == {"billing_code": "7", "x_a": "new"}
    protected.images.add_tag(OWNER, image_id, "t")
    assert stored(protected, image_id) == {"billing_code": "7", "x_a": "new"}


def test_who_creates_what_he_may_not_read_is_not_shown_it(protected: Service) -> None:
    made = protected.images.create(OWNER, {"x_dropped": "s3cret"})
    assert made.properties == {}
    assert stored(protected, made.id) == {"x_dropped": "s3cret"}


def test_a_list_is_no_oracle_of_what_may_not_be_read(protected: Service) -> None:
    """A filter finds nothing by such a property, be the value right or wrong."""
    image_id = protected.images.create(BILLING, {"billing_code": "7", "x_a": "1"}).id
    for value in ("7", "8"):
        for more in ({}, {"x_a": "1"}):
            query = ImageQuery(properties={"billing_code": value, **more})
            page = protected.images.list(OWNER, query)
            assert (page.images, page.full) == ([], False)
    (found,) = protected.images.list(BILLING, ImageQuery(properties={"billing_code": "7"})).images
    assert found.id == image_id


@pytest.mark.parametrize("name", ["billing_code", "other"])
def test_what_may_not_be_created_is_not(protected: Service, name: str) -> None:
    with pytest.raises(errors.PropertyProtected):
        protected.images.create(OWNER, {name: "1"})
    assert protected.images.list(OWNER, ImageQuery()).images == []
    image_id = protected.images.create(OWNER, {}).id
    with pytest.raises(errors.PropertyProtected):
        protected.images.update(OWNER, image_id, change(ChangeOp.ADD, name))
    assert stored(protected, image_id) == {}


def test_what_may_be_created_and_not_changed_is_set_once(protected: Service) -> None:
    image_id = protected.images.create(OWNER, {}).id
    protected.images.update(OWNER, image_id, change(ChangeOp.ADD, "x_seen", "1"))
    for op in (ChangeOp.ADD, ChangeOp.REPLACE, ChangeOp.REMOVE):
        with pytest.raises(errors.PropertyProtected):
            protected.images.update(OWNER, image_id, change(op, "x_seen", "2"))
    assert stored(protected, image_id) == {"x_seen": "1"}
    protected.images.update(ROOT, image_id, change(ChangeOp.REPLACE, "x_seen", "2"))
    protected.images.update(ROOT, image_id, change(ChangeOp.REMOVE, "x_seen"))
    assert stored(protected, image_id) == {}


def test_one_forbidden_step_forbids_all(protected: Service) -> None:
    image_id = protected.images.create(OWNER, {"x_a": "1"}).id
    steps = [
        *change(ChangeOp.REPLACE, "x_a", "2"), *change(ChangeOp.ADD, "x_b"),
        *change(ChangeOp.ADD, "billing_code"),
    ]  # fmt: skip
    with pytest.raises(errors.PropertyProtected):
        protected.images.update(OWNER, image_id, steps)
    assert stored(protected, image_id) == {"x_a": "1"}


@pytest.mark.parametrize("op", ChangeOp)
@pytest.mark.parametrize("name", ["billing_code", "x_dropped", "x_once"])
def test_an_answer_does_not_tell_whether_there_is_what_may_not_be_read(
    protected: Service, op: ChangeOp, name: str
) -> None:
    def answer(values: dict[str, object]) -> str:
        image_id = protected.images.create(ROOT, {"owner": "mine"}).id
        if values:
            image = rows.show(protected.database, image_id, ADMIN.viewer)
            rows.update(protected.database, image, replace(image, properties=values))  # type: ignore[arg-type]
        try:
            return str(protected.images.update(OWNER, image_id, change(op, name)).properties)
        except errors.Error as error:
            return str(error)

    assert answer({}) == answer({name: "1"})


def test_the_time_of_update_does_not_tell_what_was_guessed(protected: Service) -> None:
    image_id = protected.images.create(OWNER, {"x_dropped": "7"}).id
    for guess in ("7", "8"):
        before = protected.images.show(OWNER, image_id).updated_at
        protected.clock.ahead += timedelta(seconds=1)
        step = change(ChangeOp.ADD, "x_dropped", guess)
        assert protected.images.update(OWNER, image_id, step).updated_at > before


def test_what_may_not_be_updated_is_not_written_over_unseen(protected: Service) -> None:
    """The right to create is none to overwrite, even of what one is not shown."""
    image_id = protected.images.create(OWNER, {"x_once": "1"}).id
    for op in ChangeOp:
        with pytest.raises((errors.PropertyProtected, errors.PropertyMissing)):
            protected.images.update(OWNER, image_id, change(op, "x_once", "2"))
    assert stored(protected, image_id) == {"x_once": "1"}


@pytest.mark.parametrize("name", sorted(READ_ONLY | RESERVED | {"os_glance", "os_glance_any"}))
def test_some_names_are_nobodys_whatever_a_file_says(tmp_path: Path, name: str) -> None:
    """OSSA-2015-019 (CVE-2015-5251), OSSA-2014-041: no caller sets status, size or locations."""
    open_to_all = "[.*]\ncreate = @\nread = @\nupdate = @\ndelete = @\n"
    everything = written(tmp_path / "f", open_to_all)
    registry = Registry([FilesystemStore("file", tmp_path / "images")], default="file")
    refused = (errors.PropertyReadOnly, errors.PropertyReserved)
    for service in serving(tmp_path, registry, protections=everything):
        image_id = service.images.create(ROOT, {}).id
        before = service.images.show(ROOT, image_id)
        if name != "id":
            with pytest.raises(refused):
                service.images.create(ROOT, {name: "x"})
        for op in ChangeOp:
            with pytest.raises(refused):
                service.images.update(ROOT, image_id, change(op, name, "x"))
        assert service.images.show(ROOT, image_id) == before
        assert len(service.images.list(ROOT, ImageQuery()).images) == 1


def test_base_attributes_are_no_properties(protected: Service) -> None:
    image_id = protected.images.create(OWNER, {"name": "other"}).id
    assert protected.images.update(OWNER, image_id, change(ChangeOp.REPLACE, "name")).name == "new"
