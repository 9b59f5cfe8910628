"""Stores of type swift in the settings, as a Glance has them."""

from pathlib import Path

import pytest

from headrace import config, errors, swift_settings
from headrace.api import backends

SECRET = "s3cret-of-Swift"
STORE = """
[DEFAULT]
enabled_backends = cold:swift, near:file
[glance_store]
default_backend = cold
[near]
filesystem_store_datadir = /srv/near
[cold]
"""
ONE = f"""
swift_store_auth_address = http://swift.example.org/auth/v1.0
swift_store_user = glance:headrace
swift_store_key = {SECRET}
"""
FILE = f"""
[main]
auth_address = "https://keystone.example.org/v3"
user = service:glance
key = '{SECRET}'
user_domain_name = Default
[other]
auth_version = v2.0
auth_address = https://old.example.org/v2.0
user = service:glance
key = {SECRET}
[credential]
auth_address = https://keystone.example.org/v3
application_credential_id = abc
application_credential_secret = {SECRET}
project_domain_id = d
"""


def load(tmp_path: Path, text: str) -> config.cfg.ConfigOpts:
    file = tmp_path / "glance-api.conf"
    file.write_text(STORE + text + f"\n[headrace]\nstate_dir = {tmp_path}\n")
    return config.load([file])


def with_file(tmp_path: Path, text: str, default: str = "main") -> config.cfg.ConfigOpts:
    path = tmp_path / "swift.conf"
    path.write_text(text)
    return load(
        tmp_path, f"swift_store_config_file = {path}\ndefault_swift_reference = {default}\n"
    )


def test_who_logs_in_may_be_said_by_the_store_itself(tmp_path: Path) -> None:
    conf = load(tmp_path, ONE + "swift_store_auth_version = 1")
    found = swift_settings.references(conf, "cold")
    assert found.keys() == {"ref1"}
    assert found["ref1"] == {
        "address": "http://swift.example.org/auth/v1.0",
        "user": "glance:headrace",
        "key": SECRET,
        "version": "1",
        "user_domain_id": "default",
        "user_domain_name": None,
        "project_domain_id": "default",
        "project_domain_name": None,
        "application_credential_id": None,
        "application_credential_secret": None,
    }


def test_who_logs_in_may_be_said_by_a_file_of_references(tmp_path: Path) -> None:
    found = swift_settings.references(with_file(tmp_path, FILE), "cold")
    assert [each["version"] for each in found.values()] == ["3", "2", "3"]
    assert [each["key"] for each in found.values()] == [SECRET, SECRET, ""]
    main, _, credential = found.values()
    assert main["address"] == "https://keystone.example.org/v3"
    assert (main["user_domain_id"], main["user_domain_name"]) == (None, "Default")
    assert (main["project_domain_id"], main["project_domain_name"]) == ("default", None)
    assert credential["application_credential_secret"] == SECRET
    assert credential["project_domain_id"] == "d"


def test_the_store_that_is_made_of_them(tmp_path: Path) -> None:
    conf = load(
        tmp_path,
        ONE + "swift_store_auth_version = 1\nswift_store_container = images\n"
        "swift_store_large_object_chunk_size = 10\n",
    )
    registry = backends.registry(conf)
    store = registry.default
    assert (store.id, store.kind, store.writable) == ("cold", "swift", True)
    assert store.properties == {
        "container": "images",
        "large_object_size": 5120,
        "large_object_chunk_size": 10,
    }
    assert config.image_dirs(conf) == ["/srv/near"]
    assert config.staging_dir(conf) == f"{tmp_path}/staging"
    assert config.file_perm(conf) == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "auth_address is no http or https URL"),
        (ONE.replace("http://", "ftp://"), "auth_address is no http or https URL"),
        (ONE.replace("swift_store_key", "#"), "user and key are not set"),
        (ONE + "swift_store_multi_tenant = true", "swift_store_multi_tenant is not supported"),
        ("swift_store_config_file = /nonexistent", "swift_store_config_file /nonexistent: No such"),
        (ONE.replace("glance:", ""), "user is no PROJECT:USER"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=reason) as refused:
        swift_settings.references(load(tmp_path, text), "cold")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "default", "reason"),
    [
        (FILE, "ref1", "default_swift_reference 'ref1' is no section of .*swift.conf"),
        (FILE.replace("user =", "#"), "main", "user and key in section main are not set"),
        (FILE + f"key = {SECRET}\n" * 2, "main", "DuplicateOptionError"),
        (f"{SECRET}\n", "main", "MissingSectionHeaderError"),
        (FILE.replace(SECRET, f"%({SECRET}"), "main", "InterpolationSyntaxError"),
    ],
)
def test_a_file_of_references_that_is_wrong_is_not_quoted(
    tmp_path: Path, text: str, default: str, reason: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match=reason) as refused:
        swift_settings.references(with_file(tmp_path, text, default), "cold")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "swift.example.org/v1/AUTH_images",
        "https:///v1/AUTH_images",
        f"https://glance:{SECRET}@swift.example.org/v1/AUTH_images",
        "https://swift.example.org; return 200",
        "https://swift.example.org/v1/AUTH_images?key=value",
    ],
)
def test_an_endpoint_is_a_url_that_can_stand_in_other_configurations(
    tmp_path: Path, url: str
) -> None:
    redirected = "swift_temp_url_key = k\n[headrace]\nstore_redirect = true\n"
    conf = load(tmp_path, f"{ONE}swift_store_endpoint = {url}\n{redirected}")
    for read in (backends.redirects, backends.registry):
        with pytest.raises(
            errors.ConfigurationError, match="swift_store_endpoint is no"
        ) as refused:
            read(conf)
        assert SECRET not in str(refused.value)


def test_nginx_is_told_of_the_endpoint_alone(tmp_path: Path) -> None:
    redirected = "swift_temp_url_key = k\n[headrace]\nstore_redirect = true\n"
    conf = load(tmp_path, f"{ONE}swift_store_endpoint = https://swift:8080/v1/A_x\n{redirected}")
    assert backends.redirects(conf) == {"https://swift:8080": ""}


def test_the_default_store_takes_data(tmp_path: Path) -> None:
    file = tmp_path / "glance-api.conf"
    file.write_text(
        "[DEFAULT]\nenabled_backends = web:http\n[glance_store]\ndefault_backend = web\n"
    )
    with pytest.raises(errors.ConfigurationError, match="takes data"):
        config.load([file])
