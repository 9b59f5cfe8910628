"""headrace store: do the records and the stores agree?"""

import json
from pathlib import Path

from tests.cli.conftest import Outcome, run
from tests.faults.service import Service
from tools.serving import serving


def check(state_dir: Path, *options: str) -> Outcome:
    return run("store", "check", "--state-dir", state_dir, *options)


def test_a_check_finds_what_is_wrong_and_says_so_by_its_status(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        service = Service(server)
        sound, lost = service.active(b"sound"), service.active(b"lost")
        assert (found := check(tmp_path)).status == 0, found.out
        assert found.out == "2 images and 2 files checked, 0 faults\n"
        (server.image_dir / lost).unlink()
        (server.image_dir / sound).write_bytes(b"soumd")
        found = check(tmp_path)
        assert (found.status, found.out.splitlines()) == (
            3,
            [f"{lost} missing in store file", "2 images and 1 files checked, 1 faults"],
        )
    verified = check(tmp_path, "--verify", "--json")
    assert verified.status == 3
    report = json.loads(verified.out)
    words = ("store", "check", "--verify", "--state-dir", tmp_path)
    assert json.loads(run("--json", *words).out) == report
    assert report["checked"] == {"images": 2, "files": 1, "hashed_bytes": 5}
    assert {(each["image_id"], each["fault"], each["store"]) for each in report["faults"]} == {
        (lost, "missing", "file"),
        (sound, "wrong hash", "file"),
    }


def test_what_cannot_be_checked_is_an_error(tmp_path: Path) -> None:
    assert check(tmp_path).status == 1
