"""The image cache in the settings."""

from pathlib import Path

import pytest

from headrace import config, errors


def load(tmp_path: Path, text: str) -> config.cfg.ConfigOpts:
    file = tmp_path / "glance-api.conf"
    file.write_text(f"[headrace]\nstate_dir = {tmp_path}/state\n{text}")
    return config.load([file])


def test_without_a_directory_there_is_none(tmp_path: Path) -> None:
    assert config.image_cache_dir(load(tmp_path, "")) is None


def test_those_of_a_glance_are_taken(tmp_path: Path) -> None:
    conf = load(
        tmp_path,
        "[DEFAULT]\nimage_cache_dir = /srv/cache/\nimage_cache_max_size = 1000\n"
        "image_cache_stall_time = 10\nimage_cache_driver = centralized_db\n",
    )
    assert config.image_cache_dir(conf) == "/srv/cache"
    assert (conf.image_cache_max_size, conf.image_cache_stall_time) == (1000, 10)


def test_a_size_is_a_number_and_whose_it_is_is_told(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError) as refused:
        load(tmp_path, "[DEFAULT]\nimage_cache_max_size = 100GB\n")
    where = f"image_cache_max_size of {tmp_path}/glance-api.conf"
    assert str(refused.value) == f"invalid configuration: {where}: '100GB' is no whole number"


@pytest.mark.parametrize("place", ["images", "images/cache", "staging", ""])
def test_it_lies_apart_from_what_is_not_to_be_removed(tmp_path: Path, place: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="are not apart"):
        load(tmp_path, f"[DEFAULT]\nimage_cache_dir = {tmp_path}/state/{place}\n")


def test_it_lies_apart_from_files_registered_in_place(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="are not apart"):
        load(
            tmp_path,
            "location_directories = /srv\n[DEFAULT]\nimage_cache_dir = /srv/cache\n",
        )
