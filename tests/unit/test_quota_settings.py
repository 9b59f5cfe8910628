"""What the settings say that projects may have."""

import pytest

from headrace import config, errors

MIB = 1 << 20


def limits(**settings: object) -> dict[str, dict[str | None, int]]:
    storage = settings.pop("user_storage_quota", "0")
    overrides: dict[tuple[str, str], object] = {("DEFAULT", "user_storage_quota"): storage}
    overrides |= {("headrace", name): value for name, value in settings.items()}
    return config.project_limits(config.load([], overrides))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1), ("17B", 17), ("3KB", 3 << 10), ("2 MB", 2 << 20), (" 1GB ", 1 << 30),
        ("5TB", 5 << 40),
    ],
)  # fmt: skip
def test_units_are_binary(text: str, size: int) -> None:
    assert limits(user_storage_quota=text) == {"image_size_total": {None: size}}


def test_nothing_is_limited_unless_told() -> None:
    assert limits() == {}


@pytest.mark.parametrize("text", ["", "-1", "1K", "1kb", "GB", "1.5GB", "1 GB 2", "9" * 30])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="user_storage_quota"):
        limits(user_storage_quota=text)


def test_a_number_is_for_all_and_exceptions_for_one() -> None:
    assert limits(image_count_total=["10", "demo:20", "a:b:-1", ":3"]) == {
        "image_count_total": {None: 10, "demo": 20, "a:b": -1, "": 3}
    }


def test_data_is_in_mib() -> None:
    found = limits(image_size_total=["2", "demo:-1"], image_stage_total=["3"])
    assert found["image_size_total"] == {None: 2 * MIB, "demo": -MIB}
    assert found["image_stage_total"] == {None: 3 * MIB}


def test_the_smaller_is_for_all_but_exceptions() -> None:
    settings = ["5", "rich:500"]
    assert limits(user_storage_quota="2MB", image_size_total=settings) == {
        "image_size_total": {None: 2 * MIB, "rich": 500 * MIB}
    }
    assert limits(user_storage_quota="9MB", image_size_total=settings)["image_size_total"] == {
        None: 5 * MIB,
        "rich": 500 * MIB,
    }


@pytest.mark.parametrize("text", ["many", "demo:", "demo:x", "1.5", "demo=3", "1" * 13])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="image_count_uploading"):
        limits(image_count_uploading=[text])
