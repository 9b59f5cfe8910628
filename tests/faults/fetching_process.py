"""Processes of a compute host that fetch images until they are killed, as `headrace fetch` does.

Arguments: a service, a directory, the size of the cache in it.  Each is told its seed and, unless
that is 0, how many ``POINTS`` to pass before it kills itself.  What is delivered is compared with
the files in ``truth``.
"""

import contextlib
import io
import itertools
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.cli import main
from tests.faults.forked import serve

POINTS = frozenset({
    "fcntl.fcntl", "fcntl.flock", "os.chmod", "os.link", "os.remove", "os.rename", "os.truncate",
    "os.utime", "socket.connect", "sqlite3.connect", "subprocess.Popen",
})  # fmt: skip
"""Python's audit events, beside that of a file that is opened to be written: between two of them
lies a state that others can see, however short it is."""

_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT

REFUSALS = ("no room", "removed from the cache meanwhile", "not in the cache")
"""What may be said while others take all the room, and remove images."""

SHARED = ("one", "two")
"""Targets that all processes replace."""


def die_before(points: int) -> None:
    """Kill this process when so many of the points have been passed."""
    left = itertools.count(points, -1)

    def pass_by(event: str, details: tuple[Any, ...]) -> None:
        passed = event in POINTS or (event == "open" and details[2] & _TO_WRITE)
        if passed and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(pass_by)


@dataclass(frozen=True)
class Host:
    """A compute host whose ``directory`` has the cache, the targets, and the truth about both."""

    url: str
    directory: Path
    max_size: str

    def live(self, line: str) -> None:
        """Fetch, deliver, prune and remove at random."""
        seed, points = map(int, line.split())
        chance = random.Random(seed)
        truth = sorted(each.name for each in (self.directory / "truth").iterdir())
        if points:
            die_before(points)
        for number in itertools.count():
            wanted = chance.choice(truth)
            if chance.random() < 0.5:  # what all want just now, so that one waits for another
                wanted = truth[int(time.monotonic() * 2) % len(truth)]
            image_id, _, format = wanted.partition(".")
            deed = chance.random()
            if deed < 0.05:
                self.call("fetched", "delete", image_id)
            elif deed < 0.1:
                self.call("fetched", "prune")
            else:
                words = ["--convert", format] if format else []
                self.fetch(f"{seed}-{number}", image_id, *words, chance=chance)

    def fetch(self, own: str, image_id: str, *words: str, chance: random.Random) -> None:
        """Fetch an image, and deliver it in one of all ways or not."""
        name = chance.choice((None, own, *SHARED))
        if name is None:
            self.call("fetch", image_id, *words)
            return
        target, truth = self.directory / "targets" / name, self.directory / "truth"
        link = ["--link"] if chance.random() < 0.4 else []
        force = ["--force"] if name in SHARED else []
        if self.call("fetch", image_id, "--to", str(target), *words, *link, *force):
            found = target.read_bytes()
            if name == own:
                assert found == (truth / ".".join((image_id, *words[1:]))).read_bytes(), image_id
                target.unlink()
            else:  # another may have replaced it
                assert any(found == each.read_bytes() for each in truth.iterdir()), name

    def call(self, *words: str) -> bool:
        """Run the command; whether it did as it was told, or says why it may not have."""
        said = io.StringIO()
        options = ["--cache-dir", str(self.directory / "cache"), "--max-size", self.max_size]
        if words[0] == "fetch":
            options += ["--url", self.url]
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = main.run([*words, *options])
        refused = any(reason in said.getvalue() for reason in REFUSALS)
        assert status == 0 or (status == 1 and refused), (words, status, said.getvalue())
        return status == 0


if __name__ == "__main__":
    for module in ("cache.host", "cache.target", "cli.converting", "cli.fetch", "client.clouds"):
        import_module(f"headrace.{module}")  # so that the forks need not
    host = Host(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    serve(host.live, wrong=f"{sys.argv[2]}/wrong")
