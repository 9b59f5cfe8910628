"""Who asks: the caller of one request, as authentication found him."""

from dataclasses import dataclass, field

from headrace.model import Viewer


@dataclass(frozen=True, slots=True)
class Context:
    """The caller: the eyes that lookups are made with, his roles there, in lower case, and those
    of the service that asks on his behalf.

    ``token`` and ``catalog`` (of services, as Keystone's JSON has it) are for requests made in his
    name; a repr shows neither.
    """

    viewer: Viewer = field(default_factory=Viewer)
    roles: frozenset[str] = frozenset()
    service_roles: frozenset[str] = frozenset()
    user_id: str | None = None
    token: str | None = field(default=None, repr=False)
    catalog: str | None = field(default=None, repr=False)

    @property
    def project_id(self) -> str | None:
        return self.viewer.project_id

    @property
    def is_admin(self) -> bool:
        return self.viewer.is_admin
