"""headrace usage, on a service with limits and on one without."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tools.serving import Serving, serving

LIMITS = {
    "OS_DEFAULT__USER_STORAGE_QUOTA": "2MB",
    "OS_HEADRACE__IMAGE_COUNT_TOTAL": "12",
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("limited"), env=LIMITS) as found:
        yield found


def test_what_is_used_is_shown(limited: Serving, tmp_path: Path) -> None:
    image = tmp_path / "image.img"
    image.write_bytes(bytes(3 << 19))
    env = {"HEADRACE_URL": limited.url}
    words = ("add", "name=x", "disk_format=raw", "container_format=bare", f"path={image}")
    assert run(*words, env=env).status == 0
    assert run("usage", env=env).out.splitlines() == [
        "Resource                      Usage        Limit",
        "---------------------- ------------ ------------",
        "image_size_total                  2            2",
        "image_stage_total                 0         none",
        "image_count_total                 1           12",
        "image_count_uploading             0         none",
    ]
    assert json.loads(run("usage", "--json", env=env).out)["image_size_total"] == {
        "limit": 2,
        "usage": 2,
    }
    refused = run(*words, env=env)
    assert refused.status == 1
    assert "image_size_total is 2097152 bytes, 3145728 bytes asked for" in refused.err
    assert "[quota.exceeded]" in refused.err


def test_a_service_without_limits(tmp_path: Path) -> None:
    with serving(tmp_path) as found:
        outcome = run("usage", env={"HEADRACE_URL": found.url})
        assert (outcome.status, outcome.out) == (0, "")
        assert "no limits" in outcome.err
        assert json.loads(run("usage", "--json", env={"HEADRACE_URL": found.url}).out) == {}
