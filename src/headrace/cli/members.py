"""The commands about sharing: member-add, -delete, -accept, -reject, and the two lists."""

import sys

import click

from headrace.cli import completion, output
from headrace.cli.choosing import chosen
from headrace.cli.images import PAGE, dry_run
from headrace.cli.session import ServiceCommand, Session
from headrace.client import Members

MEMBERS: output.Columns = (("Project", 36, False), ("Status", 10, False))
IMAGES: output.Columns = (("ID", 36, False), ("Name", 30, False), ("Status", 10, False))


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.argument("project", metavar="PROJECT")
@dry_run
@click.pass_obj
def add(session: Session, image_id: str, project: str, *, dry_run: bool) -> None:
    """Share an image with a project.

    IMAGE is its id, or its name if no other image has it; PROJECT is an id.

    The project may use the image at once, and finds it in its lists when it has accepted it
    (`headrace member-accept`).
    """
    images = session.images()
    image = chosen(images, image_id)
    told = f"image {output.named(image)} with project {output.shown(project)}"
    if dry_run:
        output.write(f"Would share {told}")
        return
    member = Members(images.connection).create(str(image["id"]), project)
    _report(session, member, f"Shared {told}")


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.argument("project", metavar="PROJECT", shell_complete=completion.members)
@dry_run
@click.pass_obj
def delete(session: Session, image_id: str, project: str, *, dry_run: bool) -> None:
    """Stop sharing an image with a project.

    IMAGE is its id, or its name if no other image has it; PROJECT is an id.
    """
    images = session.images()
    image = chosen(images, image_id)
    told = f"image {output.named(image)} with project {output.shown(project)}"
    if dry_run:
        output.write(f"Would stop sharing {told}")
        return
    Members(images.connection).delete(str(image["id"]), project)
    output.write(f"Stopped sharing {told}")


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.argument("project", metavar="PROJECT", shell_complete=completion.members)
@dry_run
@click.pass_obj
def accept(session: Session, image_id: str, project: str, *, dry_run: bool) -> None:
    """Accept, for a project, an image shared with it.

    IMAGE is its id, or its name if no other image has it; PROJECT is an id.

    The image is then in the project's lists.
    """
    _set_status(session, image_id, project, "accepted", dry_run=dry_run)


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.argument("project", metavar="PROJECT", shell_complete=completion.members)
@dry_run
@click.pass_obj
def reject(session: Session, image_id: str, project: str, *, dry_run: bool) -> None:
    """Reject, for a project, an image shared with it.

    IMAGE is its id, or its name if no other image has it; PROJECT is an id.

    The image stays out of the project's lists, and usable by its id.
    """
    _set_status(session, image_id, project, "rejected", dry_run=dry_run)


@click.command(cls=ServiceCommand)
@click.argument("image_id", metavar="IMAGE", shell_complete=completion.images)
@click.pass_obj
def of_image(session: Session, image_id: str) -> None:
    """List the projects an image is shared with.

    IMAGE is its id, or its name if no other image has it.
    """
    images = session.images()
    members = Members(images.connection).list(str(chosen(images, image_id)["id"]))
    if session.as_json:
        output.write_json(members)
        return
    if members:
        output.write(output.table_head(MEMBERS))
    for member in members:
        keys = ("member_id", "status")
        output.write(output.table_row(member, cut=False, columns=MEMBERS, keys=keys))


@click.command(cls=ServiceCommand)
@click.argument("project", metavar="PROJECT")
@click.pass_obj
def of_project(session: Session, project: str) -> None:
    """List the images shared with a project.

    PROJECT is an id.  The status is the membership's: pending, accepted or rejected.

    The service is asked about every shared image, one after another.
    """
    found = Members(session.images().connection).images(project, page_size=PAGE)
    if session.as_json:
        output.write_json([{"image": image, "member": member} for image, member in found])
        return
    cut = sys.stdout.isatty()
    head: str | None = output.table_head(IMAGES)
    for image, member in found:
        if head is not None:
            output.write(head)
            head = None
        row = image | {"status": member.get("status")}
        keys = ("id", "name", "status")
        output.write(output.table_row(row, cut=cut, columns=IMAGES, keys=keys))


def _set_status(
    session: Session, image_id: str, project: str, status: str, *, dry_run: bool
) -> None:
    images = session.images()
    image = chosen(images, image_id)
    told = f"image {output.named(image)}, shared with project {output.shown(project)}: {status}"
    if dry_run:
        output.write(f"Would set {told}")
        return
    member = Members(images.connection).update(str(image["id"]), project, status)
    _report(session, member, f"Set {told}")


def _report(session: Session, member: dict[str, object], text: str) -> None:
    if session.as_json:
        output.write_json(member)
    else:
        output.write(text)
