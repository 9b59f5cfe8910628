"""The commands of a compute host: fetch, and fetched, which looks after what was."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.bench import units
from headrace.cli import completion, output
from headrace.cli.choosing import chosen
from headrace.cli.content import no_progress
from headrace.cli.progress import progress_bar
from headrace.cli.session import ServiceCommand, Session, json_option
from headrace.errors import ClientError, ConnectionFailed, Error, UsageError
from headrace.model import is_image_id

if TYPE_CHECKING:
    from headrace.cache.host import HostCache, Kept

DEFAULT_SIZE = "64G"
FORMATS = ("raw", "qcow2")

_FOUND = {
    "hit": "from the cache",
    "waited": "fetched by another process",
    "fetched": "fetched",
}

Command = Callable[..., None]


def cached(function: Command) -> Command:
    """The options that say where the host's cache is, and how big it may be."""
    decorators = (
        click.option(
            "--cache-dir",
            type=click.Path(file_okay=False),
            metavar="DIR",
            help="Where images are kept [HEADRACE_CACHE_DIR, else /var/cache/headrace as root and "
            "$XDG_CACHE_HOME/headrace otherwise].",
        ),
        click.option(
            "--max-size",
            metavar="SIZE",
            help=f"At most so many bytes: 500M, 64G … [HEADRACE_CACHE_SIZE, else {DEFAULT_SIZE}].",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.option("--to", type=click.Path(), metavar="FILE", help="Deliver the image to this file.")
@cached
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it is there.")
@click.option(
    "--link", is_flag=True, help="Let FILE be the cache's own file, by a hard link, where it can."
)
@click.option(
    "--convert",
    type=click.Choice(FORMATS),
    help="Deliver the disk in this format; qemu-img converts it, once.",
)
@click.option("--offline", is_flag=True, help="Ask no service: only what is in the cache.")
@click.option("--unverified", is_flag=True, help="Take an image that has no hash, too.")
@no_progress
@click.pass_obj
def fetch(
    session: Session,
    image_id: str,
    *,
    to: str | None,
    cache_dir: str | None,
    max_size: str | None,
    force: bool,
    link: bool,
    convert: str | None,
    offline: bool,
    unverified: bool,
    no_progress: bool,
) -> None:
    """Fetch an image to this host's cache, and from there to a file.

    \b
      headrace fetch noble --to /var/lib/libvirt/images/vm1.qcow2
      headrace fetch noble                  # only into the cache; its file is told

    IMAGE is its id, or its name if no other image has it.

    Of all processes of a user that fetch an image, one downloads it and the others wait.  What is
    in the cache has the hash that the service has on record.  A fetch that breaks off or is killed
    is gone on with by the next.  What was used least recently makes room for what is new, unless it
    is in use.

    FILE appears whole or not at all.  It shares the blocks of the cache's file where the file
    system can (reflink: btrfs, XFS), and is a copy made by the kernel elsewhere; either may be
    written to.  With --link it is the cache's file itself, for what is only read, such as a backing
    file: it is read-only, but for root.  Should somebody write to it all the same, every other link
    of it has that, too; the cache notices, and fetches the image anew.

    With --convert the image is inspected as a service does it, and then converted under limits of
    memory, time and size; the outcome is kept in the cache, too.  Without it the data is delivered
    as it is: whoever opens it is to be told its format, and never to guess.

    When the service cannot be reached, an image that is in the cache is delivered without it, if it
    is named by its id.
    """
    if link and to is None:
        raise UsageError(reason="--link goes with --to")
    if force and to is None:
        raise UsageError(reason="--force goes with --to")
    if to is not None:
        if to.endswith("/"):
            raise UsageError(reason=f"--to {to} names a directory")
        from headrace.cache import target

        target.expect_free(Path(to), replace=force)
    logging.getLogger("headrace").addHandler(logging.NullHandler())  # its words are our error
    # Who fetches it asks again when the service did nothing for so long.
    cache = _opened(cache_dir, max_size, 2 * session.timeout)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        fetching = _kept(
            session, cache, image_id, offline=offline, unverified=unverified, bar=not no_progress
        )
        kept = stack.enter_context(fetching)
        if convert is not None:
            kept = stack.enter_context(_converted(cache, kept, convert, bar=not no_progress))
        delivered = None
        if to is not None:
            delivered = target.deliver(kept.extent, Path(to), replace=force, link=link)
            if link and delivered != target.LINK:
                output.note(f"{to} is no link: it is on another file system, or may not be one")
        _report(session, kept, to, delivered, time.monotonic() - started)


def _ids_offered(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    path = _path(context.params.get("cache_dir"))
    if not os.path.isdir(path):
        return []
    try:
        cache = _opened(path, None)
    except Error:
        return []  # a shell's line is no place for an error
    ids = dict.fromkeys(str(each.record.image["id"]) for each in cache.list())
    return [each for each in ids if is_image_id(each) and each.startswith(incomplete)]


@click.group("fetched")
def fetched() -> None:
    """Look after the images that were fetched to this host."""


@fetched.command("list")
@cached
@json_option
def list_fetched(*, cache_dir: str | None, max_size: str | None, as_json: bool) -> None:
    """List what is in the cache, what was used last first."""
    cache = _opened(cache_dir, max_size)
    rows = [
        {
            "id": each.record.image["id"],
            "name": each.record.image.get("name"),
            "converted_to": each.record.converted_to,
            "size": each.record.size,
            "used": _moment(each.used),
            "path": os.path.join(cache.path, each.entry_id),
        }
        for each in cache.list()
    ]
    if as_json:
        output.write_json({"images": rows, "used": cache.used(), "max_size": cache.max_size})
        return
    columns = (
        ("ID", 36, False),
        ("Name", 30, False),
        ("As", 5, False),
        ("Size", 14, True),
        ("Used", 20, False),
    )
    if rows:
        output.write(output.table_head(columns))
    for row in rows:
        keys = ("id", "name", "converted_to", "size", "used")
        output.write(output.table_row(row, cut=False, columns=columns, keys=keys))


@fetched.command("prune")
@cached
def prune_fetched(*, cache_dir: str | None, max_size: str | None) -> None:
    """Make the cache fit its size, and remove what is of no use.

    That is what broken fetches left a day ago or earlier, and what failed.  What is in use stays.
    """
    images, size = _opened(cache_dir, max_size).prune()
    output.write(f"Removed {images} files, {size} bytes")


@fetched.command("delete")
@click.argument("image_ids", metavar="ID...", nargs=-1, required=True, shell_complete=_ids_offered)
@cached
def delete_fetched(
    image_ids: tuple[str, ...], *, cache_dir: str | None, max_size: str | None
) -> None:
    """Remove images from the cache; what they were delivered to stays."""
    cache = _opened(cache_dir, max_size)
    for image_id in image_ids:
        if not is_image_id(image_id):
            raise UsageError(reason=f"{image_id} is no image id; see `headrace fetched list`")
    missing = [image_id for image_id in image_ids if not cache.delete(image_id)]
    if missing:
        raise ClientError(reason=f"not in the cache: {', '.join(missing)}")


def _opened(cache_dir: str | None, max_size: str | None, stall: float = 60.0) -> "HostCache":
    from headrace.cache.host import HostCache

    size = max_size or os.environ.get("HEADRACE_CACHE_SIZE") or DEFAULT_SIZE
    return HostCache(_path(cache_dir), units.size(size), stall)


def _path(cache_dir: str | None) -> str:
    given = cache_dir or os.environ.get("HEADRACE_CACHE_DIR")
    if given:
        return given
    if os.geteuid() == 0:
        return "/var/cache/headrace"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "headrace")


@contextlib.contextmanager
def _kept(
    session: Session, cache: "HostCache", word: str, *, offline: bool, unverified: bool, bar: bool
) -> "Iterator[Kept]":
    """The image in the cache: as the service knows it, or without the service."""
    image, away = None, None
    if not offline:
        try:
            images = session.images()
            image = chosen(images, word)
        except Error as error:
            if not _is_away(error):
                raise
            away = error
    if image is None:
        with cache.held(word) as kept:
            if kept is None:
                if not is_image_id(word):
                    output.note("without its service, an image is found by its id only")
                raise away or ClientError(reason=f"the cache has no image of the id {word}")
            if away is not None:
                output.note(f"{output.told(away)}; the image is taken from the cache")
            yield kept
        return
    size = image.get("size")
    with contextlib.ExitStack() as stack:
        # Of what is there already there is no progress to be seen.
        with progress_bar("Fetching", size if isinstance(size, int) else None, wanted=bar) as draw:
            fetching = cache.fetched(images.connection, image, unverified=unverified, progress=draw)
            kept = stack.enter_context(fetching)
        if kept.verified is None:
            output.note("warning: the service has no hash of this image; it is not verified")
        yield kept


@contextlib.contextmanager
def _converted(cache: "HostCache", kept: "Kept", format: str, *, bar: bool) -> "Iterator[Kept]":
    from headrace.cli.converting import converter

    with contextlib.ExitStack() as stack:
        with progress_bar("Converting", None, wanted=bar) as draw:
            convert = converter(format, cache.max_size, draw or (lambda _: None))
            made = stack.enter_context(cache.converted(kept, format, convert))
        yield made


def _is_away(error: Error) -> bool:
    """Whether it says that the service cannot answer, and not what it answers."""
    return error.status >= 500 and (
        isinstance(error, ConnectionFailed) or not isinstance(error, ClientError)
    )


def _report(
    session: Session, kept: "Kept", to: str | None, delivered: str | None, took: float
) -> None:
    path = kept.path if to is None else os.path.abspath(to)
    if session.as_json:
        output.write_json(
            {
                "id": kept.record.image["id"],
                "path": path,
                "size": kept.record.size,
                "cache": str(kept.found),
                "resumed": kept.resumed,
                "verified": kept.verified,
                "converted_to": kept.record.converted_to,
                "delivered": delivered,
                "seconds": round(took, 3),
            }
        )
    elif to is None:
        output.write(path)
    if session.verbose:
        line = f"{kept.record.size} bytes in {took:.2f} s, {_FOUND[kept.found]}"
        line += f", {kept.resumed} bytes of an earlier fetch" if kept.resumed else ""
        output.note(line + (f", delivered by {delivered}" if delivered else ""))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
