"""The grammar of key=value words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli import words
from headrace.cli.words import describe, filters, split
from headrace.errors import NotYetSupported, UsageError

TYPED = {*words.TYPES, "tag", "tags", "path", "location", "is_public", "copy_from"}

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
keys = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn", "Z"], exclude_characters="="),
    min_size=1,
    max_size=words.KEY_LENGTH,
).filter(lambda key: words.key_problem(key) is None)
property_keys = keys.filter(
    lambda key: (
        key not in TYPED | words.READ_ONLY | words.RESERVED
        and not key.startswith(words.RESERVED_PREFIX)
    )
)


@given(keys, unicode_text)
def test_a_word_is_split_at_its_first_equals_sign(key: str, value: str) -> None:
    assert split(f"{key}={value}") == (key, value)


@given(st.text())
def test_any_text_is_a_pair_or_a_usage_error(text: str) -> None:
    try:
        key, value = split(text)
    except UsageError as error:
        reason = str(error)
    else:
        reason = ""
        assert f"{key}={value}" == text
        assert words.key_problem(key) is None
    assert reason.isprintable()


@given(st.dictionaries(property_keys, unicode_text))
def test_unknown_keys_are_properties_with_their_values_as_they_stand(
    properties: dict[str, str],
) -> None:
    found = describe(f"{key}={value}" for key, value in properties.items())
    assert found == words.Description(dict(properties))


@given(property_keys, unicode_text, unicode_text)
def test_a_key_is_given_once(key: str, first: str, second: str) -> None:
    with pytest.raises(UsageError, match="given twice"):
        describe([f"{key}={first}", f"{key}={second}"])


@given(st.lists(unicode_text))
def test_repeated_tags_are_taken_whole_and_once(tags: list[str]) -> None:
    found = describe(f"tag={tag}" for tag in tags)
    assert found.attributes == ({"tags": list(dict.fromkeys(tags))} if tags else {})


@given(st.integers(min_value=0, max_value=words.INTEGER_MAX))
def test_integers_are_numbers(number: int) -> None:
    assert describe([f"min_ram={number}"]).attributes == {"min_ram": number}


@given(st.one_of(st.integers(max_value=-1), st.integers(min_value=words.INTEGER_MAX + 1)))
def test_integers_fit_their_column(number: int) -> None:
    with pytest.raises(UsageError, match="whole number"):
        describe([f"min_disk={number}"])


@pytest.mark.parametrize("value", ["", "x", "1.5", "0x10", "٣", "1 ", "+1"])
def test_integers_are_written_in_digits(value: str) -> None:
    with pytest.raises(UsageError, match="whole number"):
        describe([f"min_disk={value}"])


@pytest.mark.parametrize(
    ("value", "meant"),
    [(value, True) for value in ("true", "True", "YES", "1", "on")]
    + [(value, False) for value in ("false", "no", "0", "Off")],
)
def test_booleans_have_several_spellings(value: str, meant: bool) -> None:
    assert describe([f"protected={value}"]).attributes == {"protected": meant}


@pytest.mark.parametrize("value", ["", "2", "maybe", "truee"])
def test_what_is_no_boolean_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="expected true or false"):
        describe([f"os_hidden={value}"])


def test_values_may_hold_equals_signs_commas_and_nothing() -> None:
    found = describe(["cmdline=root=/dev/sda1,ro", "note=", "name=a, b"])
    assert found.attributes == {"cmdline": "root=/dev/sda1,ro", "note": "", "name": "a, b"}


def test_tags_are_split_at_commas_and_add_up() -> None:
    found = describe(["tags=a,b,,a", "tag=c,d", "tag=b"])
    assert found.attributes == {"tags": ["a", "b", "c,d"]}
    assert describe(["tags="]).attributes == {"tags": []}


@pytest.mark.parametrize(("value", "meant"), [("True", "public"), ("no", "shared")])
def test_is_public_is_understood_and_said_so(value: str, meant: str) -> None:
    found = describe([f"is_public={value}"])
    assert found.attributes == {"visibility": meant}
    assert found.notes == (f"is_public={value} is taken as visibility={meant}",)


@pytest.mark.parametrize("order", [1, -1])
def test_is_public_and_visibility_exclude_each_other(order: int) -> None:
    with pytest.raises(UsageError, match="same thing"):
        describe(["is_public=true", "visibility=private"][::order])


def test_visibility_is_one_of_four() -> None:
    assert describe(["visibility=community"]).attributes == {"visibility": "community"}
    with pytest.raises(UsageError, match="public, private, shared, community"):
        describe(["visibility=all"])


def test_where_data_is_stands_apart() -> None:
    found = describe(["path=/a=b,c", "name=x"])
    assert (found.path, found.location, found.attributes) == ("/a=b,c", None, {"name": "x"})
    assert describe(["location=http://h/x"]).location == "http://h/x"
    with pytest.raises(UsageError, match="needs a value"):
        describe(["path="])


@pytest.mark.parametrize("key", sorted(words.READ_ONLY))
def test_what_the_service_sets_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} is set by the service"):
        describe([f"{key}=1"])


@pytest.mark.parametrize("key", ["locations", "deleted", "os_glance_import_task"])
def test_what_the_service_reserves_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="reserved"):
        describe([f"{key}=1"])


def test_copy_from_is_not_there_yet() -> None:
    with pytest.raises(NotYetSupported, match="copy_from="):
        describe(["copy_from=http://h/x"])


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("name", "not of the form key=value"),
        ("=x", "the key is empty"),
        (" a=x", "white space"),
        ("a\nb=x", "control character"),
        ("k" * 256 + "=x", "longer than 255"),
        ("a\udcff=x", "not valid UTF-8"),
        ("a=\udcff", "not valid UTF-8"),
    ],
)
def test_a_bad_word_is_named_with_its_fault(word: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        describe([word])


def test_filters_are_query_parameters() -> None:
    assert filters(["name=a", "size_min=1", "tag=x", "tag=y", "os_distro=debian"]) == {
        "name": "a",
        "size_min": "1",
        "tag": ["x", "y"],
        "os_distro": "debian",
    }
    assert filters(["protected=Yes", "is_public=1", "status=in:active,queued"]) == {
        "protected": "true",
        "visibility": "public",
        "status": "in:active,queued",
    }


@pytest.mark.parametrize("key", ["limit", "marker", "sort"])
def test_paging_is_asked_for_by_options(key: str) -> None:
    with pytest.raises(UsageError, match=f"--{key}"):
        filters([f"{key}=1"])


@pytest.mark.parametrize("key", ["name", "min_disk", "tags", "id", "visibility"])
def test_attributes_cannot_be_removed(key: str) -> None:
    with pytest.raises(UsageError, match="cannot be removed"):
        words.property_name(key)
    assert words.property_name("os_distro") == "os_distro"


def test_typed_words_have_the_keys_of_a_command_and_no_others() -> None:
    types = {"title": words.text, "enum": words.comma_list, "minimum": words.number}
    assert words.typed(["title=a=b,c", "enum=x,,y", "minimum=-3"], types) == {
        "title": "a=b,c",
        "enum": ["x", "y"],
        "minimum": -3,
    }
    for wrong in (["colour=red"], ["title=a", "title=b"], ["minimum=1.5"], ["minimum=--1"]):
        with pytest.raises(UsageError):
            words.typed(wrong, types)
