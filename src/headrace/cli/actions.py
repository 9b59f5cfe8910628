"""The commands deactivate and reactivate."""

from collections.abc import Callable

import click

from headrace.cli import completion, output
from headrace.cli.choosing import chosen
from headrace.cli.images import dry_run
from headrace.cli.session import ServiceCommand, Session
from headrace.client import Images


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@dry_run
@click.pass_obj
def deactivate(session: Session, image_id: str, *, dry_run: bool) -> None:
    """Take an image out of use.

    IMAGE is its id, or its name if no other image has it.

    Its record and data stay, but only administrators can fetch the data until it is reactivated.
    """
    _act(session, image_id, Images.deactivate, "deactivate", dry_run=dry_run)


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@dry_run
@click.pass_obj
def reactivate(session: Session, image_id: str, *, dry_run: bool) -> None:
    """Put a deactivated image to use again.

    IMAGE is its id, or its name if no other image has it.
    """
    _act(session, image_id, Images.reactivate, "reactivate", dry_run=dry_run)


def _act(
    session: Session,
    image_id: str,
    act: Callable[[Images, str], None],
    verb: str,
    *,
    dry_run: bool,
) -> None:
    images = session.images()
    image = chosen(images, image_id)
    if dry_run:
        output.write(f"Would {verb} image {output.named(image)}")
        return
    act(images, str(image["id"]))
    if session.as_json:
        output.write_json(images.show(str(image["id"])))
    else:
        output.write(f"{verb.capitalize()}d image {output.named(image)}")
