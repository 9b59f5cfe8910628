"""The walk through: serve, add, list, download, verify, and what it costs."""

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from demo.images import BootImage, boot_image, boots
from demo.table import added, compare
from tools.serving import COMMAND, Serving, environment, serving

MIB = 1 << 20
BIG = 1 << 30
SMALL = 256 * MIB


def main() -> int:
    started = time.monotonic()
    with workplace() as directory:
        size = affordable(directory)
        say(f"Everything happens in {directory}: up to {3 * size // MIB} MiB, under two minutes.")
        walk(directory)
        heading(f"What it costs: a file of {size // MIB} MiB, warm page cache, loopback")
        compare(directory, size, say)
    say(f"\nDone in {time.monotonic() - started:.0f} s.")
    farewell()
    return 0


def walk(directory: Path) -> None:
    """One real image, up three ways and down again."""
    heading("A real bootable image")
    image = boot_image(fresh(directory / "image"))
    say(f"{image.origin}, {image.path.stat().st_size:,} bytes")

    heading("The service: SQLite and a directory, no other service, this machine only")
    shown("headrace", "serve", "--state-dir", directory / "state", "--port", "0")
    with serving(directory / "state") as server:
        say(f"Headrace listening on {server.url}")
        heading("Up, three ways")
        first = upload(server, image)
        heading("What is there")
        headrace(server, "index")
        heading("Down again, and verified")
        download(server, image, first, directory / "downloaded")


def upload(server: Serving, image: BootImage) -> str:
    """The image by path (sendfile), from stdin (sendfile) and from a pipe (splice); its id."""
    path = image.path
    disk_format = "iso" if path.suffix == ".iso" else "raw"
    described = f"disk_format={disk_format}"
    printed = headrace(server, "add", "name=by-path", described, f"path={path}")
    with path.open("rb") as stdin:
        headrace(server, "add", "name=from-stdin", described, stdin=stdin, after=f"< {path}")
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as cat:
        before = f"cat {path} | "
        headrace(server, "add", "name=from-a-pipe", described, stdin=cat.stdout, before=before)
    return added(printed)


def download(server: Serving, image: BootImage, image_id: str, target: Path) -> None:
    headrace(server, "download", image_id, "--file", str(target))
    sent, received = digest(image.path), digest(target)
    if sent != received:
        raise RuntimeError(f"{target} differs from {image.path}: {received}, not {sent}")
    say(f"sha512 of both files: {sent[:32]}…: the same, byte for byte")
    if not boots(target):
        raise RuntimeError(f"{target} has lost its boot signature")
    say("its boot sector ends in 55 AA: a PC would start it")


def headrace(
    server: Serving,
    *words: str,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    before: str = "",
    after: str = "",
) -> str:
    """Show a command, run it against ``server``, show and return what it printed."""
    shown("headrace", *words, before=before, after=after)
    done = subprocess.run(
        [str(COMMAND), *words],
        stdin=stdin,
        stdout=subprocess.PIPE,
        env=environment({"HEADRACE_URL": server.url}),
        text=True,
        check=True,
    )
    if done.stdout.strip():
        say(done.stdout.rstrip())
    return done.stdout


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A directory of the demo's own, removed at the end unless KEEP=1."""
    place = os.environ.get("TMPDIR") or "/var/tmp"  # on a disk; /tmp is often memory
    directory = Path(tempfile.mkdtemp(prefix="headrace-demo-", dir=place))
    try:
        yield directory
    finally:
        if os.environ.get("KEEP") == "1":
            say(f"Kept: {directory}")
        else:
            shutil.rmtree(directory)


def affordable(directory: Path) -> int:
    """Bytes of the measured file: 1 GiB where three copies fit, 256 MiB otherwise."""
    free = shutil.disk_usage(directory).free
    return BIG if free > 3 * BIG + SMALL else SMALL


def fresh(directory: Path) -> Path:
    directory.mkdir()
    return directory


def say(text: str) -> None:
    print(text, flush=True)


def heading(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    say(f"\n{bold}── {text}{plain}")


def shown(*words: object, before: str = "", after: str = "") -> None:
    say(f"$ {before}{shlex.join(map(str, words))} {after}".rstrip())


def farewell() -> None:
    say(
        "\nNext:\n"
        "  make serve                                    the service, on http://127.0.0.1:9292\n"
        "  .venv/bin/headrace add name=mine path=FILE    an image of yours (in another terminal)\n"
        "  .venv/bin/headrace top                        the transfers under way, as they go\n"
        "  .venv/bin/headrace --help                     the other commands\n"
        "  docs/guides/quickstart.md                     the same with OpenStack's own clients"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT
