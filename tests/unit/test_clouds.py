"""What clouds.yaml and OS_* say, and which of them is heard."""

from pathlib import Path

import pytest

from headrace.client import clouds
from headrace.client.clouds import Cloud, chosen
from headrace.errors import UsageError

KEYSTONE = {"OS_AUTH_URL": "https://keystone.example.org/v3"}
PASSWORD = {"OS_USERNAME": "ann", "OS_PASSWORD": "s3cret", "OS_PROJECT_NAME": "demo"}
FILE = """\
clouds:
  mine:
    auth:
      auth_url: https://keystone.example.org/v3
      username: ann
      password: 1234
      project_name: demo
      user_domain_name: people
    region_name: north
    interface: internal
    cacert: /etc/ca.pem
  open:
    auth_type: none
    image_endpoint_override: http://127.0.0.1:9292
    verify: false
  alone:
    auth_type: http_basic
    auth: {endpoint: "https://images.example.org", username: ann, password: s3cret}
  application:
    auth_type: v3applicationcredential
    auth:
      auth_url: https://keystone.example.org/v3
      application_credential_id: an-id
    regions: [{name: south}]
  old:
    profile: somewhere
    auth: {username: ann}
"""
SECURE = "clouds: {application: {auth: {application_credential_secret: hidden}}}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home's directory of clouds, and nothing where one works."""
    directory = tmp_path / "config" / "openstack"
    directory.mkdir(parents=True)
    (directory / "clouds.yaml").write_text(FILE)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return directory


@pytest.fixture
def environ(place: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(place.parent)}


def test_without_a_word_nobody_is_asked_and_nothing_shown() -> None:
    assert chosen({}) == Cloud(auth={"default_domain_id": "default"})
    assert chosen({"OS_USERNAME": "ann", "OS_PASSWORD": "s3cret"}).auth_type == "none"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ({"OS_TOKEN": "t"}, "admin_token"),
        (KEYSTONE | {"OS_TOKEN": "t"}, "v3token"),
        (KEYSTONE | PASSWORD, "v3password"),
        (KEYSTONE | PASSWORD | {"OS_AUTH_TYPE": "password"}, "v3password"),
        (KEYSTONE | {"OS_APPLICATION_CREDENTIAL_SECRET": "s"}, "v3applicationcredential"),
        (KEYSTONE | PASSWORD | {"OS_AUTH_TYPE": "none"}, "none"),
        (PASSWORD | {"OS_AUTH_TYPE": "http_basic"}, "http_basic"),
        (PASSWORD | {"OS_AUTH_TYPE": ""}, "none"),
    ],
)
def test_how_to_authenticate_is_guessed_as_openstacks_clients_do(
    words: dict[str, str], kind: str
) -> None:
    assert chosen(words).auth_type == kind
    assert chosen(words, auth_type="none").auth_type == "none"


def test_all_the_environment_says() -> None:
    more = {
        "OS_REGION_NAME": "north",
        "OS_INTERFACE": "internalURL",
        "OS_ENDPOINT": "https://images.example.org",
        "OS_CACERT": "ca.pem",
        "OS_CERT": "cert.pem",
        "OS_KEY": "key.pem",
        "OS_INSECURE": "true",
    }
    found = chosen(KEYSTONE | PASSWORD | more)
    assert (found.region, found.interface, found.endpoint, found.verify) == (
        "north",
        "internal",
        "https://images.example.org",
        False,
    )
    assert (found.cafile, found.certificate, found.key) == ("ca.pem", "cert.pem", "key.pem")
    assert found.auth["user_domain_id"] == found.auth["project_domain_id"] == "default"


def test_domains_that_are_said_are_not_guessed() -> None:
    named = chosen(KEYSTONE | PASSWORD | {"OS_USER_DOMAIN_NAME": "people"}).auth
    assert "user_domain_id" not in named
    default = chosen(KEYSTONE | PASSWORD | {"OS_DEFAULT_DOMAIN_NAME": "people"}).auth
    assert default["project_domain_name"] == "people"
    assert "project_domain_id" not in default
    old = chosen(KEYSTONE | {"OS_TENANT_NAME": "demo"}).auth
    assert (old["project_name"], old["project_domain_id"]) == ("demo", "default")


def test_a_cloud_of_the_file(environ: dict[str, str]) -> None:
    found = chosen(environ, "mine")
    assert found.auth_type == "v3password"
    assert (found.auth["password"], found.auth["user_domain_name"]) == ("1234", "people")
    assert (found.region, found.interface, found.cafile) == ("north", "internal", "/etc/ca.pem")
    assert found.verify
    assert chosen(environ | {"OS_CLOUD": "mine"}) == found
    assert chosen(environ | {"OS_CLOUD": "mine"}, "open").auth_type == "none"
    assert chosen(environ, "mine", "none").auth_type == "none"


def test_clouds_without_keystone(environ: dict[str, str]) -> None:
    opened, alone = chosen(environ, "open"), chosen(environ, "alone")
    assert (opened.endpoint, opened.verify) == ("http://127.0.0.1:9292", False)
    assert (alone.auth_type, alone.endpoint) == ("http_basic", "https://images.example.org")
    with clouds.connect(alone) as connection:
        assert (connection.endpoint.user, connection.endpoint.password) == ("ann", "s3cret")
    with pytest.raises(UsageError, match="OS_ENDPOINT"):
        clouds.connect(Cloud())


@pytest.mark.parametrize(
    ("said", "verify"), [("false", False), ("no", False), ("true", True), ("ture", True)]
)
def test_certificates_are_verified_unless_it_says_no(
    environ: dict[str, str], place: Path, said: str, verify: bool
) -> None:
    (place / "clouds.yaml").write_text(f"clouds: {{mine: {{verify: {said}}}}}")
    assert chosen(environ, "mine").verify is verify


def test_passwords_of_the_environment_are_not_shown_to_a_cloud_of_the_file(
    environ: dict[str, str],
) -> None:
    more = {"OS_REGION_NAME": "east", "OS_INTERFACE": "admin", "OS_ENDPOINT": "http://elsewhere"}
    found = chosen(environ | PASSWORD | more, "application")
    assert not {"username", "password"} & set(found.auth)
    assert (found.region, found.interface, found.endpoint) == ("east", "admin", None)
    assert chosen(environ | more, "mine").region == "north"


def test_secrets_lie_beside(environ: dict[str, str], place: Path) -> None:
    (place / "secure.yaml").write_text(SECURE)
    found = chosen(environ, "application")
    assert found.auth["application_credential_secret"] == "hidden"
    assert found.auth["application_credential_id"] == "an-id"
    assert found.region == "south"


def test_a_file_lying_where_one_works_gets_no_secrets_of_another_place(
    environ: dict[str, str], place: Path
) -> None:
    """Or whoever can leave a clouds.yaml there would have them sent to a host of his own."""
    (place / "secure.yaml").write_text(SECURE)
    Path("clouds.yaml").write_text(FILE.replace("keystone.example.org", "evil.example.org"))
    found = chosen(environ, "application")
    assert found.auth["auth_url"] == "https://evil.example.org/v3"
    assert "application_credential_secret" not in found.auth


def test_files_that_are_named_come_first(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"clouds": {"other": {"auth": {"auth_url": "http://k"}}}}')
    (tmp_path / "secrets").write_text("clouds: {other: {auth: {token: hidden}}}")
    named = environ | {
        "OS_CLIENT_CONFIG_FILE": str(tmp_path / "other"),
        "OS_CLIENT_SECURE_FILE": str(tmp_path / "secrets"),
    }
    assert clouds.names(named) == ["other"]
    assert chosen(named, "other").auth["token"] == "hidden"
    assert clouds.names(environ) == ["alone", "application", "mine", "old", "open"]


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (FILE, "yours", "has no cloud 'yours'"),
        (FILE, "old", "leaves its auth_url to a profile"),
        ("clouds: {mine: {auth: [1]}}", "mine", "names and values"),
        ("clouds: [mine]", "mine", "has no 'clouds'"),
        ("[]", "mine", "has no 'clouds'"),
        ("", "mine", "has no 'clouds'"),
        ("clouds:\n  mine: {password: 's3cret", "mine", "not YAML, line"),
        ("\0", "mine", "not YAML"),
    ],
)
def test_what_a_file_cannot_mean_is_said_without_its_secrets(
    environ: dict[str, str], place: Path, text: str, name: str, said: str
) -> None:
    (place / "clouds.yaml").write_text(text)
    with pytest.raises(UsageError, match=said) as raised:
        chosen(environ, name)
    assert "s3cret" not in str(raised.value)


def test_without_a_file_it_is_said_where_one_is_sought(
    environ: dict[str, str], place: Path
) -> None:
    (place / "clouds.yaml").unlink()
    with pytest.raises(UsageError, match="/etc/openstack"):
        chosen(environ, "mine")


def test_a_cloud_does_not_show_its_secrets() -> None:
    assert "s3cret" not in repr(chosen(KEYSTONE | PASSWORD))
