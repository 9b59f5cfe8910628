"""The grammar of ``key=value`` words, the way images are described on the command line.

    word    = key "=" value            split at the first "=": a value may hold "=" and ","
    key     = 1 to 255 characters, none of them a control character, no white space at either end
    value   = anything, also nothing

A key may be given once.  Tags are the exception: ``tags=a,b`` gives several, split at commas, and
``tag=a`` gives one, taken whole, and may be repeated; both add up.  The image's own attributes have
types; every other key is a custom property, whose value is a string.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from headrace.cli.text import printable
from headrace.errors import NotYetSupported, UsageError

KEY_LENGTH = 255
INTEGER_MAX = 2**31 - 1  # the columns of min_disk and min_ram are 32 bits wide

TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})
VISIBILITIES = ("public", "private", "shared", "community")

READ_ONLY = frozenset(
    {
        "checksum",
        "created_at",
        "direct_url",
        "file",
        "os_hash_algo",
        "os_hash_value",
        "schema",
        "self",
        "size",
        "status",
        "stores",
        "updated_at",
        "virtual_size",
    }
)
RESERVED = frozenset({"deleted", "deleted_at", "locations"})
RESERVED_PREFIX = "os_glance"

Value = str | int | bool | list[str]


@dataclass(frozen=True, slots=True)
class Description:
    """What the words of one command say about an image.

    ``attributes`` are its properties, typed, ready to be sent.  ``path`` and ``location`` say where
    its data is.  ``notes`` tell the user how a word was understood.
    """

    attributes: dict[str, Value]
    path: str | None = None
    location: str | None = None
    notes: tuple[str, ...] = ()


def describe(words: Iterable[str]) -> Description:
    """Read the words of ``add`` and ``update``; UsageError says which word is wrong and why."""
    attributes: dict[str, Value] = {}
    data: dict[str, str] = {}
    tags: list[str] | None = None
    notes: list[str] = []
    for key, value in _pairs(words, repeatable=frozenset({"tag"})):
        if key in {"tag", "tags"}:
            tags = [*(tags or ()), *([value] if key == "tag" else comma_list(key, value))]
        elif key in {"path", "location"}:
            data[key] = _present(key, value)
        elif key == "is_public":
            _once(attributes, "visibility", "is_public= and visibility= say the same thing")
            attributes["visibility"] = "public" if boolean(key, value) else "shared"
            notes.append(f"is_public={value} is taken as visibility={attributes['visibility']}")
        else:
            _refuse_unwritable(key)
            if key == "visibility":
                _once(attributes, key, "is_public= and visibility= say the same thing")
            attributes[key] = TYPES.get(key, text)(key, value)
    if tags is not None:
        attributes["tags"] = list(dict.fromkeys(tags))
    return Description(attributes, data.get("path"), data.get("location"), tuple(notes))


def filters(words: Iterable[str]) -> dict[str, str | list[str]]:
    """Read the words of ``index`` and ``details`` as query parameters of a list.

    ``tag=`` may be repeated (all must be there), ``tags=a,b`` is the same in one word, and
    ``is_public=`` is taken as a visibility.  Any key that is no attribute asks for a property.
    """
    query: dict[str, str | list[str]] = {}
    tags: list[str] = []
    for key, value in _pairs(words, repeatable=frozenset({"tag"})):
        if key in {"tag", "tags"}:
            tags += [value] if key == "tag" else comma_list(key, value)
        elif key == "is_public":
            _once(query, "visibility", "is_public= and visibility= say the same thing")
            query["visibility"] = "public" if boolean(key, value) else "shared"
        elif key in {"limit", "marker", "sort"}:
            raise UsageError(reason=f"{key}= is the option --{key} here")
        elif key in {"protected", "os_hidden"}:
            query[key] = "true" if boolean(key, value) else "false"
        else:
            if key == "visibility":
                _once(query, key, "is_public= and visibility= say the same thing")
            query[key] = value
    if tags:
        query["tag"] = tags
    return query


def typed(
    words: Iterable[str], types: Mapping[str, Callable[[str, str], Value]]
) -> dict[str, Value]:
    """Read words whose keys are those of ``types`` and no others, each given once."""
    found: dict[str, Value] = {}
    for key, value in _pairs(words, repeatable=frozenset()):
        if key not in types:
            raise UsageError(reason=f"{key}= is none of {', '.join(types)}")
        found[key] = types[key](key, value)
    return found


def split(word: str) -> tuple[str, str]:
    """The key and the value of one word."""
    key, equals, value = word.partition("=")
    if not equals:
        raise UsageError(reason=f"'{_shown(word)}' is not of the form key=value")
    problem = key_problem(key)
    if problem:
        raise UsageError(reason=f"'{_shown(word)}': the key {problem}")
    if not _is_unicode(value):
        raise UsageError(reason=f"the value of {key} is not valid UTF-8")
    return key, value


def key_problem(key: str) -> str | None:
    """What is wrong with ``key`` as the name of a property, or None."""
    if not key:
        return "is empty"
    if len(key) > KEY_LENGTH:
        return f"is longer than {KEY_LENGTH} characters"
    if not _is_unicode(key):
        return "is not valid UTF-8"
    if key != key.strip():
        return "begins or ends with white space"
    if not key.isprintable():
        return "holds a control character"
    return None


def property_name(key: str) -> str:
    """``key`` if update may remove a property of that name, else UsageError."""
    problem = key_problem(key)
    if problem:
        raise UsageError(reason=f"'{_shown(key)}': the key {problem}")
    _refuse_unwritable(key)
    if key in TYPES or key in {"tag", "tags"}:
        raise UsageError(reason=f"{key} is an attribute of every image and cannot be removed")
    return key


def boolean(key: str, value: str) -> bool:
    lowered = value.lower()
    if lowered not in TRUE | FALSE:
        raise UsageError(reason=f"{key}={_shown(value)}: expected true or false")
    return lowered in TRUE


def _pairs(words: Iterable[str], repeatable: frozenset[str]) -> list[tuple[str, str]]:
    pairs = [split(word) for word in words]
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen and key not in repeatable:
            raise UsageError(reason=f"{key}= is given twice")
        seen.add(key)
    return pairs


def _once(seen: Mapping[str, object], key: str, reason: str) -> None:
    if key in seen:
        raise UsageError(reason=reason)


def _refuse_unwritable(key: str) -> None:
    if key in READ_ONLY:
        raise UsageError(reason=f"{key} is set by the service and cannot be given")
    if key in RESERVED or key.startswith(RESERVED_PREFIX):
        raise UsageError(reason=f"{key} is reserved by the service and cannot be given")
    if key == "copy_from":
        raise NotYetSupported(feature="copy_from=")


def text(_key: str, value: str) -> str:
    return value


def comma_list(_key: str, value: str) -> list[str]:
    """The parts of a list that commas part; none is empty."""
    return [part for part in value.split(",") if part]


def number(key: str, value: str) -> int:
    """A whole number, which may be negative."""
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise UsageError(reason=f"{key}={_shown(value)}: expected a whole number")
    return int(value)


def _integer(key: str, value: str) -> int:
    digits = value.isascii() and value.isdigit() and len(value) <= 10
    if not digits or int(value) > INTEGER_MAX:
        raise UsageError(
            reason=f"{key}={_shown(value)}: expected a whole number from 0 to {INTEGER_MAX}"
        )
    return int(value)


def _visibility(key: str, value: str) -> str:
    if value not in VISIBILITIES:
        raise UsageError(reason=f"{key}={_shown(value)}: expected {', '.join(VISIBILITIES)}")
    return value


def _present(key: str, value: str) -> str:
    if not value:
        raise UsageError(reason=f"{key}= needs a value")
    return value


def _is_unicode(text: str) -> bool:
    # What argv could not decode arrives as lone surrogates (PEP 383), which JSON cannot carry.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(text: str) -> str:
    return printable(text if len(text) <= 60 else text[:59] + "…")


TYPES: dict[str, Callable[[str, str], Value]] = {
    "id": _present,
    "name": text,
    "owner": _present,
    "disk_format": _present,
    "container_format": _present,
    "visibility": _visibility,
    "protected": boolean,
    "os_hidden": boolean,
    "min_disk": _integer,
    "min_ram": _integer,
}
