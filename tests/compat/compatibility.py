"""docs/reference/compatibility.md: what of OpenStack's clients works, by the test that shows it.

`make compatibility` runs the tests and writes the page.  In every other run a test that has
something succeed which the page does not say of it fails.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "compatibility.md"

Catalogue = Mapping[str, list[str]]
"""Client → its commands, or its calls."""

Used = dict[str, set[str]]
"""Test → what it has had succeed, as "client command"."""

# The distribution that a client comes in.
_CLIENTS = {
    "glance": "python-glanceclient",
    "openstack": "python-openstackclient",
    "python-glanceclient": "python-glanceclient",
    "openstacksdk": "openstacksdk",
}
# Why nothing has had it succeed, by pattern: the first that matches.
_REASONS = {
    "*cache*nodes*": "no node knows of the caches of others",
    "*cache*": "called by the commands of openstack",
    "metadefs.*": "called by the commands of glance",
    "tasks.*": "called by the commands of glance",
    "*import*": "called by the commands of glance",
    "*.stage": "called by the commands of glance",
    "*.get_associated_image_tasks": "called by the commands of glance",
    "*": "not tried",
}
_HEADING = re.compile(r"^## (\S+)")
_ROW = re.compile(r"^\| `(.+?)` \| (`.*`) \|$")
_TEST = re.compile(r"`(.+?)`")


def page(catalogue: Catalogue, used: Used) -> str:
    lines = [
        "# Compatibility",
        "",
        "<!-- Written by `make compatibility`; do not edit. -->",
        "",
        "All commands and calls for images that OpenStack's own clients have, and the tests of "
        "`tests/compat/` in which each succeeds on a running server.",
    ]
    for client, names in catalogue.items():
        known = {name: [] for name in names} | _by_name(client, names, used)
        passed = sum(map(bool, known.values()))
        lines += ["", f"## {client} ({_version(_CLIENTS[client])}): {passed} of {len(names)}", ""]
        lines += ["| what | where it succeeds |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(name, tests)} |" for name, tests in known.items()]
    return "\n".join([*lines, ""])


def _by_name(client: str, names: Iterable[str], used: Used) -> dict[str, list[str]]:
    return {
        name: [test for test, seen in sorted(used.items()) if f"{client} {name}" in seen]
        for name in names
    }


def _cell(name: str, tests: list[str]) -> str:
    if tests:
        return ", ".join(f"`{test}`" for test in tests)
    return next(why for pattern, why in _REASONS.items() if fnmatchcase(name, pattern))


def _version(distribution: str) -> str:
    """The one that the lock has."""
    lock = (ROOT / "requirements" / "clients.lock").read_text(encoding="utf-8")
    found = re.search(rf"^{distribution}==(\S+)", lock, re.MULTILINE)
    assert found is not None
    return f"{distribution} {found[1]}"


def said(text: str) -> Used:
    """What a page says."""
    found: Used = {}
    client = ""
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            client = heading[1]
        elif row := _ROW.match(line):
            for test in _TEST.findall(row[2]):
                found.setdefault(test, set()).add(f"{client} {row[1]}")
    return found


def versions(text: str) -> set[str]:
    """The distributions of a page, with their versions."""
    return set(re.findall(r"^## \S+ \((.+?)\)", text, re.MULTILINE))


def locked() -> set[str]:
    """The distributions as they should be on a page."""
    return {_version(each) for each in _CLIENTS.values()}
