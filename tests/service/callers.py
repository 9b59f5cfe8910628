"""Callers of every kind, of projects that own images or are shared with."""

from headrace.model import Viewer
from headrace.service.context import Context

NOBODY = Context()


def member(project: str) -> Context:
    """A member of a project, as Keystone's roles imply each other."""
    return Context(Viewer(project), frozenset({"member", "reader"}))


def reader(project: str) -> Context:
    return Context(Viewer(project), frozenset({"reader"}))


def without_roles(project: str) -> Context:
    return Context(Viewer(project))


OWNER, YOURS, STRANGER = member("mine"), member("yours"), member("theirs")
