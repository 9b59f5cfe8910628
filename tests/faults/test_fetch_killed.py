"""Processes of a host that fetch images are killed anywhere: no wrong byte is delivered, nothing is
kept beyond the bound, and nothing is left that is of no use.
"""

import contextlib
import json
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from headrace.cache.conversions import entry_id
from headrace.cache.host import DEAD_FOR
from tests.cli.conftest import run
from tests.faults.conftest import Start
from tests.faults.forked import Forks
from tests.faults.leftovers import check_tidy, taken
from tests.faults.service import Service, wait_until
from tests.needs import require_command

PROCESS = Path(__file__).with_name("fetching_process.py")
MIB = 1 << 20
RATE = 24 * MIB  # bytes a second of a download: it takes 80 to 200 ms
MAX_SIZE = 11 * MIB  # half of what there is
SIZES = (2 * MIB, 3 * MIB + 1, 4 * MIB, 5 * MIB - 1)
DISK = 2 * MIB
POINTS = 60  # passed by some fetches


class Campaign:
    """Kills of those who fetch images from a service to a directory."""

    def __init__(self, service: Service, directory: Path, seed: int) -> None:
        self._directory = directory
        self._cache = directory / "cache"
        self._chance = random.Random(seed)
        self._env = {
            "HEADRACE_URL": service.server.url,
            "HEADRACE_CACHE_DIR": str(self._cache),
            "HEADRACE_CACHE_SIZE": str(MAX_SIZE),
        }
        self._contents: dict[str, bytes] = {}
        for name in ("targets", "truth"):
            (directory / name).mkdir(parents=True)
        for size in SIZES:
            self._add(service, self._chance.randbytes(size))
        for number in range(2):
            disk = self._chance.randbytes(DISK // 2).ljust(DISK, b"\0")
            image_id = self._add(service, qcow2(directory / f"{number}.qcow2", disk), disk)
            self._contents[entry_id(image_id, "raw")] = disk
        self._last = service.active(b"the last one", visibility="public")
        self._contents[self._last] = b"the last one"
        assert run("fetched", "list", env=self._env).status == 0  # the cache is there

    def run(self, rounds: int, *, look_every: int) -> None:
        """Kill three processes a round, and look at what they left; now and then be clean after."""
        with Forks(PROCESS, self._env["HEADRACE_URL"], self._directory, MAX_SIZE) as users:
            for number in range(1, rounds + 1):
                self._round(users)
                if number % look_every == 0 or number == rounds:
                    self._check_cleaned()

    def _round(self, users: Forks) -> None:
        points = self._chance.randint(1, POINTS)
        with users.one(f"{self._chance.getrandbits(32)} 0"):
            with users.one(f"{self._chance.getrandbits(32)} 0"):
                third = users.begin(f"{self._chance.getrandbits(32)} {points}")
                self._watch()
            self._check_targets()
            self._watch()
        self._check_targets()
        users.wait(third)
        self._check_targets()
        self._check()

    def _watch(self) -> None:
        """Until it is time for a kill."""
        end = time.monotonic() + self._chance.uniform(0.0, 0.4)
        while time.monotonic() < end:
            self._check()
            time.sleep(0.005)

    def _check(self) -> None:
        assert taken(self._cache) <= MAX_SIZE
        wrong = self._directory / "wrong"
        assert not wrong.exists(), wrong.read_text()

    def _check_targets(self) -> None:
        """What has been delivered is whole, whoever delivers now."""
        for each in delivered(self._directory / "targets"):
            with contextlib.suppress(FileNotFoundError):  # it has been looked at
                assert each.read_bytes() in self._contents.values(), each.name

    def _check_cleaned(self) -> None:
        """Two days later, after another fetch: all that is there is of use, and right."""
        targets, records = self._directory / "targets", self._cache / "records"
        for each in delivered(targets):
            each.unlink()
        self._age()
        done = run("fetch", self._last, "--to", targets / "last", env=self._env)
        assert (done.status, done.err) == (0, "")
        wait_until(lambda: not users_of(self._directory), "the end of what was started")
        whole = check_tidy(self._cache, self._contents)
        assert set(os.listdir(records)) == whole
        for entry in whole:
            record = json.loads((records / entry).read_text())
            assert record["mtime_ns"] == (self._cache / entry).stat().st_mtime_ns, entry
        assert {each.name for each in self._cache.iterdir()} == whole | {
            "cache.db", "converting.lock", "incomplete", "invalid", "queue", "records",
        }  # fmt: skip
        assert os.listdir(targets) == ["last"]
        (targets / "last").unlink()
        assert run("fetched", "delete", self._last, env=self._env).status == 0

    def _age(self) -> None:
        """Have been what is not whole there for so long that nobody goes on with it."""
        then = time.time() - 2 * DEAD_FOR
        aside = [each for each in (self._cache / "records").iterdir() if "." in each.name]
        for each in (*(self._cache / "incomplete").iterdir(), *aside):
            os.utime(each, (then, then))

    def _add(self, service: Service, data: bytes, disk: bytes | None = None) -> str:
        image_id = service.active(data, disk_format="raw" if disk is None else "qcow2")
        self._contents[image_id] = data
        (self._directory / "truth" / image_id).write_bytes(data)
        if disk is not None:
            (self._directory / "truth" / f"{image_id}.raw").write_bytes(disk)
        return image_id


def qcow2(path: Path, disk: bytes) -> bytes:
    """An image in qcow2 of a disk."""
    words = [require_command("qemu-img"), "convert", "-f", "raw", "-O", "qcow2"]
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    subprocess.run([*words, raw, path], check=True)
    return path.read_bytes()


def delivered(targets: Path) -> list[Path]:
    return [each for each in targets.iterdir() if not each.name.startswith(".")]


def users_of(directory: Path) -> list[str]:
    """The processes that have a file below a directory open."""
    found = []
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(fd).startswith(f"{directory}/"):
                found.append(fd.parts[2])
        except OSError:
            continue
    return found


def campaign(start: Start, directory: Path, seed: int) -> Campaign:
    service = start(env={"OS_HEADRACE__DOWNLOAD_RATE": str(RATE)})
    return Campaign(service, directory / "host", seed)


@pytest.mark.slow
def test_a_few_kills(start: Start, tmp_path: Path) -> None:
    campaign(start, tmp_path, seed=1).run(7, look_every=3)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_hundred_kills(start: Start, tmp_path: Path) -> None:
    campaign(start, tmp_path, seed=1000).run(167, look_every=5)
