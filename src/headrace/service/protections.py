"""Property protections: who may create, read, update and delete which custom property.

The file is Glance's ``property_protection_file``: each section is a regular expression that is
searched for in a property's name, the first one that is found decides, and what none is found in is
nobody's.
"""

import configparser
import os
import re
from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from headrace import errors
from headrace.service.context import Context
from headrace.service.policy import implied

_OWN = "os_glance"  # how the names of properties begin that are the service's own
_EVERYBODY, _NOBODY = "@", "!"


class Act(StrEnum):
    """What is done to a property."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"


class Format(StrEnum):
    """What the file names: roles, any of which will do, or a rule of the policy."""

    ROLES = "roles"
    POLICIES = "policies"


@dataclass(frozen=True, slots=True)
class _Section:
    expression: re.Pattern[str]
    words: dict[Act, frozenset[str]]


class Protections:
    """The protections of one file."""

    def __init__(self, sections: tuple[_Section, ...], form: Format) -> None:
        self._sections = sections
        self._form = form
        self._find = lru_cache(maxsize=4096)(self._search)

    def allow(self, context: Context, act: Act, name: str) -> bool:
        """Whether the caller may do this to the property of that name, of whatever image."""
        section = self._find(name)
        if section is None:
            return name.startswith(_OWN)
        words = section.words[act]
        if _NOBODY in words:
            return False
        if _EVERYBODY in words:
            return True
        if self._form is Format.ROLES:
            return not words.isdisjoint(implied(context.roles) | context.service_roles)
        rules = context.rules
        return rules is not None and any(rules.allow(context, rule, {}) for rule in words)

    def rules(self) -> set[str]:
        """The rules of the policy that the file names."""
        if self._form is Format.ROLES:
            return set()
        words = {word for each in self._sections for act in Act for word in each.words[act]}
        return words - {_EVERYBODY, _NOBODY}

    def _search(self, name: str) -> _Section | None:
        if name.startswith(_OWN):
            return None
        return next((each for each in self._sections if each.expression.search(name)), None)


def read(path: str | os.PathLike[str], form: Format) -> Protections:
    """The protections of a file; raises ConfigurationError for one that is not whole."""
    parser = configparser.RawConfigParser(strict=True)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeError, configparser.Error) as error:
        raise _broken(path, str(error)) from error
    # Glance drops sections about its own properties; nobody else's begin like that.
    names = [name for name in parser.sections() if not name.startswith(_OWN)]
    return Protections(tuple(_section(path, name, parser[name], form) for name in names), form)


def _section(
    path: str | os.PathLike[str], name: str, values: configparser.SectionProxy, form: Format
) -> _Section:
    try:
        expression = re.compile(name)
    except re.error as error:
        raise _broken(path, f"[{name}] is no regular expression: {error}") from error
    missing = [act for act in Act if act not in values]
    if missing:
        raise _broken(path, f"[{name}] does not say who may {missing[0]}")
    words = {act: _words(values[act], form) for act in Act}
    for act, found in words.items():
        if found >= {_EVERYBODY, _NOBODY}:
            raise _broken(path, f"[{name}] {act} is for everybody (@) and for nobody (!)")
        if form is Format.POLICIES and len(found) > 1:
            raise _broken(path, f"[{name}] {act} names more than one rule")
    return _Section(expression, words)


def _words(text: str, form: Format) -> frozenset[str]:
    """The roles, in lower case as those of callers are, or the rule; none: nobody."""
    words = {word.strip() for word in text.split(",")} - {""}
    return frozenset(word.lower() for word in words) if form is Format.ROLES else frozenset(words)


def check_rules(protections: Protections, known: Container[str]) -> None:
    """Raises ConfigurationError for a rule that the policy does not have."""
    for rule in sorted(protections.rules()):
        if rule not in known:
            raise errors.ConfigurationError(
                reason=f"property_protection_file names the rule {rule}, which the policy has not"
            )


def _broken(path: str | os.PathLike[str], reason: str) -> errors.ConfigurationError:
    return errors.ConfigurationError(reason=f"property_protection_file {path}: {reason}")
