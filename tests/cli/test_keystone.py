"""The command with a real Keystone and a service that asks it, told as OpenStack's clients are."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace import errors
from headrace.client import Images
from headrace.client.clouds import chosen, connect, keystone_of
from tests import certificates, relay
from tests.cli.conftest import Outcome, run
from tests.cli.terminal import on_terminal
from tests.cli.test_start import SERVER_HALF, loaded
from tests.cli.test_system_calls import MIB, OVERHEAD, SIZE, copied
from tests.needs import require_strace
from tools import strace
from tools.keystone import PASSWORD, REGION, Keystone
from tools.serving import Serving, serving

pytestmark = pytest.mark.slow

Words = dict[str, str]


@pytest.fixture(scope="module")
def guarded(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("guarded"), env=keystone.env()) as running:
        keystone.register(running.url)
        yield running


@pytest.fixture
def member(keystone: Keystone, guarded: Serving) -> Words:
    """What a member of the project ``demo`` has in the environment."""
    return {
        "OS_AUTH_URL": keystone.url,
        "OS_USERNAME": "member",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "demo",
    }


@pytest.fixture
def clouds(keystone: Keystone, guarded: Serving, tmp_path: Path) -> Callable[[Any], Words]:
    """``clouds({name: entry, …})``: the environment of who has that clouds.yaml."""

    def write(entries: Any) -> Words:
        path = tmp_path / "clouds.yaml"
        path.write_text(json.dumps({"clouds": entries}))
        return {"OS_CLIENT_CONFIG_FILE": str(path)}

    return write


def by_password(keystone: Keystone, **more: str) -> dict[str, str]:
    return {
        "auth_url": keystone.url,
        "username": "member",
        "password": PASSWORD,
        "project_name": "demo",
        **more,
    }


@pytest.fixture
def credential(keystone: Keystone) -> Iterator[tuple[str, str]]:
    """The id and the secret of an application credential of member's."""
    token = keystone.token("member")
    path = f"/users/{keystone.ids['member:user']}/application_credentials"
    asked = {"application_credential": {"name": f"of-{os.getpid()}"}}
    status, _, made = keystone.request("POST", path, asked, token)
    assert status == 201, made
    found = made["application_credential"]
    yield found["id"], found["secret"]
    keystone.request("DELETE", f"{path}/{found['id']}", token=keystone.token("member"))


def check_listed(done: Outcome, image: str) -> None:
    assert done.status == 0, done.err
    assert image in done.out


@pytest.fixture
def image(member: Words) -> str:
    return run("add", "name=kept", "disk_format=raw", stdin=b"data" * 1000, env=member).image_id


def test_a_password_by_the_environment(member: Words, keystone: Keystone, image: str) -> None:
    shown = json.loads(run("--json", "show", image, env=member).out)
    assert shown["owner"] == keystone.ids["demo"]
    done = run("download", image, env=member)
    assert (done.status, done.out) == (0, "data" * 1000), done.err
    check_listed(run("index", env=member | {"OS_AUTH_URL": keystone.url[:-3]}), image)
    check_listed(run("index", env=member | {"OS_INTERFACE": "internal"}), image)
    check_listed(run("index", env=member | {"OS_REGION_NAME": REGION}), image)


def test_a_password_is_asked_for_at_a_terminal(member: Words, image: str) -> None:
    env = {name: value for name, value in member.items() if name != "OS_PASSWORD"}
    status, text = on_terminal(
        ["index"], env, asked=[(b"Password of member: ", PASSWORD.encode() + b"\n")]
    )
    assert (status, image in text, PASSWORD in text) == (0, True, False), text
    done = run("index", env=env)
    assert (done.status, "no password for member" in done.err) == (2, True)


def test_a_token_is_taken_for_another_of_its_project(
    member: Words, keystone: Keystone, image: str
) -> None:
    token = keystone.token("member")
    env = {"OS_TOKEN": token, "OS_AUTH_URL": keystone.url, "OS_PROJECT_NAME": "demo"}
    check_listed(run("index", env=env), image)
    other = run("index", env=env | {"OS_PROJECT_NAME": "other"})
    assert (other.status, image in other.out) == (0, False)


def test_an_application_credential(
    member: Words, keystone: Keystone, image: str, credential: tuple[str, str], clouds: Any
) -> None:
    found, secret = credential
    env = {
        "OS_AUTH_URL": keystone.url,
        "OS_APPLICATION_CREDENTIAL_ID": found,
        "OS_APPLICATION_CREDENTIAL_SECRET": secret,
    }
    check_listed(run("index", env=env | {"OS_PROJECT_NAME": "demo"}), image)
    auth = {"auth_url": keystone.url, "application_credential_id": found}
    auth["application_credential_secret"] = secret
    env = clouds({"app": {"auth_type": "v3applicationcredential", "auth": auth}})
    check_listed(run("--os-cloud", "app", "index", env=env), image)


def test_a_cloud_by_its_name(member: Words, keystone: Keystone, image: str, clouds: Any) -> None:
    env = clouds(
        {
            "demo": {"auth": by_password(keystone), "region_name": REGION},
            "other": {"auth": by_password(keystone, project_name="other")},
        }
    )
    check_listed(run("--os-cloud", "demo", "index", env=env), image)
    check_listed(run("index", "--os-cloud", "demo", env=env | {"OS_CLOUD": "other"}), image)
    other = run("index", env=env | {"OS_CLOUD": "other"})
    assert (other.status, image in other.out) == (0, False)
    # Nor is the service's place another when the cloud is named on the line.
    elsewhere = env | {"HEADRACE_URL": "http://127.0.0.1:1", "OS_USERNAME": "nobody"}
    check_listed(run("--os-cloud", "demo", "index", env=elsewhere), image)
    assert run("index", env=elsewhere | {"OS_CLOUD": "demo"}).status == 1


def test_the_place_may_be_said(member: Words, guarded: Serving, image: str, clouds: Any) -> None:
    nowhere = member | {"OS_REGION_NAME": "nowhere"}
    check_listed(run("-U", guarded.url, "index", env=nowhere), image)
    check_listed(run("index", env=nowhere | {"OS_ENDPOINT": guarded.url}), image)
    check_listed(run("index", env=nowhere | {"HEADRACE_URL": guarded.url}), image)


def test_what_is_on_the_line_leaves_no_question_to_keystone(
    member: Words, keystone: Keystone, guarded: Serving, image: str
) -> None:
    away = member | {"OS_AUTH_URL": "http://127.0.0.1:1/v3"}
    token = keystone.token("member")
    check_listed(run("-U", guarded.url, "--token", token, "index", env=away), image)
    nobody = run("-U", guarded.url, "--os-auth-type", "none", "index", env=away)
    assert (nobody.status, "[access.unauthenticated]" in nobody.err) == (1, True)
    for words in (["--os-cloud", "x", "--token", token], ["--token", token, "--user", "ann"]):
        both = run(*words, "index")
        assert (both.status, "already says who calls" in both.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ({"OS_PASSWORD": "s3cret wrong"}, 1, "gives no token"),
        ({"OS_PROJECT_NAME": "nothing"}, 1, "gives no token"),
        ({"OS_PROJECT_NAME": ""}, 2, "say which, by OS_PROJECT_NAME"),
        ({"OS_REGION_NAME": "nowhere"}, 1, "has no public image service in region nowhere"),
        ({"OS_AUTH_URL": "http://127.0.0.1:1/v3"}, 1, "cannot reach http://127.0.0.1:1/v3: Connec"),
        ({"OS_AUTH_TYPE": "v3nothing"}, 2, "v3nothing"),
        ({"OS_AUTH_TYPE": "password", "OS_AUTH_URL": ""}, 2, "OS_AUTH_URL"),
        ({"OS_CLOUD": "nothing"}, 2, "cloud 'nothing'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    member: Words, clouds: Any, words: Words, status: int, said: str
) -> None:
    done = run("-d", "index", env=member | clouds({}) | words)
    assert (done.status, said in done.err) == (status, True), done.err
    assert done.err.splitlines()[-1].startswith("headrace: ")
    assert "Traceback" not in done.err
    assert "s3cret" not in done.err


def test_no_secret_is_shown(member: Words, keystone: Keystone, image: str) -> None:
    """Not by -d, and not in what others see of a process."""
    done = run("-d", "download", image, "--file", "/dev/null", env=member)
    assert done.status == 0, done.err
    assert "X-Auth-Token: ***" in done.err
    assert PASSWORD not in done.err
    assert "gAAAA" not in done.err  # as every token of Fernet's begins
    assert f"Keystone's at {keystone.url}" in done.err


def test_names_of_clouds_are_completed(clouds: Any) -> None:
    env = clouds({"mine": {}, "minor": {}, "yours": {}})
    line = {"COMP_LINE": "headrace --os-cloud mi", "_HEADRACE_COMPLETE": "bash_complete"}
    assert run(env=env | line).out.split() == ["plain,mine", "plain,minor"]


def test_a_catalog_costs_a_command_no_more_than_keystoneauth(member: Words) -> None:
    found = loaded("index", env=member)
    assert "keystoneauth1" in found
    assert not found & (SERVER_HALF - {"oslo_utils"})


# Ends of tokens


def test_a_token_revoked_in_the_middle_is_renewed(
    member: Words, keystone: Keystone, tmp_path: Path
) -> None:
    """By a request and by a download; the service caches nothing of tokens."""
    data = os.urandom(4 * MIB)
    (tmp_path / "file").write_bytes(data)
    with serving(tmp_path / "asking", env=keystone.env(token_cache_time=-1)) as strict:
        cloud = chosen(member | {"OS_ENDPOINT": strict.url})
        source = keystone_of(cloud)
        with connect(cloud, keystone=source) as connection:
            shown = []

            def revoke() -> None:
                shown.append(source.token())
                keystone.revoke(shown[-1])

            images = Images(connection)
            record = images.create(name="x", disk_format="raw", container_format="bare")
            # An upload is in tests/client/test_tokens.py: a Keystone that takes its time would have
            # it begin, as every service does that answers after a second.
            assert images.upload(str(record["id"]), tmp_path / "file").how == "sendfile"
            revoke()
            record = images.show(str(record["id"]))
            revoke()
            done = images.download(record, tmp_path / "target")
            assert (done.moved.how, done.verified) == ("splice", "sha512")
            assert len({*shown, source.token()}) == 3
    assert (tmp_path / "target").read_bytes() == data


def test_a_credential_that_is_gone_meanwhile_is_said(
    member: Words, keystone: Keystone, credential: tuple[str, str], tmp_path: Path
) -> None:
    found, secret = credential
    with serving(tmp_path / "asking", env=keystone.env(token_cache_time=-1)) as strict:
        words = {
            "OS_AUTH_URL": keystone.url,
            "OS_ENDPOINT": strict.url,
            "OS_APPLICATION_CREDENTIAL_ID": found,
            "OS_APPLICATION_CREDENTIAL_SECRET": secret,
        }
        with connect(chosen(words)) as connection:
            images = Images(connection)
            list(images.list())
            path = f"/users/{keystone.ids['member:user']}/application_credentials/{found}"
            keystone.request("DELETE", path, token=keystone.token("member"))
            with pytest.raises(errors.LoginRefused) as raised:
                list(images.list())
            assert secret not in str(raised.value)


# Bytes


@pytest.mark.parametrize("way", ["path", "pipe"])
def test_with_a_token_a_body_is_still_not_copied(member: Words, tmp_path: Path, way: str) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "image").write_bytes(data)
    prefix, back = tmp_path / "up", tmp_path / "down"
    words = ["add", "disk_format=raw"] + ([f"path={tmp_path / 'image'}"] if way == "path" else [])
    under = strace.command(require_strace(), prefix)
    added = run(*words, stdin=None if way == "path" else data, env=member, under=under)
    assert added.status == 0, added.err
    carried = strace.on_sockets(prefix)
    assert carried.bytes["sendfile" if way == "path" else "splice"] >= SIZE - 64 * 1024
    assert copied(carried) <= OVERHEAD
    under = strace.command(require_strace(), back)
    target = tmp_path / "target"
    done = run("download", added.image_id, "--file", target, env=member, under=under)
    assert done.status == 0, done.err
    assert target.read_bytes() == data
    carried = strace.on_sockets(back)
    assert carried.bytes["splice"] >= SIZE - 16 * 1024
    assert copied(carried) <= OVERHEAD


# TLS


def test_certificates_are_verified(
    member: Words, keystone: Keystone, guarded: Serving, image: str, tmp_path: Path
) -> None:
    certificate = certificates.make(tmp_path / "both.pem")
    with (
        relay.encrypted(keystone.port, certificate) as identity,
        relay.encrypted(guarded.port, certificate) as service,
    ):
        env = member | {"OS_AUTH_URL": identity}
        refused = run("-U", service, "index", env=env)
        assert (refused.status, "certificate is not trusted" in refused.err) == (1, True)
        known = env | {"OS_CACERT": str(certificate)}
        check_listed(run("-U", service, "index", env=known), image)
        check_listed(run("-U", service, "--cafile", certificate, "index", env=env), image)
        missing = run("-U", service, "index", env=env | {"OS_CACERT": "/nowhere.pem"})
        assert (missing.status, "/nowhere.pem" in missing.err) == (1, True), missing.err
        careless = run("-k", "-U", service, "index", env=env)
        check_listed(careless, image)
        assert "certificates are not verified" in careless.err
        assert careless.err.count("\n") == 1
        # The catalog has the service without TLS: a token is not sent there unasked.
        done = run("index", env=known)
        assert (done.status, "everybody on the way" in done.err) == (2, True)
        check_listed(run("index", env=known | {"OS_ENDPOINT": guarded.url}), image)
