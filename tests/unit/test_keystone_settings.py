"""What chooses Keystone, and what it needs to be told."""

from pathlib import Path

import pytest

from headrace import config, errors, foreign
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
