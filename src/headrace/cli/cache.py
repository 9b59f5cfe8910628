"""headrace cache: the image cache of a service, for its administrators."""

from datetime import UTC, datetime

import click

from headrace.cli import completion, output
from headrace.cli.choosing import chosen
from headrace.cli.session import ServiceCommand, Session
from headrace.errors import UsageError
from headrace.model import is_image_id

_COLUMNS: output.Columns = (
    ("ID", 36, False),
    ("Size", 14, True),
    ("Hits", 8, True),
    ("Last used (UTC)", 19, False),
)
_KEYS = ("image_id", "size", "hits", "used")


@click.group("cache")
def command() -> None:
    """Look after a service's image cache."""


@command.command("list", cls=ServiceCommand)
@click.pass_obj
def show(session: Session) -> None:
    """List what is cached, and what is to be."""
    cached, queued = session.cache().list()
    if session.as_json:
        output.write_json({"cached_images": cached, "queued_images": queued})
        return
    output.write(output.table_head(_COLUMNS))
    for each in cached:
        record = each | {"used": _time(each.get("last_accessed"))}
        output.write(output.table_row(record, cut=False, columns=_COLUMNS, keys=_KEYS))
    for image_id in queued:
        output.write(f"{output.shown(image_id)} queued")


@command.command("queue", cls=ServiceCommand)
@click.argument(
    "images", metavar="IMAGE…", nargs=-1, required=True, shell_complete=completion.images
)
@click.pass_obj
def queue(session: Session, images: tuple[str, ...]) -> None:
    """Have images cached soon.

    IMAGE is an id, or a name if no other image has it.
    """
    cache, known = session.cache(), session.images()
    for each in images:
        image = chosen(known, each)
        cache.queue(str(image["id"]))
        output.write(f"Queued image {output.named(image)}")


@command.command("delete", cls=ServiceCommand)
@click.argument("images", metavar="ID…", nargs=-1, required=True)
@click.pass_obj
def delete(session: Session, images: tuple[str, ...]) -> None:
    """Remove images from the cache and from its queue.

    They stay what they are: their data is fetched from its store again.
    """
    for each in images:
        if not is_image_id(each):
            raise UsageError(reason=f"{each} is no image id; see `headrace cache list`")
    cache = session.cache()
    for each in images:
        cache.delete(each)
        output.write(f"Removed image {output.shown(each)} from the cache")


@command.command("clear", cls=ServiceCommand)
@click.option("--cached", "part", flag_value="cache", help="Only what is cached.")
@click.option("--queued", "part", flag_value="queue", help="Only what is queued.")
@click.pass_obj
def clear(session: Session, part: str | None) -> None:
    """Remove all images from the cache and from its queue."""
    session.cache().clear(part or "")


@command.command("clean", cls=ServiceCommand, short_help="Remove what is of no use.")
@click.pass_obj
def clean(session: Session) -> None:
    """Remove what is of no use: what failed, what was interrupted long ago.

    The service does it by itself, too.
    """
    session.cache().clean()


@command.command("prune", cls=ServiceCommand)
@click.pass_obj
def prune(session: Session) -> None:
    """Make the cache fit its size, if that was made smaller.

    The service does it by itself, too.
    """
    images, size = session.cache().prune()
    if session.as_json:
        output.write_json({"total_files_pruned": images, "total_bytes_pruned": size})
    else:
        output.write(f"{images} images removed, {size} bytes")


def _time(seconds: object) -> str:
    if not isinstance(seconds, (int, float)):
        return ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
