"""Import plugins: what is done to data between its arrival and its stores, in the order set.

A plugin is called with what is there and gives what is there then.  It changes no file: what it
makes is a new one.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from headrace import errors
from headrace.model import Image
from headrace.service.images import BASE_ATTRIBUTES, RESERVED, RESERVED_PREFIX
from headrace.transfer.engine import Progress

_log = logging.getLogger(__name__)

_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Staged:
    """``size`` bytes in the file ``fd``; the image as it is to be, and what is new of its
    properties.
    """

    fd: int
    size: int
    image: Image
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Work:
    """What a plugin has to work with: the roles of who asked, in lower case, and files.

    A file of ``new_file()`` is empty and has no name; it is there until the import is over.
    ``progress(total)`` is to be called as bytes are made, and now and then while they are not: it
    raises when nobody wants them any more.
    """

    roles: frozenset[str]
    new_file: Callable[[], int]
    progress: Progress


class Plugin(Protocol):
    def __call__(self, staged: Staged, work: Work) -> Staged:
        """What became of the data and its image.  Raises the errors that end an import."""
        ...


def no_op(staged: Staged, work: Work) -> Staged:
    """Nothing happens: to see in the log that plugins are called."""
    _log.info("image %s has %d bytes before its import", staged.image.id, staged.size)
    return staged


class Injection:
    """Gives images ``properties``, unless who asked has one of the roles ``ignored``.

    What begins with os_glance is the service's own and never injected.  Raises ConfigurationError
    for what can be no custom property.
    """

    def __init__(self, properties: Mapping[str, str], ignored: Sequence[str]) -> None:
        for name in properties:
            if name in BASE_ATTRIBUTES | RESERVED or not 0 < len(name) <= _LONGEST_NAME:
                raise errors.ConfigurationError(
                    reason=f"inject sets {name!r}, which can be no custom property"
                )
        self._properties = {
            name: value
            for name, value in properties.items()
            if not name.lower().startswith(RESERVED_PREFIX)
        }
        self._ignored = frozenset(role.lower() for role in ignored)

    def __call__(self, staged: Staged, work: Work) -> Staged:
        if work.roles & self._ignored:
            return staged
        return replace(staged, properties={**staged.properties, **self._properties})


def run(plugins: Sequence[Plugin], staged: Staged, work: Work) -> Staged:
    """What is there after all plugins have done their work, one after the other."""
    for plugin in plugins:
        staged = plugin(staged, work)
    return staged
