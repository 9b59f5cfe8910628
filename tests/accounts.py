"""Users for tests, whose passwords cost nothing to check."""

from base64 import b64encode
from pathlib import Path

import bcrypt

from headrace.service.accounts import Accounts

CHEAP = 4  # the lowest cost that bcrypt knows


def hashed(password: str, cost: int = CHEAP) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def write_accounts(path: Path, *users: tuple[str, str, str]) -> Accounts:
    """A file of users, each (name, project, roles); a password is the name and ``-secret``."""
    lines = {
        path: [f"{name}:{hashed(f'{name}-secret')}" for name, _, _ in users],
        Path(f"{path}.roles"): [f"{name}:{project}:{roles}" for name, project, roles in users],
    }
    for file, text in lines.items():
        file.touch(0o600)
        file.write_text("".join(f"{line}\n" for line in text))
    return Accounts(str(path))


def login(name: str, password: str | None = None) -> bytes:
    """What such a user sends, before base64."""
    return f"{name}:{f'{name}-secret' if password is None else password}".encode()


def shown(name: str, password: str | None = None) -> str:
    """The value of the header ``Authorization``."""
    return f"Basic {b64encode(login(name, password)).decode()}"
