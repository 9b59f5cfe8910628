"""The commands about records: index, details, show, update, delete, clear."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain

import click

from headrace.cli import completion, output
from headrace.cli.choosing import chosen
from headrace.cli.session import ServiceCommand, Session
from headrace.cli.words import describe, filters, property_name
from headrace.client import Images
from headrace.errors import ClientError, Error, ImageNotFound, UsageError

PAGE = 200  # records asked for at a time when all are wanted

Command = Callable[..., None]


def selecting(function: Command) -> Command:
    """The words and options that select images for a list."""
    decorators = (
        click.argument("words", metavar="[KEY=VALUE...]", nargs=-1, shell_complete=filters_offered),
        click.option("--limit", type=click.IntRange(min=0), help="At most so many images."),
        click.option("--marker", metavar="ID", help="Only what comes after this image."),
        click.option(
            "--sort",
            metavar="KEY[:DIR],...",
            help="name, status, size, created_at, …; asc or desc [created_at:desc].",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


filters_offered = completion.filters
forced = click.option("-f", "--force", is_flag=True, help="Do not ask.")
dry_run = click.option("--dry-run", is_flag=True, help="Write what would be done, do nothing.")


@click.command(cls=ServiceCommand)
@selecting
@click.pass_obj
def index(
    session: Session,
    words: Sequence[str],
    *,
    limit: int | None,
    marker: str | None,
    sort: str | None,
) -> None:
    """List images, one line each.

    \b
      headrace index status=active size_min=1000000 os_distro=debian

    KEY=VALUE selects by the attributes id, name, status, owner, visibility, protected, disk_format,
    container_format, checksum, os_hash_algo, os_hash_value, created_at, updated_at and tag (which
    may be repeated); by size, virtual_size, min_ram and min_disk, also as size_min, size_max and so
    on; and by any other key as a property.  Hidden images are listed by os_hidden=true only, those
    of a community by visibility=community or all, and what is shared but not accepted by
    member_status=pending, rejected or all.

    On a terminal the list stops after each page unless --limit is given.
    """
    found = _selected(session.images(), session, words, limit, marker, sort)
    if session.as_json:
        output.write_json(list(found))
        return
    cut = sys.stdout.isatty()
    rows = (output.table_row(image, cut=cut) for image in found)
    first = next(rows, None)
    if first is None:
        return
    output.write(output.table_head())
    output.pages(chain([first], rows), asking=limit is None and output.on_terminal())


@click.command(cls=ServiceCommand)
@selecting
@click.pass_obj
def details(
    session: Session,
    words: Sequence[str],
    *,
    limit: int | None,
    marker: str | None,
    sort: str | None,
) -> None:
    """List images with all that is known of them.

    KEY=VALUE selects them as in index.
    """
    images = session.images()
    found = _selected(images, session, words, limit, marker, sort)
    if session.as_json:
        output.write_json(list(found))
        return
    blocks = (f"{output.SEPARATOR}\n{_block(images, image)}" for image in found)
    output.pages(blocks, asking=limit is None and output.on_terminal())


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.pass_obj
def show(session: Session, image_id: str) -> None:
    """Show all that is known of one image.

    IMAGE is its id, or its name if no other image has it.
    """
    images = session.images()
    image = chosen(images, image_id)
    if session.as_json:
        output.write_json(image)
    else:
        output.write(_block(images, image))


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.argument("words", metavar="[KEY=VALUE...]", nargs=-1, shell_complete=completion.description)
@click.option("--remove", metavar="KEY", multiple=True, help="Remove a property; repeatable.")
@dry_run
@click.pass_obj
def update(
    session: Session,
    image_id: str,
    words: Sequence[str],
    *,
    remove: Sequence[str],
    dry_run: bool,
) -> None:
    """Change what is said about an image.

    IMAGE is its id, or its name if no other image has it.

    What is not named stays as it is.  KEY= sets a property to nothing, --remove takes it away.
    """
    description = describe(words)
    for text in description.notes:
        output.note(text)
    if description.path is not None or description.location is not None:
        raise UsageError(reason="update changes properties only; `headrace upload` sends data")
    changes: dict[str, object] = dict(description.attributes)
    removals = list(dict.fromkeys(property_name(key) for key in remove))
    if "id" in changes:
        raise UsageError(reason="the id of an image cannot be changed")
    if changes.keys() & set(removals):
        raise UsageError(reason="a property is both set and removed")
    if not changes and not removals:
        raise UsageError(reason="nothing to change: give KEY=VALUE or --remove KEY")
    if dry_run:
        output.write_json({"image": image_id, "set": changes, "remove": removals})
        return
    images = session.images()
    image = images.update(str(chosen(images, image_id)["id"]), changes, removals)
    if session.as_json:
        output.write_json(image)
        return
    output.write(f"Updated image {output.shown(image['id'])}")
    if session.verbose:
        output.write(_block(images, image))


@click.command(cls=ServiceCommand)
@click.argument(
    "image_ids", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completion.images
)
@forced
@dry_run
@click.option("--store", metavar="ID", help="Remove the data from this store, not the image.")
@click.pass_obj
def delete(
    session: Session, image_ids: Sequence[str], *, force: bool, dry_run: bool, store: str | None
) -> None:
    """Delete images, after asking about each.

    IMAGE is an id, or a name that one image alone has.

    Where nobody can be asked, nothing is deleted without --force.
    """
    images = session.images()
    kept = 0
    for word in image_ids:
        try:
            image = chosen(images, word)
        except (ImageNotFound, UsageError) as error:
            output.note(output.told(error))
            kept += 1
            continue
        if store is None:
            act, what = images.delete, ""
        else:
            act, what = partial(session.stores().delete_data, store), f"from store {store} "
        kept += not _deleted(act, image, what, asking=not force, dry_run=dry_run)
    _report_kept(kept, len(image_ids))


@click.command(cls=ServiceCommand)
@forced
@dry_run
@click.pass_obj
def clear(session: Session, *, force: bool, dry_run: bool) -> None:
    """Delete all images, hidden ones too, after asking."""
    images = session.images()
    hidden = images.list({"os_hidden": "true"}, page_size=PAGE)
    found = [*images.list(page_size=PAGE), *hidden]
    if not found:
        return
    if not (force or dry_run) and not agreed(f"Delete all {len(found)} images?"):
        raise ClientError(reason="nothing was deleted")
    kept = sum(not _deleted(images.delete, image, asking=False, dry_run=dry_run) for image in found)
    _report_kept(kept, len(found))


def _selected(
    images: Images,
    session: Session,
    words: Sequence[str],
    limit: int | None,
    marker: str | None,
    sort: str | None,
) -> Iterator[dict[str, object]]:
    # A reader who stops after the first page must not have waited for all.
    size = output.lines_per_screen() if output.on_terminal() and not session.as_json else PAGE
    return images.list(filters(words), limit=limit, sort=sort, marker=marker, page_size=size)


def _block(images: Images, image: dict[str, object]) -> str:
    return output.block(image, images.url(str(image["id"])))


def _deleted(
    act: Callable[[str], None],
    image: dict[str, object],
    what: str = "",
    *,
    asking: bool,
    dry_run: bool,
) -> bool:
    """Delete one image, and say so; or why it was not, and that is no reason to stop."""
    name = output.named(image)
    if what:
        name = f"{name} {output.shown(what)}".rstrip()
    if dry_run:
        output.write(f"Would delete image {name}")
        return True
    if asking and not agreed(f"Delete image {name}?"):
        output.note(f"image {name} was not deleted")
        return False
    try:
        act(str(image["id"]))
    except Error as error:
        output.note(f"image {name} was not deleted: {output.told(error)}")
        return False
    output.write(f"Deleted image {name}")
    return True


def _report_kept(kept: int, of: int) -> None:
    if kept:
        raise ClientError(reason=f"{kept} of {of} images {'was' if kept == 1 else 'were'} kept")


def agreed(question: str) -> bool:
    """Ask, the answer being no unless yes is said; no at once where nobody can be asked."""
    if sys.stdin is None or not sys.stdin.isatty():
        output.note("there is no terminal to ask on; --force deletes without asking")
        return False
    return click.confirm(question, default=False, err=True)
