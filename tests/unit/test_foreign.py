"""What a Glance's files set and Headrace does not read is told, and nothing secret with it."""

from pathlib import Path

import pytest

from headrace import config, foreign
from headrace.settings import OPTIONS


def told(tmp_path: Path, text: str, name: str = "glance-api.conf") -> list[str]:
    file = tmp_path / name
    file.write_text(text)
    return list(foreign.settings(config.load([file])))


def test_what_headrace_reads_is_not_told(tmp_path: Path) -> None:
    settings = [
        f"[{group}]\n" + "".join(f"{option.name} = {option.default}\n" for option in options)
        for group, options in OPTIONS.items()
        for options in [[each for each in options if each.default is not None]]
    ]
    assert told(tmp_path, "".join(settings).replace("= []", "=").replace("= {}", "=")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[DEFAULT]\nno_such = s3cret", "[DEFAULT] no_such is an option that Headrace does not"),
        ("[database]\nmax-retries = s3cret", "[database] max-retries is an option that Headrace"),
        ("[nowhere]\na = s3cret\nb = s3cret", "[nowhere] is a section that Headrace does not have"),
        ("[DEFAULT]\ntransport_url = s3cret", "transport_url is of oslo.messaging"),
        ("[DEFAULT]\nlog_file = s3cret", "log_file is of oslo.log"),
        ("[oslo_messaging_rabbit]\nssl = s3cret", "[oslo_messaging_rabbit] is of oslo.messaging"),
        ("[taskflow_executor]\nmax_workers = s3cret", "[taskflow_executor] is of Glance's tasks"),
        ("[debug]\na = s3cret", "[debug] is a section that"),
        ("[oslo_limit]\npassword = s3cret", "[oslo_limit] is for use_keystone_limits, which is"),
        ("[paste_deploy]\nconfig_file = s3cret", "[paste_deploy] config_file is an option that"),
        ("[keystone_authtoken]\npassword = s3cret", "is for auth_strategy keystone, which is not"),
        ("[keystone_authtoken]\npassword = s3cret", "forbids in Glance is not forbidden here"),
        ("[oslo_policy]\nremote_timeout = s3cret", "[oslo_policy] remote_timeout is an option"),
    ],
)
def test_what_is_not_read_is_told_without_its_value(tmp_path: Path, text: str, words: str) -> None:
    (line,) = told(tmp_path, text)
    assert line.startswith("glance-api.conf: [")
    assert words in line
    assert "ignored" in line
    assert "s3cret" not in line


def test_every_file_is_looked_at(tmp_path: Path) -> None:
    first, second = tmp_path / "glance-image-import.conf", tmp_path / "glance-api.conf"
    first.write_text("[key_manager]\nbackend = barbican\n[empty]\n")
    second.write_text("[taskflow_executor]\nconversion_format = raw\nmore = 1\n")
    lines = list(foreign.settings(config.load([first, second])))
    assert [line.partition("]")[0] for line in lines] == [
        "glance-image-import.conf: [key_manager",
        "glance-api.conf: [taskflow_executor",
    ]
    assert "(ignored: conversion_format, more)" in lines[1]
