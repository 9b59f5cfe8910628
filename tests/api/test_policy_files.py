"""Policy files: what they change, that their changes are seen and their mistakes refused."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from falcon import testing

from headrace import config, errors
from headrace.api import app
from headrace.api.policy import Policies
from headrace.api.rules import RULES
from tests.api.personas import PATCH, Caller, believe, new_image, new_namespace, patch, settings

Settings = dict[tuple[str, str], object]


@contextmanager
def serving(directory: Path, more: Settings | None = None) -> Iterator[tuple[Caller, Policies]]:
    application = app.build(config.load([], settings(directory) | (more or {})), believe)
    try:
        yield Caller(application), application.policies
    finally:
        application.close()


def write(directory: Path, rules: dict[str, str], name: str = "policy.yaml") -> Path:
    """Put rules where a service without a configuration file looks for them."""
    path = directory / "state" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(rules))
    return path


def seen(policies: Policies) -> None:
    """Twice, since what is still being written is left alone."""
    policies.look()
    policies.look()


def test_the_word_of_a_file_is_the_only_one(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "delete_image": "role:nobody_has_this",
            "publicize_image": "rule:publisher",
            "publisher": "role:member and project_id:mine",
            "get_image": "role:reader and not 'secret':%(classified)s",
        },
    )
    with serving(tmp_path) as (caller, _):
        image_id = new_image(caller, "shared", "active")
        path = f"/v2/images/{image_id}"
        assert caller.ask("admin", "DELETE", path).status == 403
        assert caller.ask("member", "DELETE", path).status == 403
        publish = patch(visibility="public")
        assert caller.ask("admin", "PATCH", path, publish, PATCH).status == 403
        assert caller.ask("member", "PATCH", path, publish, PATCH).status == 200
        assert caller.ask("member", "PATCH", path, patch(classified="secret"), PATCH).status == 200
        for persona in ("member", "stranger", "admin"):
            assert caller.ask(persona, "GET", path).status == 404
            assert caller.ask(persona, "GET", "/v2/images").json["images"] == []
        # What may not be shown may not be asked about either, whatever is refused.
        assert caller.ask("member", "DELETE", path).status == 404
        assert caller.ask("member", "GET", f"{path}/file").status == 200  # has a rule of its own


def test_a_rule_about_downloads_holds_for_whoever_sends_the_data(tmp_path: Path) -> None:
    """OSSA-2013-027 (CVE-2013-4428): the header that has nginx send a file is an answer, too."""
    behind_nginx: Settings = {("headrace", "delivery"): "x-accel-redirect"}
    with serving(tmp_path, behind_nginx) as (caller, policies):
        path = f"/v2/images/{new_image(caller, 'public', 'active')}/file"
        allowed = caller.ask("member", "GET", path)
        assert (allowed.status, "x-accel-redirect" in allowed.headers) == (200, True)
        write(tmp_path, {"download_image": "role:nobody"})
        seen(policies)
        for persona in ("member", "admin", "stranger", "anonymous"):
            refused = caller.ask(persona, "GET", path)
            assert refused.status in (403, 404)
            assert "x-accel-redirect" not in refused.headers


def test_a_page_that_rules_have_thinned_out_leads_on(tmp_path: Path) -> None:
    with serving(tmp_path) as (caller, policies):
        for number in range(6):
            new_image(caller, "public", "queued", hidden=str(number % 2))
        write(tmp_path, {"get_image": "'1':%(hidden)s"})
        seen(policies)
        found, path = [], "/v2/images?limit=1"
        while path:
            page = caller.ask("stranger", "GET", path).json
            found += page["images"]
            path = page.get("next")
        assert [each["hidden"] for each in found] == ["1"] * 3


def test_namespaces_that_rules_hide_leave_no_gaps(tmp_path: Path) -> None:
    write(tmp_path, {"get_metadef_namespace": "'public':%(visibility)s"})
    with serving(tmp_path) as (caller, _):
        for number in range(6):
            visibility = "private" if number % 3 else "public"
            made = {"namespace": f"N{number}", "visibility": visibility}
            caller.must("POST", "/v2/metadefs/namespaces", made)
        found, path = [], "/v2/metadefs/namespaces?limit=1"
        while path:
            page = caller.ask("admin", "GET", path).json
            found += [each["namespace"] for each in page["namespaces"]]
            path = page.get("next")
        assert found == ["N3", "N0"]
        assert caller.ask("admin", "GET", "/v2/metadefs/namespaces/N1").status == 404


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("get_metadef_objects", "/objects"),
        ("get_metadef_object", "/objects/o"),
        ("get_metadef_properties", "/properties"),
        ("get_metadef_property", "/properties/p"),
        ("get_metadef_tags", "/tags"),
        ("get_metadef_tag", "/tags/t"),
        ("get_metadef_resource_type", "/resource_types"),
    ],
)
def test_what_is_in_a_namespace_is_read_by_rules_of_its_own(
    tmp_path: Path, rule: str, path: str
) -> None:
    with serving(tmp_path) as (caller, policies):
        namespace = f"/v2/metadefs/namespaces/{new_namespace(caller, 'public')}"
        assert caller.ask("reader", "GET", namespace + path).status == 200
        write(tmp_path, {rule: "role:librarian"})
        seen(policies)
        assert caller.ask("reader", "GET", namespace + path).status == 403
        assert caller.ask("reader", "GET", namespace).status == 200
        assert caller.ask("anonymous", "GET", namespace + path).status == 404


def test_who_is_an_administrator_is_a_rule(tmp_path: Path) -> None:
    write(tmp_path, {"context_is_admin": "role:service"})
    with serving(tmp_path) as (caller, _):
        made = caller.ask("service", "POST", "/v2/images", {"visibility": "public"})
        assert made.status == 201
        path = f"/v2/images/{made.json['id']}"
        assert caller.ask("admin", "DELETE", path).status == 403
        assert caller.ask("admin", "GET", "/v2/tasks").status == 403
        assert caller.ask("service", "GET", "/v2/tasks").status == 200
        assert caller.ask("service", "DELETE", path).status == 204


def test_without_a_file_nothing_is_asked(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, policies):
        assert policies.rules is None


def test_old_defaults(tmp_path: Path) -> None:
    with serving(tmp_path, {("oslo_policy", "enforce_new_defaults"): False}) as (caller, _):
        image_id = new_image(caller, "public", "active")
        path = f"/v2/images/{image_id}"
        assert caller.ask("roleless", "GET", path).status == 200
        assert caller.ask("roleless", "PATCH", path, patch(name="new"), PATCH).status == 200
        assert caller.ask("anonymous", "GET", "/v2/images").status == 200
        for persona in ("anonymous", "stranger", "accepted", "service"):
            assert caller.ask(persona, "GET", f"{path}/file").status == 200
            for method, where in (("DELETE", path), ("POST", f"{path}/actions/deactivate")):
                assert caller.ask(persona, method, where).status == 403
            assert caller.ask(persona, "PATCH", path, patch(name="x"), PATCH).status == 403
        assert caller.ask("roleless", "DELETE", path).status == 204


# --- property protections

PROTECTIONS = """
[^billing_]
create = {billing}
read = {billing}
update = {billing}
delete = !
[.*]
create = @
read = @
update = @
delete = @
"""


@pytest.mark.parametrize("form", ["roles", "policies"])
def test_protected_properties_are_shown_and_taken_as_the_file_says(
    tmp_path: Path, form: str
) -> None:
    file = tmp_path / "protections.conf"
    file.write_text(PROTECTIONS.format(billing="admin" if form == "roles" else "accounting"))
    write(tmp_path, {"accounting": "role:admin"})
    protected: Settings = {
        ("DEFAULT", "property_protection_file"): str(file),
        ("DEFAULT", "property_protection_rule_format"): form,
    }
    with serving(tmp_path, protected) as (caller, _):
        image_id = new_image(caller, "public", "active", billing_code="7", os_distro="debian")
        path = f"/v2/images/{image_id}"
        assert caller.ask("admin", "GET", path).json["billing_code"] == "7"
        for persona in ("member", "stranger"):
            shown = caller.ask(persona, "GET", path).json
            assert shown["os_distro"] == "debian"
            assert "billing_code" not in shown
            listed = "/v2/images?os_distro=debian"
            (shown,) = caller.ask(persona, "GET", listed).json["images"]
            assert "billing_code" not in shown
            for value in ("7", "8"):
                found = caller.ask(persona, "GET", f"{listed}&billing_code={value}")
                assert (found.status, found.json["images"]) == (200, [])
        refused = caller.ask("member", "PATCH", path, patch(billing_code="8"), PATCH)
        assert (refused.status, refused.code) == (403, "image.property_protected")
        refused = caller.ask("member", "POST", "/v2/images", {"billing_code": "8"})
        assert (refused.status, refused.code) == (403, "image.property_protected")
        remove = [{"op": "remove", "path": "/billing_code"}]
        assert caller.ask("member", "PATCH", path, remove, PATCH).status == 409
        assert caller.ask("admin", "PATCH", path, remove, PATCH).status == 403
        assert caller.ask("admin", "PATCH", path, patch(billing_code="8"), PATCH).status == 200
        # No schema knows what an image has of its own.
        schemas = [caller.ask(who, "GET", "/v2/schemas/image").json for who in ("admin", "member")]
        assert schemas[0] == schemas[1]
        assert {"os_distro", "billing_code"} & schemas[0]["properties"].keys() == {"os_distro"}


def test_locations_are_changed_without_what_is_not_seen_being_lost(tmp_path: Path) -> None:
    file = tmp_path / "protections.conf"
    file.write_text(PROTECTIONS.format(billing="admin"))
    with serving(tmp_path, {("DEFAULT", "property_protection_file"): str(file)}) as (caller, _):
        image_id = new_image(caller, "private", "active", billing_code="7")
        path = f"/v2/images/{image_id}"
        (location,) = caller.ask("member", "GET", path).json["locations"]
        location["metadata"]["x"] = "y"
        change = [{"op": "replace", "path": "/locations", "value": [location]}]
        changed = caller.ask("member", "PATCH", path, change, PATCH)
        assert changed.status == 200
        assert changed.json["locations"] == [location]
        assert "billing_code" not in changed.json
        assert caller.ask("admin", "GET", path).json["billing_code"] == "7"


def test_whoever_needs_no_authentication_has_every_role(tmp_path: Path) -> None:
    file = tmp_path / "protections.conf"
    file.write_text(PROTECTIONS.format(billing="member"))
    write(tmp_path, {"get_images": "role:reader and role:admin"})
    conf = config.load([], settings(tmp_path) | {("DEFAULT", "property_protection_file"): file})
    application = app.build(conf)
    client = testing.TestClient(application)
    here: dict[str, Any] = {"host": "localhost", "remote_addr": "127.0.0.1"}
    try:
        made = client.simulate_post("/v2/images", json={"billing_code": "7"}, **here)
        assert made.json["billing_code"] == "7"
        assert len(client.simulate_get("/v2/images", **here).json["images"]) == 1
    finally:
        application.close()


@pytest.mark.parametrize("rule", ["nowhere", "role:admin"])
def test_protections_by_rules_that_there_are_not_are_refused(tmp_path: Path, rule: str) -> None:
    file = tmp_path / "protections.conf"
    file.write_text(PROTECTIONS.format(billing=rule))
    protected: Settings = {
        ("DEFAULT", "property_protection_file"): str(file),
        ("DEFAULT", "property_protection_rule_format"): "policies",
    }
    with (
        pytest.raises(errors.ConfigurationError, match="which the policy has not"),
        serving(tmp_path, protected),
    ):
        raise AssertionError("it started")


def test_a_service_does_not_start_without_its_protections(tmp_path: Path) -> None:
    missing: Settings = {("DEFAULT", "property_protection_file"): str(tmp_path / "none.conf")}
    with (
        pytest.raises(errors.ConfigurationError, match=r"none\.conf"),
        serving(tmp_path, missing),
    ):
        raise AssertionError("it started")


# --- found, and read again


def test_files_of_directories_win_in_their_order(tmp_path: Path) -> None:
    write(tmp_path, {"delete_image": "!", "add_image": "!", "modify_image": "!"})
    write(tmp_path, {"add_image": "@", "modify_image": "!"}, "policy.d/1.yaml")
    write(tmp_path, {"modify_image": "@"}, "policy.d/2.yaml")
    write(tmp_path, {"delete_image": "@"}, "policy.d/.hidden.yaml")
    policies = app.policies(config.load([], settings(tmp_path)))
    assert policies.rules is not None
    found = {name: policies.rules.texts[name] for name in ("delete_image", "add_image")}
    assert found == {"delete_image": "!", "add_image": "@"}
    assert policies.rules.texts["modify_image"] == "@"
    assert policies.sources["modify_image"].name == "2.yaml"


def test_a_relative_path_counts_from_the_configuration_file(tmp_path: Path) -> None:
    conf = tmp_path / "etc" / "glance-api.conf"
    conf.parent.mkdir()
    conf.write_text("[oslo_policy]\npolicy_file = rules.yaml\n")
    (conf.parent / "rules.yaml").write_text("delete_image: '!'\n")
    policies = app.policies(config.load([conf], settings(tmp_path)))
    assert policies.sources == {"delete_image": conf.parent / "rules.yaml"}


def test_json_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"delete_image": "!"}')
    assert Policies(tmp_path / "policy.json").rules is not None


def test_a_change_is_seen_once_it_rests(tmp_path: Path) -> None:
    with serving(tmp_path) as (caller, policies):
        image_id = new_image(caller, "public", "active")
        path = f"/v2/images/{image_id}"
        assert caller.ask("stranger", "GET", path).status == 200
        write(tmp_path, {"get_image": "role:admin"})
        policies.look()
        assert caller.ask("stranger", "GET", path).status == 200  # it may still be written
        policies.look()
        assert caller.ask("stranger", "GET", path).status == 404
        write(tmp_path, {"get_image": "@"})
        seen(policies)
        assert caller.ask("stranger", "GET", path).status == 200


def test_files_are_looked_after_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.api.policy._LOOK_AGAIN", 0.01)
    with serving(tmp_path) as (caller, policies):
        assert caller.ask("member", "GET", "/v2/images").status == 200
        write(tmp_path, {"get_images": "!"})
        for _ in range(3000):
            if policies.rules is not None:
                break
            time.sleep(0.01)
        assert caller.ask("member", "GET", "/v2/images").status == 403


@pytest.mark.parametrize("content", ["delete_image: role", "[", "delete_image: ''\nx: [1]", None])
def test_a_file_that_breaks_leaves_the_rules_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    """Fail closed: what was forbidden stays so, and one line says why."""
    path = write(tmp_path, {"delete_image": "!"})
    with serving(tmp_path) as (caller, policies):
        image_id = new_image(caller, "public", "active")
        caplog.clear()
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        for _ in range(3):
            seen(policies)
        assert caller.ask("admin", "DELETE", f"/v2/images/{image_id}").status == 403
        (line,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert "the policy stays as it was" in line.getMessage()
        assert "policy.yaml" in line.getMessage() or "delete_image" in line.getMessage()
        path.write_text("delete_image: '@'")
        seen(policies)
        assert caller.ask("stranger", "DELETE", f"/v2/images/{image_id}").status == 204


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "policy file"),
        ("- get_image", "holds no rules"),
        ("get_image:", "is no text"),
        ("get_image: [[role:a]]", "is no text"),
        ("1: '@'", "is no text"),
        ("get_image: role", "not understood"),
        ("get_image: 'role:a and'", "not understood"),
        ("get_image: 'role:a or (junk'", "not understood"),
        ("get_image: 'role:x or %(name:y'", "not understood"),
        ("get_image: 'role:x or name:%(name'", "not understood"),
        ("get_image: 'role:x or class:y'", "not understood"),
        ('get_image: "role:x or \'a:%(name)s"', "not understood"),
        ("get_image: 'role:x and size:%(size)d'", "not understood"),
        ("get_image: rule:mine", "refers to mine, which is no rule"),
        ("a: rule:b\nb: rule:a", "in a circle"),
        ("get_image: http://127.0.0.1/ask", "asks another service"),
    ],
)
def test_a_service_does_not_start_with_rules_that_it_does_not_understand(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(content)
    with pytest.raises(errors.ConfigurationError, match=words):
        Policies(path)


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    named = {("oslo_policy", "policy_file"): str(tmp_path / "own.yaml")}
    with pytest.raises(errors.ConfigurationError, match="is not there"):
        app.policies(config.load([], settings(tmp_path) | named))
    assert app.policies(config.load([], settings(tmp_path))).rules is None


def test_a_file_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.mkdir()
    with pytest.raises(errors.ConfigurationError, match="Is a directory"):
        Policies(path)


def test_rules_that_nobody_asks_for_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("get_imges: '!'\nown: role:a\nget_image: rule:own\nmodify_image: '@'")
    Policies(path)
    (line,) = caplog.messages
    assert line == "policy: nothing asks for rule get_imges, and no rule refers to it"


def test_all_rules_have_a_meaning() -> None:
    assert len(RULES) == 67
    assert all(rule.meaning for rule in RULES.values())
