"""headrace db: what is to be done, doing it, and the way back to Glance."""

import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome, run
from tests.conftest import KINDS, NewDatabase
from tests.faults.service import Service
from tools.serving import serving


def own_objects(file: Path) -> set[str]:
    with sqlite3.connect(file) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'headrace%'")
        return {name for (name,) in names}


def db(command: str, state_dir: Path, *options: str, url: str | None = None) -> Outcome:
    env = {} if url is None else {"OS_DATABASE__CONNECTION": url}
    return run("db", command, "--state-dir", state_dir, *options, env=env)


@pytest.mark.slow
def test_what_is_ours_goes_and_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "headrace.db"
    with serving(tmp_path):
        ours = own_objects(file)
        assert ours
    refused = db("hand-back", tmp_path)
    assert refused.status != 0
    assert own_objects(file) == ours
    done = db("hand-back", tmp_path, "--force")
    assert done.status == 0, done.err
    assert own_objects(file) == set()
    with serving(tmp_path):
        assert own_objects(file) == ours


@pytest.mark.parametrize("kind", KINDS)
def test_a_check_says_what_is_to_be_done(
    kind: str, tmp_path: Path, new_database: NewDatabase
) -> None:
    url = new_database(kind)
    empty = db("check", tmp_path, url=url)
    assert (empty.status, empty.out.splitlines()) == (
        3,
        ["Glance's revision: none", "Headrace's revision: none", "To be done: headrace db sync"],
    )
    for _ in range(2):
        assert db("sync", tmp_path, url=url).status == 0
    ready = db("check", tmp_path, url=url)
    assert (ready.status, ready.out.splitlines()) == (
        0,
        ["Glance's revision: 2024_1_contract01", "Headrace's revision: headrace_0004",
         "To be done: nothing"],
    )  # fmt: skip
    assert db("hand-back", tmp_path, "--force", url=url).status == 0
    back = db("check", tmp_path, url=url)
    assert back.status == 3
    assert "Glance's revision: 2024_1_contract01\nHeadrace's revision: none\n" in back.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "revision", "status", "words"),
    [
        ("alembic_version", "2023_1_contract01", 4, "glance-manage db sync"),
        ("alembic_version", "2031_1_contract01", 5, "newer Headrace"),
        ("headrace_alembic_version", "headrace_9999", 5, "newer Headrace"),
    ],
)
def test_a_check_knows_whose_turn_it_is(
    tmp_path: Path, table: str, revision: str, status: int, words: str
) -> None:
    assert db("sync", tmp_path).status == 0
    with sqlite3.connect(tmp_path / "headrace.db") as connection:
        connection.execute(f"UPDATE {table} SET version_num = ?", (revision,))
    found = db("check", tmp_path)
    assert found.status == status
    assert revision in found.out
    assert words in found.out.splitlines()[-1]
    assert db("sync", tmp_path).status == 1


def test_a_check_creates_nothing(tmp_path: Path) -> None:
    assert db("check", tmp_path).status == 3
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    url = f"postgresql://nobody@/none?host={tmp_path}"
    found = db("check", tmp_path, url=url)
    assert found.status == 1
    assert "configuration.invalid" in found.err


@pytest.mark.slow
def test_a_purge_leaves_the_ids_taken(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        service = Service(server)
        image_id = service.create(tags=["a", "b"], p="1")
        service.delete(image_id)
    young = db("purge", tmp_path)
    assert (young.status, young.out.splitlines()[:2]) == (
        0, ["image_properties: 0", "image_tags: 0"],
    )  # fmt: skip
    done = db("purge", tmp_path, "--age", "0", "--rows", "1")
    gone = {"image_properties": 1, "image_tags": 1}
    tables = (*gone, "image_members", "image_locations", "tasks")
    assert done.out.splitlines() == [f"{name}: {gone.get(name, 0)}" for name in tables]
    again = f'{{"id": "{image_id}"}}'.encode()
    with serving(tmp_path) as server:
        assert Service(server).request("POST", "/v2/images", body=again).status == 409
    db("purge", tmp_path, "--age", "0", "--images")
    with serving(tmp_path) as server:
        assert Service(server).create(id=image_id) == image_id


def test_nothing_is_purged_from_a_database_that_is_not_ready(tmp_path: Path) -> None:
    refused = db("purge", tmp_path)
    assert (refused.status, "headrace db check" in refused.err) == (1, True)
    assert list(tmp_path.iterdir()) == []
