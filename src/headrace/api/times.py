"""How the API writes a moment."""

from datetime import datetime


def timestamp(moment: datetime) -> str:
    """A moment of naive UTC, in whole seconds."""
    return f"{moment.isoformat(timespec='seconds')}Z"
