"""Words in the manner of each server's configuration."""

import re

from headrace.errors import ConfigurationError


def refuse(path: str, forbidden: str, server: str) -> None:
    for character in path:
        if character in forbidden or not character.isprintable():
            raise ConfigurationError(
                reason=f"{server} cannot express {path!r}: it contains {character!r}"
            )


def nginx(text: str) -> str:
    refuse(text, "$", "nginx")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def apache(text: str) -> str:
    refuse(text, "$", "Apache")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def haproxy(text: str) -> str:
    refuse(text, "'", "HAProxy")
    return f"'{text}'"


def uwsgi(text: str) -> str:
    refuse(text, "$%@", "uWSGI")
    return text


def systemd(text: str) -> str:
    """A word of a command line, where a "$" begins a variable."""
    return systemd_path(text.replace("$", "$$"))


def systemd_path(text: str) -> str:
    refuse(text, "", "systemd")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if re.search(r"[\s\"'\\;]", text) else escaped
