"""What filesystem_store_metadata_file says: which file systems others can mount, too."""

import msgspec

from headrace import errors

_Entry = dict[str, object]


class MountPoints:
    """The entries of such a file: objects that have an ``id`` and a ``mountpoint``."""

    def __init__(self, entries: tuple[_Entry, ...] = ()) -> None:
        self._entries = entries

    @classmethod
    def read(cls, path: str) -> "MountPoints":
        """The entries of the file ``path``; raises ConfigurationError."""
        try:
            with open(path, "rb") as file:
                document = msgspec.json.decode(file.read())
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise errors.ConfigurationError(
                reason=f"filesystem_store_metadata_file {path}: {error}"
            ) from error
        entries = document if isinstance(document, list) else [document]
        if not all(map(_is_entry, entries)):
            raise errors.ConfigurationError(
                reason=f"filesystem_store_metadata_file {path}: each entry is an object with the "
                "strings 'id' and 'mountpoint'"
            )
        return cls(tuple(entries))

    def of(self, path: str) -> _Entry:
        """The first entry whose mountpoint ``path`` lies below; empty if there is none."""
        for entry in self._entries:
            if path.startswith(f"{str(entry['mountpoint']).rstrip('/')}/"):
                return dict(entry)
        return {}


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(key), str) for key in ("id", "mountpoint")
    )
