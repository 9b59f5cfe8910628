"""A service with a store elsewhere, and one of files beside it: what becomes of images there."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Outcome, run
from tests.deploy.wire import Wire
from tools.serving import Serving

MIB = 1 << 20
FORMATS = ("disk_format=raw", "container_format=bare")


def settings(store: str, kind: str, directory: Path) -> dict[str, str]:
    """The environment of a service of that directory, but for the options of its store."""
    return {
        "OS_DEFAULT__ENABLED_BACKENDS": f"{store}:{kind},near:file",
        "OS_DEFAULT__SHOW_MULTIPLE_LOCATIONS": "true",
        "OS_DEFAULT__SHOW_IMAGE_DIRECT_URL": "true",
        "OS_GLANCE_STORE__DEFAULT_BACKEND": store,
        "OS_NEAR__FILESYSTEM_STORE_DATADIR": str(directory / "near"),
        "OS_HEADRACE__AUDIT_LOG": str(directory / "audit.log"),
    }


def call(server: Serving, *words: str | Path, stdin: bytes | None = None) -> Outcome:
    """What a command says, which must succeed."""
    done = run(*words, stdin=stdin, env={"HEADRACE_URL": server.url})
    assert done.status == 0, done.err
    return done


def added(server: Serving, *words: str | Path, stdin: bytes | None = None) -> str:
    return call(server, "add", "name=image", *FORMATS, *words, stdin=stdin).image_id


def downloaded(server: Serving, image_id: str, span: str | None = None) -> bytes:
    with Wire(server.port) as wire:
        fields = [f"Range: {span}"] if span else []
        answer = wire.request("GET", f"/v2/images/{image_id}/file", *fields)
        assert answer.status == (206 if span else 200)
        return answer.body


def lives(
    server: Serving, image_id: str, data: bytes, store: str, held: Callable[[], list[str]]
) -> None:
    """Assert that an image comes down, goes to the files and back from there, and away.

    ``held`` tells what the store has of it.
    """
    file = server.state_dir / "again.img"
    call(server, "download", image_id, "--file", file)
    assert file.read_bytes() == data
    file.unlink()
    spans = [(0, 0), (len(data) // 2, len(data) - 1)]
    spans += [(end - 1, end) for end in (MIB, 5 * MIB)]  # of a part
    for first, last in spans:
        assert downloaded(server, image_id, f"bytes={first}-{last}") == data[first : last + 1]

    call(server, "import", image_id, "method=copy-image", "stores=near")
    assert (server.state_dir / "near" / image_id).read_bytes() == data
    call(server, "delete", "--force", image_id, "--store", store)
    assert held() == []
    assert downloaded(server, image_id) == data

    call(server, "import", image_id, "method=copy-image", f"stores={store}")
    call(server, "delete", "--force", image_id, "--store", "near")
    assert downloaded(server, image_id) == data
    call(server, "delete", "--force", image_id)
    assert held() == []


def told(
    server: Serving, image_id: str, data: bytes, location: str, lose: Callable[[], None]
) -> str:
    """All that is said and logged of an image with that location, also once ``lose`` has had the
    store lose it.
    """
    with contextlib.closing(sqlite3.connect(server.state_dir / "headrace.db")) as database:
        database.execute("UPDATE image_locations SET value = ?", (location,))
        database.commit()
    file = server.state_dir / "again.img"
    outcomes = [
        run(*words, env={"HEADRACE_URL": server.url})
        for words in (
            ("--debug", "show", image_id, "--json"),
            ("--debug", "download", image_id, "--file", file),
            ("stores", "--detail"),
            ("store", "check"),
        )
    ]
    assert file.read_bytes() == data
    with Wire(server.port) as wire:
        shown = str(wire.request("GET", f"/v2/images/{image_id}/locations").body)
    lose()
    outcomes.append(run("download", image_id, "--file", file, env={"HEADRACE_URL": server.url}))
    logs = [path.read_text() for path in (server.log, server.state_dir / "audit.log")]
    return "".join([*(each.out + each.err for each in outcomes), shown, *logs])
