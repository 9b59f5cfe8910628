"""SQLite databases with every table in them: copies of one, since to migrate takes 50 ms."""

import tempfile
from functools import cache
from pathlib import Path

from headrace.db import migrate
from headrace.db.engine import Database, connect


def prepared(path: Path) -> Database:
    """A new database in ``path``, with nothing in its tables."""
    path.write_bytes(_original())
    return connect(f"sqlite:///{path}")


@cache
def _original() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "original.db"
        database = connect(f"sqlite:///{path}")
        migrate.prepare(database)
        database.close()
        return path.read_bytes()
