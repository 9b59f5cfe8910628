"""Who asks: the caller of one request, as authentication found him."""

from dataclasses import dataclass

from headrace.model import Viewer


@dataclass(frozen=True, slots=True)
class Context:
    """The caller: project and user ids (None without authentication) and administrator or not."""

    project_id: str | None = None
    user_id: str | None = None
    is_admin: bool = False

    @property
    def viewer(self) -> Viewer:
        """Whose eyes lookups are made with."""
        return Viewer(self.project_id, self.is_admin)
