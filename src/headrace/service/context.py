"""Who asks: the caller of one request, as authentication found him, and the rules for him."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from headrace.model import Viewer


class Rules(Protocol):
    """The operator's rules, which stand in place of the usual ones."""

    guarded: bool
    """Whether what belongs to others stays untouched whatever the rules say, as it did before the
    rules looked at projects."""

    def __contains__(self, rule: str, /) -> bool:
        """Whether the operator has a say in this rule."""
        ...

    def allow(self, context: "Context", rule: str, target: Mapping[str, object]) -> bool:
        """Whether the caller may do this to what ``target`` describes; of an unknown rule, no."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """The caller: the eyes that lookups are made with, his roles there, in lower case, and those
    of the service that asks on his behalf.

    ``rules`` are None where nobody has changed the usual ones (service/policy.py).
    ``token`` and ``catalog`` (of services, as Keystone's JSON has it) are for requests made in his
    name; a repr shows neither.
    """

    viewer: Viewer = field(default_factory=Viewer)
    roles: frozenset[str] = frozenset()
    service_roles: frozenset[str] = frozenset()
    user_id: str | None = None
    token: str | None = field(default=None, repr=False)
    catalog: str | None = field(default=None, repr=False)
    rules: Rules | None = field(default=None, repr=False, compare=False)

    @property
    def project_id(self) -> str | None:
        return self.viewer.project_id

    @property
    def is_admin(self) -> bool:
        return self.viewer.is_admin
