"""Requests and answers as readable data: every file of gabbits/ is one noun's behaviour.

The application runs in this process, on each kind of database and a directory of its own; the wire
itself is the business of tests/deploy.  The tests of a file run in their order, as one test.
"""

import unittest
from pathlib import Path

import pytest
from gabbi import case, suitemaker, utils
from gabbi.handlers import RESPONSE_HANDLERS, base, jsonhandler

from headrace import config
from headrace.api import app
from tests.accounts import write_accounts
from tests.conftest import KINDS, NewDatabase

GABBITS = sorted((Path(__file__).parent / "gabbits").glob("*.yaml"))

SETTINGS: dict[tuple[str, str], object] = {
    ("DEFAULT", "image_size_cap"): 4096,
    ("DEFAULT", "image_property_quota"): 3,
    ("DEFAULT", "image_tag_quota"): 3,
    ("DEFAULT", "image_member_quota"): 3,
    ("DEFAULT", "api_limit_max"): 5,
}

FAST, CHEAP = "{directory}/fast", "{directory}/cheap"
SEVERAL_STORES: dict[tuple[str, str], object] = {
    ("DEFAULT", "enabled_backends"): {"fast": "file", "cheap": "file", "web": "http"},
    ("glance_store", "default_backend"): "fast",
    ("fast", "filesystem_store_datadir"): FAST,
    ("fast", "store_description"): "Solid state",
    ("fast", "weight"): 10,
    ("cheap", "filesystem_store_datadir"): CHEAP,
}
SETTINGS_OF: dict[str, dict[tuple[str, str], object]] = {
    "basic": {
        ("headrace", "auth_strategy"): "http_basic",
        ("headrace", "http_basic_auth_user_file"): "{directory}/users",
    },
    "quotas": {
        ("DEFAULT", "user_storage_quota"): "12 B",
        ("DEFAULT", "image_size_cap"): 1 << 30,
        ("headrace", "image_stage_total"): ["1"],
        ("headrace", "image_count_total"): ["4"],
        ("headrace", "image_count_uploading"): ["1"],
    },
    "cache": {("DEFAULT", "image_cache_dir"): "{directory}/cache"},
    "stores": SEVERAL_STORES,
    "imports": SEVERAL_STORES,
    # Nobody listens there.
    "tasks": {
        ("DEFAULT", "enabled_import_methods"): ["web-download", "glance-download"],
        ("import_filtering_opts", "allowed_hosts"): ["127.0.0.1"],
        ("import_filtering_opts", "allowed_ports"): [9],
        ("headrace", "glance_regions"): {"east": "http://127.0.0.1:9/"},
    },
    "other_settings": {
        ("DEFAULT", "limit_param_default"): 2,
        ("DEFAULT", "public_endpoint"): "https://images.example.org/base/",
        ("DEFAULT", "enabled_import_methods"): [],
        ("DEFAULT", "image_tag_quota"): -1,
        ("DEFAULT", "image_property_quota"): -1,
        ("DEFAULT", "image_member_quota"): -1,
        ("healthcheck", "disable_by_file_path"): "{directory}/listed/image.img",
    },
    "cors": {("cors", "allowed_origin"): ["https://dashboard.example.org"]},
    "locations": SEVERAL_STORES
    | {
        ("DEFAULT", "show_image_direct_url"): True,
        ("DEFAULT", "show_multiple_locations"): True,
        ("headrace", "location_directories"): ["{directory}/listed"],
    },
}
"""Of a file of gabbits/ that wants others; ``{directory}`` is one of its own."""


def settings_of(name: str, directory: Path) -> dict[tuple[str, str], object]:
    def placed(value: object) -> object:
        if isinstance(value, list):
            return list(map(placed, value))
        return value.format(directory=directory) if isinstance(value, str) else value

    return {key: placed(value) for key, value in SETTINGS_OF.get(name, {}).items()}


class Data(base.ResponseHandler):  # type: ignore[misc]
    """``response_data``: the whole body, which gabbi leaves as bytes when it is no text."""

    test_key_suffix = "data"
    test_key_value = ""

    def action(self, test: case.HTTPTestCase, item: str, value: object = None) -> None:
        """Not used: the value of the key is no collection."""

    def __call__(self, test: case.HTTPTestCase) -> None:
        if (wanted := test.test_data[self._key]) != "":
            assert test.output == wanted.encode()


class Patch(jsonhandler.JSONHandler):  # type: ignore[misc]
    """JSON under the media types of the API's patches."""

    @staticmethod
    def accepts(content_type: str) -> bool:
        return content_type.endswith("-json-patch")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", GABBITS, ids=lambda file: file.stem)
def test_api(
    file: Path,
    kind: str,
    tmp_path: Path,
    new_database: NewDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed" / "image.img").write_bytes(b"hello")
    (tmp_path / "listed" / "large.img").write_bytes(bytes(4097))
    users = [("alice", "mine", "member"), ("rita", "mine", "reader"), ("sam", "yours", "member")]
    write_accounts(tmp_path / "users", *users, ("root", "admins", "admin"))
    settings = {
        **SETTINGS,
        ("database", "connection"): new_database(kind),
        ("headrace", "state_dir"): str(tmp_path / "state"),
        ("healthcheck", "disable_by_file_path"): str(tmp_path / "disabled"),
        **settings_of(file.stem, tmp_path),
    }
    application = app.build(config.load([], settings))
    monkeypatch.setenv("DIRECTORY", str(tmp_path))
    monkeypatch.setenv("LONG", "A" * 60_000)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "latin1.json").write_text('{"name": "föö"}', encoding="latin-1")
    suite = suitemaker.test_suite_from_dict(
        unittest.TestLoader(),
        file.stem,
        utils.load_yaml(yaml_file=str(file)),
        str(tmp_path),
        host="localhost",
        port=9292,
        fixture_module=None,
        intercept=lambda: application,
        handlers=[handler() for handler in (*RESPONSE_HANDLERS, Data, Patch)],
        test_loader_name=file.stem,
    )
    try:
        result = unittest.TestResult()
        suite.run(result)
    finally:
        application.close()
    assert result.testsRun == suite.countTestCases()
    failed = [f"{test.id()}: {text}" for test, text in result.failures + result.errors]
    assert not failed, "\n\n".join(failed)
    assert not result.skipped
