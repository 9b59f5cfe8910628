"""What chooses Keystone, and what it needs to be told."""

import subprocess
import sys
from pathlib import Path

import pytest

from headrace import config, errors, foreign, keystone_settings
from headrace.api import app

AUTHTOKEN = """\
[keystone_authtoken]
auth_type = password
auth_url = http://id.example/v3
www_authenticate_uri = http://id.example
username = headrace
password = s3cret
project_name = service
user_domain_id = default
project_domain_id = default
memcached_servers = a.example:11211, b.example:11211
service_token_roles = service, other
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "glance-api.conf"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("chosen", "strategy"),
    [
        ("[headrace]\nauth_strategy = keystone", "keystone"),
        ("[paste_deploy]\nflavor = keystone", "keystone"),
        ("[paste_deploy]\nflavor = keystone+cachemanagement", "keystone"),
        ("[paste_deploy]\nflavor = keystone\n[headrace]\nauth_strategy = none", "none"),
        ("[paste_deploy]\nflavor = caching", "none"),
        ("", "none"),
    ],
)
def test_who_chooses_it(tmp_path: Path, chosen: str, strategy: str) -> None:
    conf = config.load([written(tmp_path, f"{AUTHTOKEN}{chosen}\n")])
    assert conf.headrace.auth_strategy == strategy
    told = [line for line in foreign.settings(conf) if "keystone_authtoken" in line]
    if strategy == "keystone":
        assert told == []
        assert conf.keystone_authtoken.memcached_servers == ["a.example:11211", "b.example:11211"]
        assert conf.keystone_authtoken.service_token_roles == ["service", "other"]
        assert conf.keystone_authtoken.http_connect_timeout == 30
    else:
        assert len(told) == 1
        assert "not forbidden here" in told[0]


def test_a_command_line_and_the_environment_choose_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, AUTHTOKEN)
    chosen = config.load([file], {("headrace", "auth_strategy"): "keystone"})
    assert chosen.keystone_authtoken.username == "headrace"
    monkeypatch.setenv("OS_HEADRACE__AUTH_STRATEGY", "keystone")
    monkeypatch.setenv("OS_KEYSTONE_AUTHTOKEN__PASSWORD", "another")
    assert config.load([file]).keystone_authtoken.password == "another"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "needs [keystone_authtoken] auth_type"),
        ("[keystone_authtoken]\nauth_type = no_such", "'no_such' is not known"),
        (f"{AUTHTOKEN}token_cache_time = soon", "token_cache_time"),
        (AUTHTOKEN.replace("auth_url", "#"), "auth_url"),
        (f"{AUTHTOKEN}memcache_security_strategy = MAC", "memcache_secret_key"),
    ],
)
def test_what_it_cannot_do_without(tmp_path: Path, text: str, reason: str) -> None:
    file = written(tmp_path, text)
    overrides = {
        ("headrace", "auth_strategy"): "keystone",
        ("headrace", "state_dir"): str(tmp_path),
    }
    with pytest.raises(errors.ConfigurationError) as refused:
        app.build(config.load([file], overrides))
    assert reason in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_section_of_its_own_says_who_the_service_is(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "[headrace]\nauth_strategy = keystone\n[keystone_authtoken]\nauth_section = own\n"
        "[own]\nauth_type = password\nauth_url = http://id.example/v3\n"
        "username = other\npassword = s3cret\n",
    )
    conf = config.load([file])
    assert conf.own.username == "other"
    assert list(foreign.settings(conf)) == []


def test_no_store_is_called_like_it(tmp_path: Path) -> None:
    text = "[DEFAULT]\nenabled_backends = keystone_authtoken:file\n"
    with pytest.raises(errors.ConfigurationError, match="cannot be the id of a store"):
        config.load([written(tmp_path, text)])


def test_the_global_settings_are_left_alone(tmp_path: Path) -> None:
    from oslo_config import cfg

    conf = config.load([written(tmp_path, f"{AUTHTOKEN}[headrace]\nauth_strategy = keystone\n")])
    assert conf is not cfg.CONF
    assert "username" not in cfg.CONF.keystone_authtoken


LIMITS = """\
[DEFAULT]
use_keystone_limits = true
user_storage_quota = 1
[oslo_limit]
auth_type = password
auth_url = http://id.example/v3
username = headrace
password = s3cret
system_scope = all
user_domain_id = default
endpoint_service_type = image
"""


def test_limits_of_keystone_take_the_place_of_others(tmp_path: Path) -> None:
    conf = config.load([written(tmp_path, LIMITS)])
    assert config.project_limits(conf) == {}
    assert list(foreign.settings(conf)) == []
    found = keystone_settings.limits(conf)
    assert found["password"] == "s3cret"
    assert found["endpoint_service_type"] == "image"
    assert found["timeout"] == 30


def test_limits_are_asked_for_by_who_another_section_says(tmp_path: Path) -> None:
    own = "auth_section = keystone_authtoken\nendpoint_id = e\ntimeout = 3\n"
    text = f"{AUTHTOKEN}[DEFAULT]\nuse_keystone_limits = true\n[oslo_limit]\n{own}"
    for strategy in ("", "[headrace]\nauth_strategy = keystone\n"):
        found = keystone_settings.limits(config.load([written(tmp_path, text + strategy)]))
        assert (found["auth_type"], found["username"]) == ("password", "headrace")
        assert (found["endpoint_id"], found["timeout"]) == ("e", 3)
        assert found["auth_section"] is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LIMITS.replace("auth_type", "#"), "needs [oslo_limit] auth_type"),
        (LIMITS.replace("= password", "= no_such"), "'no_such' is not known"),
        (LIMITS.replace("endpoint_service_type", "#"), "needs [oslo_limit] endpoint_id"),
        (f"{LIMITS}timeout = soon", "timeout"),
        (f"{LIMITS}[headrace]\nimage_size_total = 5", "image_size_total would limit nothing"),
    ],
)
def test_what_limits_cannot_do_without(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(errors.ConfigurationError) as refused:
        config.load([written(tmp_path, text)])
    assert reason in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_oslo_limit_is_loaded_only_where_it_is_asked(tmp_path: Path) -> None:
    without, wanted = tmp_path / "without.conf", tmp_path / "wanted.conf"
    without.write_text(f"[headrace]\nstate_dir = {tmp_path}\n")
    wanted.write_text(f"{LIMITS}[headrace]\nstate_dir = {tmp_path}\n")
    program = (
        "import sys\n"
        "from headrace import config\n"
        "from headrace.api import app\n"
        "app.build(config.load([sys.argv[1]]))\n"
        "print('oslo_limit' in sys.modules, 'openstack' in sys.modules)\n"
    )
    for file, loaded in ((without, "False False"), (wanted, "True True")):
        done = subprocess.run(
            [sys.executable, "-c", program, file], capture_output=True, text=True, check=True
        )
        assert done.stdout.split("\n")[-2] == loaded


def test_without_oslo_limit_the_start_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['oslo_limit'] = None; from headrace.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--config-file", written(tmp_path, LIMITS)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "use_keystone_limits needs headrace[keystone]" in done.stderr
