"""The commands that move an image's data: add, upload, download."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from headrace.cli import completion, output, source
from headrace.cli.choosing import chosen
from headrace.cli.progress import progress_bar
from headrace.cli.session import ServiceCommand, Session
from headrace.cli.words import Description, describe
from headrace.client import Images
from headrace.client.download import Downloaded, kept
from headrace.client.upload import Body
from headrace.errors import Error, UsageError
from headrace.transfer.engine import Moved

STDOUT = 1

no_progress = click.option(
    "--no-progress", "--silent", "no_progress", is_flag=True, help="Draw no progress bar."
)
dry_run = click.option("--dry-run", is_flag=True, help="Write what would be sent, send nothing.")
into_store = click.option(
    "--store", metavar="ID", help="The store that is to have the data; see `headrace stores`."
)


@click.command(cls=ServiceCommand)
@click.argument("words", metavar="[KEY=VALUE...]", nargs=-1, shell_complete=completion.description)
@click.option("--keep", is_flag=True, help="Keep the record when the upload of its data fails.")
@into_store
@dry_run
@no_progress
@click.pass_obj
def add(
    session: Session,
    words: Sequence[str],
    *,
    keep: bool,
    store: str | None,
    dry_run: bool,
    no_progress: bool,
) -> None:
    """Add an image; its data is path=FILE, or standard input.

    \b
      headrace add name=noble path=noble.img
      headrace add name=noble < noble.img
      qemu-img convert … | headrace add name=noble disk_format=raw

    The file is read here and sent by sendfile, a pipe is spliced; without data only a record is
    made, to be filled by `headrace upload`.  An empty or closed standard input, a terminal and
    /dev/null are no data.  disk_format is detected unless it is given, container_format is bare,
    name is the file's name.  Any key that is no attribute of images becomes a custom property;
    tags are tags=a,b or tag=a, repeated.

    location=URL has the image's data stay where it is: nothing is sent, and the service serves it
    from there.  It takes http and https where it has a store for them, and file:///… on the
    service's machine below the directories that its operator lists.
    """
    description = _described(words)
    if description.location is not None:
        if store is not None:
            raise UsageError(reason="location= and --store are given: which is it?")
        _add_location(session, description, description.location, keep=keep, dry_run=dry_run)
        return
    with source.opened(description.path) as data:
        properties, data = _completed(description, data)
        body = None if data is None else data.body
        if dry_run:
            _show_plan(session, properties, body, store)
            return
        images = session.images()
        started = time.monotonic()
        image = images.create(**properties)
        image_id = str(image["id"])
        moved = None
        if body is not None:
            with _removed_on_failure(images, image_id, keep=keep):
                moved = _upload(images, image_id, body, store, bar=not no_progress)
        took = time.monotonic() - started
    if moved is None:
        output.note("no data was given: the record waits for `headrace upload`")
    _report_added(session, images, image, moved, took)


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.argument("words", metavar="[path=FILE]", nargs=-1, shell_complete=completion.description)
@into_store
@no_progress
@click.pass_obj
def upload(
    session: Session, image_id: str, words: Sequence[str], *, store: str | None, no_progress: bool
) -> None:
    """Send the data of an image that has none yet.

    IMAGE is its id, or its name if no other image has it.

    The data is path=FILE, or standard input.  A disk_format or container_format that the record
    lacks is set first, as `headrace add` would.
    """
    description = _described(words)
    if description.attributes or description.location is not None:
        raise UsageError(reason="upload takes path= only; update changes properties")
    images = session.images()
    with source.opened(description.path) as data:
        if data is None:
            raise UsageError(reason="no data: give path=FILE, or redirect standard input")
        image = chosen(images, image_id)
        image_id = str(image["id"])
        missing: dict[str, object] = {}
        if image.get("disk_format") is None:
            data = source.peeked(data)
            missing["disk_format"] = source.disk_format(data)
        if image.get("container_format") is None:
            missing["container_format"] = "bare"
        if missing:
            images.update(image_id, missing)
        started = time.monotonic()
        moved = _upload(images, image_id, data.body, store, bar=not no_progress)
        took = time.monotonic() - started
    if session.as_json:
        output.write_json(images.show(image_id))
    if session.verbose:
        output.note(_sent(moved, took))


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.option(
    "--file", type=click.Path(), metavar="FILE", help="Where to; - is standard output [-]."
)
@click.option(
    "--prefer", metavar="ID,...", help="Stores that the data should rather come from, in order."
)
@click.option("--no-resume", is_flag=True, help="Start over even if a part is there already.")
@click.option("--no-verify", is_flag=True, help="Do not compare the data with the image's hash.")
@no_progress
@click.pass_obj
def download(
    session: Session,
    image_id: str,
    *,
    file: str | None,
    prefer: str | None,
    no_resume: bool,
    no_verify: bool,
    no_progress: bool,
) -> None:
    """Fetch an image's data.

    IMAGE is its id, or its name if no other image has it.

    FILE appears, or is replaced, only when the data is whole and its hash is right.  What has come
    before a cut is kept beside it, and the same command goes on from there.

    On standard output the bytes are written as they come, and a wrong hash is an error afterwards.
    Into a pipe they are copied, to be hashed on their way; with --no-verify they are spliced.
    """
    if file == "-":
        file = None
    if file is not None and file.endswith("/"):
        raise UsageError(reason=f"--file {file} names a directory")
    if file is None and sys.stdout.isatty():
        raise UsageError(reason="images are not written to a terminal: use --file or redirect")
    images = session.images()
    image = chosen(images, image_id)
    size = image.get("size")
    started = time.monotonic()
    with (
        _kept_noted(image, file),
        progress_bar(
            "Downloading", size if isinstance(size, int) else None, wanted=not no_progress
        ) as progress,
    ):
        done = images.download(
            image,
            STDOUT if file is None else file,
            prefer=[each for each in (prefer or "").split(",") if each],
            resume=not no_resume,
            verify=not no_verify,
            progress=progress,
        )
    took = time.monotonic() - started
    if done.verified is None and not no_verify:
        output.note("warning: the service has no hash of this image; the data is not verified")
    if session.verbose:
        output.note(_received(done, took))
    if session.as_json and file is not None:
        output.write_json(image)


def _described(words: Sequence[str]) -> Description:
    """What the words say, unless it is that data is at two places, or at one not known yet."""
    description = describe(words)
    for text in description.notes:
        output.note(text)
    if description.location is not None:
        if description.path is not None:
            raise UsageError(reason="path= and location= are given: which is it?")
        source.refuse_standard_input("location=")
    return description


def _add_location(
    session: Session, description: Description, url: str, *, keep: bool, dry_run: bool
) -> None:
    """Make a record whose data is what lies at ``url``."""
    if "disk_format" not in description.attributes:
        raise UsageError(reason="location= wants disk_format=, since no data is looked into here")
    properties: dict[str, object] = {"container_format": "bare"}
    if name := url.partition("?")[0].rpartition("/")[2]:
        properties["name"] = name
    properties |= description.attributes
    if dry_run:
        _show_plan(session, properties, None)
        output.write(f"POST {session.images().connection.url('/v2/images/ID/locations')}")
        output.write_json({"url": url})
        return
    images = session.images()
    started = time.monotonic()
    image = images.create(**properties)
    image_id = str(image["id"])
    with _removed_on_failure(images, image_id, keep=keep):
        images.add_location(image_id, url)
    _report_added(session, images, image, None, time.monotonic() - started)


def _completed(
    description: Description, data: source.Data | None
) -> tuple[dict[str, object], source.Data | None]:
    """The properties to send, with what was not given; and the data, perhaps looked into."""
    properties: dict[str, object] = {"container_format": "bare"}
    if data is not None:
        if data.name is not None:
            properties["name"] = data.name
        if "disk_format" not in description.attributes:
            data = source.peeked(data)
            properties["disk_format"] = source.disk_format(data)
    return properties | description.attributes, data


def _show_plan(
    session: Session, properties: dict[str, object], body: Body | None, store: str | None = None
) -> None:
    url = session.images().connection.url
    output.write(f"POST {url('/v2/images')}")
    output.write_json(properties)
    if body is not None:
        output.write(f"PUT {url('/v2/images/ID/file')}")
        size = "as many bytes as come" if body.size is None else f"{body.size} bytes"
        output.write(size if store is None else f"{size}, into store {store}")


def _upload(images: Images, image_id: str, body: Body, store: str | None, *, bar: bool) -> Moved:
    with progress_bar("Uploading", body.size, wanted=bar) as progress:
        return images.upload(image_id, body, store=store, progress=progress)


@contextlib.contextmanager
def _removed_on_failure(images: Images, image_id: str, *, keep: bool) -> Iterator[None]:
    """Delete the record again if its data does not get there, so that nothing half-made stays."""
    try:
        yield
    except BaseException:
        if keep:
            output.note(f"the record {image_id} is kept, without data")
            raise
        try:
            images.delete(image_id)
            output.note(f"the record {image_id} was removed again")
        except Error as error:
            output.note(
                f"the record {image_id} was made and could not be removed: {output.told(error)}"
            )
        raise


@contextlib.contextmanager
def _kept_noted(image: dict[str, object], file: str | None) -> Iterator[None]:
    try:
        yield
    except (Error, KeyboardInterrupt):
        part = None if file is None else kept(image, Path(file))
        if part is not None:
            path, size = part
            output.note(f"{size} bytes are kept in {path}; the same command goes on from there")
        raise


def _report_added(
    session: Session, images: Images, image: dict[str, object], moved: Moved | None, took: float
) -> None:
    image_id = str(image["id"])
    if session.as_json:
        output.write_json(images.show(image_id))
    else:
        output.write(f"Added new image with ID: {output.shown(image_id)}")
        if session.verbose:
            output.write(output.block(images.show(image_id), images.url(image_id)))
    if session.verbose and moved is not None:
        output.note(_sent(moved, took))


def _sent(moved: Moved, took: float) -> str:
    return output.figures("sent", moved.bytes, took, moved.calls, moved.how)


def _received(done: Downloaded, took: float) -> str:
    moved = done.moved
    line = output.figures("received", moved.bytes, took, moved.calls, moved.how)
    if done.resumed:
        line += f", after {done.resumed} of an earlier download"
    return line + (f", {done.verified} verified" if done.verified else ", not verified")
