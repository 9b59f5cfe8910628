"""Several stores in the settings."""

from pathlib import Path

import pytest

from headrace import config, errors, store_settings
from headrace.api import backends

SEVERAL = """
[DEFAULT]
enabled_backends = fast:file, cheap:file, web:http
[glance_store]
default_backend = fast
[fast]
store_description = Solid state
weight = 100
filesystem_store_datadir = /srv/fast
filesystem_store_file_perm = 0640
[cheap]
filesystem_store_datadir = /srv/cheap
[web]
https_insecure = true
"""


def load(tmp_path: Path, text: str) -> config.cfg.ConfigOpts:
    file = tmp_path / "glance-api.conf"
    file.write_text(text)
    return config.load([file])


def staging(tmp_path: Path, text: str) -> str:
    return config.staging_dir(load(tmp_path, text))


def test_where_data_waits_for_its_import(tmp_path: Path) -> None:
    state = f"[headrace]\nstate_dir = {tmp_path}\n"
    assert staging(tmp_path, state) == f"{tmp_path}/staging"
    one = "[glance_store]\nfilesystem_store_datadir = /srv/images\n"
    assert staging(tmp_path, one) == "/srv/images/.headrace-staging"
    assert staging(tmp_path, f"[DEFAULT]\nnode_staging_uri = file:///srv/s/\n{one}") == "/srv/s"
    assert staging(tmp_path, SEVERAL) == "/srv/fast/.headrace-staging"
    glances = "[os_glance_staging_store]\nfilesystem_store_datadir = /srv/s\n"
    assert staging(tmp_path, SEVERAL + glances) == "/srv/s"


@pytest.mark.parametrize(
    "text",
    [
        "node_staging_uri = /srv/s",
        "node_staging_uri = http://example.com/",
        "enabled_import_methods = [glance-direct, glance-upload]",
        "enabled_import_methods = nonsense",
    ],
)
def test_imports_that_cannot_be_are_refused_at_the_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.ConfigurationError):
        load(tmp_path, f"[DEFAULT]\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "[image_import_opts]\nimage_import_plugins = [no_op, image_compression]",
        "[image_import_opts]\nmax_parallel_stores = 0",
        "[image_conversion]\noutput_format = vdi",
        "[inject_metadata_properties]\ninject = no pair",
        "[task]\ntask_time_to_live = -1",
        "[headrace]\nexpansion_ratio = 0",
    ],
)
def test_plugins_that_cannot_be_are_refused_at_the_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.ConfigurationError):
        load(tmp_path, f"{text}\n")


def test_plugins_are_read_as_a_glance_has_them(tmp_path: Path) -> None:
    conf = load(
        tmp_path,
        "[image_import_opts]\nimage_import_plugins = ['image_decompression', no_op]\n"
        "[inject_metadata_properties]\ninject = a:b,c:d\nignore_user_roles = admin,service\n",
    )
    assert conf.image_import_opts.image_import_plugins == ["image_decompression", "no_op"]
    assert conf.inject_metadata_properties.inject == {"a": "b", "c": "d"}
    assert conf.inject_metadata_properties.ignore_user_roles == ["admin", "service"]


def test_no_import_method_at_all(tmp_path: Path) -> None:
    assert load(tmp_path, "[DEFAULT]\nenabled_import_methods = []\n").enabled_import_methods == []


def test_each_store_has_a_group(tmp_path: Path) -> None:
    conf = load(tmp_path, SEVERAL)
    assert config.backends(conf) == {"fast": "file", "cheap": "file", "web": "http"}
    assert (conf.fast.store_description, conf.fast.weight, conf.cheap.weight) == (
        "Solid state", 100, 0,
    )  # fmt: skip
    assert config.image_dir(conf) == "/srv/fast"
    assert config.image_dir(conf, "cheap") == "/srv/cheap"
    assert config.image_dirs(conf) == ["/srv/fast", "/srv/cheap"]
    assert (config.file_perm(conf), config.file_perm(conf, "cheap")) == (0o640, 0)
    assert conf.web.https_insecure


def test_certificates_are_verified_by_default(tmp_path: Path) -> None:
    """Glance's default is to trust everybody."""
    conf = load(tmp_path, SEVERAL.replace("https_insecure = true", ""))
    assert not conf.web.https_insecure


def test_the_environment_reaches_the_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_CHEAP__WEIGHT", "7")
    assert load(tmp_path, SEVERAL).cheap.weight == 7


def test_one_store_stays_as_it_is(tmp_path: Path) -> None:
    conf = load(tmp_path, "[glance_store]\nfilesystem_store_datadir = /srv/images\n")
    assert config.backends(conf) == {}
    assert config.image_dirs(conf) == [config.image_dir(conf)] == ["/srv/images"]


SINGLE = """
[glance_store]
stores = file, http, swift+https, file
default_store = rbd
filesystem_store_datadir = /srv/images
rbd_store_pool = glance
https_insecure = true
swift_store_auth_address = https://keystone.example.org/v3
swift_store_user = service:glance
swift_store_key = secret
"""


def test_stores_without_ids_have_their_settings_together(tmp_path: Path) -> None:
    """As a Glance has them that was not told of enabled_backends."""
    conf = load(tmp_path, f"{SINGLE}[headrace]\nstate_dir = {tmp_path}\n")
    found = backends.registry(conf)
    assert [store.id for store in found.all()] == ["rbd", "file", "http", "swift"]
    assert (found.default.kind, found.several) == ("rbd", False)
    assert conf.glance_store.rbd_store_pool == "glance"
    assert config.image_dirs(conf) == ["/srv/images"]  # and none of what takes data:
    assert config.image_dir(conf) == f"{tmp_path}/images"
    assert config.staging_dir(conf) == f"{tmp_path}/staging"


@pytest.mark.parametrize("name", ["file", "filesystem"])
def test_the_type_of_the_one_store_has_two_names(tmp_path: Path, name: str) -> None:
    conf = load(
        tmp_path, f"[glance_store]\ndefault_store = {name}\nfilesystem_store_datadir = /srv/i\n"
    )
    assert store_settings.described(conf) == [("file", "file", "glance_store")]
    assert config.image_dir(conf) == "/srv/i"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default_store = http", "default_store 'http' takes no data"),
        ("default_store = https", "default_store 'http' takes no data"),
        ("default_store = cinder", "type 'cinder' is none of file, http"),
        ("stores = file, vmware", "type 'vmware' is none of file, http"),
        ("default_store = s3", "s3_store_host is not set"),
        ("stores = rbd\nrbd_store_chunk_size = 0", "rbd_store_chunk_size"),
    ],
)
def test_one_store_that_cannot_be_is_refused_at_start(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=said):
        load(tmp_path, f"[glance_store]\n{text}\n")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cheap:file", "cheap:tape", "type 'tape' is none of file, http"),
        ("cheap:file", "os_glance_x:file", "ids that begin with os_glance_ are taken"),
        ("cheap:file", "database:file", "'database'.*cannot be the id"),
        ("cheap:file", "HeadRace:file", "'HeadRace'.*cannot be the id"),
        ("cheap:file", "a b:file", "cannot be the id"),
        ("cheap:file", "cheap", "enabled_backends"),
        ("default_backend = fast", "", "needs a default_backend"),
        ("default_backend = fast", "default_backend = slow", "'slow' is no store .* takes data"),
        ("default_backend = fast", "default_backend = web", "'web' is no store .* takes data"),
        ("/srv/cheap", "/srv/../srv/fast", "its directory is that of store fast"),
        ("filesystem_store_datadir = /srv/cheap", "", "'cheap'.*datadir is not set"),
        ("weight = 100", "weight = heavy", "weight"),
        ("web:http", "web:imageapi\n[web]\nimageapi_endpoint = centre", "'web': imageapi_endpoint"),
        ("web:http", "web:swift\n[web]\nswift_store_container =", "_container is not set"),
        ("web:http", "web:rbd\n[web]\nrbd_store_pool =", "rbd_store_pool is not set"),
    ],
)
def test_what_does_not_go_together_is_refused_at_start(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in SEVERAL
    with pytest.raises(errors.ConfigurationError, match=said):
        load(tmp_path, SEVERAL.replace(old, new, 1))


@pytest.mark.parametrize("written", ["[http, https]", "http,https", "[ http,https ]"])
def test_lists_may_stand_in_brackets(tmp_path: Path, written: str) -> None:
    conf = load(
        tmp_path,
        f"[import_filtering_opts]\nallowed_schemes = {written}\nallowed_ports = [80,8080]\n",
    )
    assert conf.import_filtering_opts.allowed_schemes == ["http", "https"]
    assert conf.import_filtering_opts.allowed_ports == [80, 8080]


def test_every_type_of_store_can_be_made() -> None:
    assert list(backends._MAKERS) == list(store_settings.OF_TYPE)
