"""Who asks: the caller of one request, as authentication found him."""

from dataclasses import dataclass, field

from headrace.model import Viewer


@dataclass(frozen=True, slots=True)
class Context:
    """The caller: the eyes that lookups are made with, and his roles there, in lower case."""

    viewer: Viewer = field(default_factory=Viewer)
    roles: frozenset[str] = frozenset()

    @property
    def project_id(self) -> str | None:
        return self.viewer.project_id

    @property
    def is_admin(self) -> bool:
        return self.viewer.is_admin
