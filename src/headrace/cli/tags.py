"""The commands about tags: tag, untag."""

from collections.abc import Callable, Sequence

import click

from headrace.cli import completion, output
from headrace.cli.choosing import chosen
from headrace.cli.images import dry_run
from headrace.cli.session import ServiceCommand, Session
from headrace.client import Images


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@dry_run
@click.pass_obj
def tag(session: Session, image_id: str, tags: Sequence[str], *, dry_run: bool) -> None:
    """Tag an image.

    IMAGE is its id, or its name if no other image has it.

    The tags it has already stay; `headrace update IMAGE tags=a,b` replaces them all.
    """
    _each(session, image_id, tags, Images.add_tag, "Would tag" if dry_run else "Tagged", dry_run)


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.argument("tags", metavar="TAG...", nargs=-1, required=True, shell_complete=completion.tags)
@dry_run
@click.pass_obj
def untag(session: Session, image_id: str, tags: Sequence[str], *, dry_run: bool) -> None:
    """Take tags away from an image.

    IMAGE is its id, or its name if no other image has it.
    """
    verb = "Would untag" if dry_run else "Untagged"
    _each(session, image_id, tags, Images.delete_tag, verb, dry_run)


def _each(
    session: Session,
    image_id: str,
    tags: Sequence[str],
    act: Callable[[Images, str, str], None],
    verb: str,
    dry_run: bool,
) -> None:
    images = session.images()
    image = chosen(images, image_id)
    wanted = list(dict.fromkeys(tags))
    if not dry_run:
        for one in wanted:
            act(images, str(image["id"]), one)
    if session.as_json and not dry_run:
        output.write_json(images.show(str(image["id"])))
    else:
        output.write(f"{verb} image {output.named(image)}: {', '.join(map(output.shown, wanted))}")
