"""The decisions of service/policy.py are those of the usual rules, which oslo.policy reads."""

from collections.abc import Iterator
from datetime import datetime
from itertools import combinations, product

import pytest

from headrace.api.enforcer import Enforced
from headrace.api.rules import RULES
from headrace.model import Image, Namespace, Viewer, Visibility
from headrace.service import policy
from headrace.service.context import Context

ROLES = ("admin", "member", "reader", "service")
NOW = datetime(2026, 1, 1)
WITHOUT_SUBJECT = {
    "get_images", "get_metadef_namespaces", "list_metadef_resource_types", "context_is_admin",
    "service_api", "stores_info_detail", "tasks_api_access", "add_metadef_namespace",
}  # fmt: skip
ANYBODYS = {"default", "metadef_default", "get_task", "get_tasks", "add_task", "modify_task"}


def callers() -> Iterator[Context]:
    for number in range(len(ROLES) + 1):
        for roles, project in product(combinations(ROLES, number), ("mine", None)):
            yield Context(Viewer(project, is_admin="admin" in roles), frozenset(roles))


def images() -> list[Image]:
    # No property may stand for what a rule compares with.
    claims = {"project_id": "mine", "member_id": "mine", "visibility": "public", "owner": "mine"}
    return [
        Image(
            id="00000000-0000-0000-0000-000000000000",
            owner=owner,
            visibility=visibility,
            properties=properties,
            created_at=NOW,
            updated_at=NOW,
        )
        for owner, visibility in product(("mine", "theirs", None), Visibility)
        for properties in ({}, claims)
    ]


def namespaces() -> list[Namespace]:
    return [
        Namespace(namespace="n", owner=owner, visibility=visibility, created_at=NOW, updated_at=NOW)
        for owner, visibility in product(("mine", "theirs"), ("public", "private"))
    ]


def subjects(rule: str) -> list[Image] | list[Namespace] | list[None]:
    if rule in WITHOUT_SUBJECT:
        return [None]
    return namespaces() if "metadef" in rule else images()


@pytest.fixture(scope="module")
def enforced() -> Enforced:
    return Enforced({})


@pytest.mark.parametrize("rule", sorted(RULES.keys() - ANYBODYS))
def test_a_decision_is_that_of_the_rule(enforced: Enforced, rule: str) -> None:
    for caller, subject in product(callers(), subjects(rule)):
        expected = enforced.allow(caller, rule, policy.target(caller, subject))
        assert policy.allows(caller, rule, subject) == expected, (caller, subject)


def test_what_anybody_may_is_never_asked_for() -> None:
    assert not any(RULES[name].asked for name in ANYBODYS)


def test_every_rule_is_once_refused_and_once_not(enforced: Enforced) -> None:
    """What would always agree proves nothing."""
    for rule in RULES.keys() - ANYBODYS:
        outcomes = {
            policy.allows(caller, rule, subject)
            for caller, subject in product(callers(), subjects(rule))
        }
        assert outcomes == {True, False}, rule


@pytest.mark.parametrize("rule", ["modify_image", "delete_image", "add_member", "upload_image"])
def test_old_defaults_let_any_role_do_what_is_of_ones_own_project(rule: str) -> None:
    old = Enforced({}, new_defaults=False)
    for roles, project, image in product((set(), {"x"}), ("mine", "theirs", None), images()):
        caller = Context(Viewer(project), frozenset(roles), rules=old)
        owns = project is not None and image.owner == project
        assert policy.allows(caller, rule, image) == owns, (caller, image)


def test_old_defaults_let_any_role_read_what_is_seen() -> None:
    old = Enforced({}, new_defaults=False)
    caller = Context(Viewer("mine"), rules=old)
    for rule in ("get_image", "download_image", "get_members"):
        assert all(policy.allows(caller, rule, image) for image in images())
    for rule in ("publicize_image", "copy_image", "fetch_image_location"):
        assert not any(policy.allows(caller, rule, image) for image in images())
    assert policy.allows(caller, "get_images")
    assert not policy.allows(caller, "tasks_api_access")


def test_a_changed_rule_is_the_only_word() -> None:
    rules = Enforced({"delete_image": "role:remover"})
    (image, *_) = images()
    admin = Context(Viewer("mine", is_admin=True), frozenset({"admin"}), rules=rules)
    remover = Context(Viewer("other"), frozenset({"remover"}), rules=rules)
    assert not policy.allows(admin, "delete_image", image)
    assert policy.allows(admin, "modify_image", image)
    assert policy.allows(remover, "delete_image", image)
    assert not policy.allows(remover, "modify_image", image)


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ({"get_image": "@"}, {"get_image"}),
        ({"metadef_admin": "role:librarian"}, {"add_metadef_tag", "modify_metadef_namespace"}),
        ({"service_api": "role:nova"}, {"fetch_image_location", "stores_info_detail"}),
        ({"context_is_admin": "role:root"}, set(RULES)),
    ],
)
def test_what_refers_to_a_changed_rule_is_changed(said: dict[str, str], changed: set[str]) -> None:
    rules = Enforced(said)
    assert changed <= {name for name in RULES if name in rules}
    assert changed == set(RULES) or "add_image" not in rules


def test_rules_may_compare_with_any_attribute_and_property() -> None:
    said = {
        "get_image": "'debian':%(os_distro)s and user_id:%(uploader)s and 'raw':%(disk_format)s",
        "modify_image": "'True':%(protected)s",
        "delete_image": "'mine':%(no_such)s or None:%(name)s",
    }
    rules = Enforced(said)
    caller = Context(Viewer("mine"), user_id="u", rules=rules)
    image = Image(
        id="00000000-0000-0000-0000-000000000000",
        disk_format="raw",
        protected=True,
        properties={"os_distro": "debian", "uploader": "u"},
        created_at=NOW,
        updated_at=NOW,
    )
    assert policy.allows(caller, "get_image", image)
    assert policy.allows(caller, "modify_image", image)
    assert not policy.allows(caller, "delete_image", image)  # None is no value


def test_the_roles_of_a_service_are_not_the_callers() -> None:
    rules = Enforced({"some": "role:nova"})
    caller = Context(Viewer("mine"), frozenset(), frozenset({"nova"}), rules=rules)
    assert not rules.allow(caller, "some", {})


def test_an_unknown_rule_lets_nobody_pass() -> None:
    caller = Context(Viewer("mine", is_admin=True), frozenset({"admin"}))
    assert not Enforced({"default": "@"}).allow(caller, "no_such_rule", {})
