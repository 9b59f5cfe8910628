"""With whom an image is shared, and what they make of it."""

from headrace import errors
from headrace.db import images, members
from headrace.db.engine import Database
from headrace.model import Image, Member, MemberStatus, Visibility
from headrace.service import policy
from headrace.service.context import Context
from headrace.service.images import Clock, afresh


class Members:
    """The members of the images of one database, ``most`` at an image (negative: any number).

    Only a shared image has members; what it had before it became private, public or a community's
    stays on record.  All methods raise ImageNotFound for an image that the caller may not see.
    """

    def __init__(self, database: Database, most: int, clock: Clock) -> None:
        self._database = database
        self._most = most
        self._clock = clock

    def list(self, context: Context, image_id: str) -> list[Member]:
        """Owner and members may know all of them; raises ImageNotShared, Forbidden."""
        image = self._look(context, image_id)
        policy.require_of(context, "get_members", image)
        _check_shared(image)
        return members.list_all(self._database, image_id)

    def show(self, context: Context, image_id: str, project: str) -> Member:
        """One member; raises MemberNotFound, also where there can be none or it is a secret."""
        image = self._look(context, image_id)
        try:
            policy.require_of(context, "get_member", image)
            _check_shared(image)
        except errors.Forbidden:
            raise errors.MemberNotFound(image_id=image_id, project=project) from None
        return members.show(self._database, image_id, project)

    def create(self, context: Context, image_id: str, project: str) -> Member:
        """Share an image of one's own with a project, which has to accept it to see it in lists.

        Raises ImageNotShared, Forbidden, MemberExists, QuotaExceeded.
        """
        return afresh(lambda: self._create(context, image_id, project))

    def _create(self, context: Context, image_id: str, project: str) -> Member:
        image = self._look(context, image_id)
        policy.require_of(context, "add_member", image)
        _check_shared(image)
        return members.create(self._database, image, project, self._most, self._clock())

    def update(self, context: Context, image_id: str, project: str, status: MemberStatus) -> Member:
        """Accept or reject what is shared with one's project, or leave that open again.

        Raises ImageNotShared, Forbidden, MemberNotFound.
        """
        image = self._look(context, image_id)
        policy.require_membership(context, image, project)
        _check_shared(image)
        return members.update(self._database, image_id, project, status, self._clock())

    def delete(self, context: Context, image_id: str, project: str) -> None:
        """Stop sharing an image; raises ImageNotShared, Forbidden, MemberNotFound."""
        afresh(lambda: self._delete(context, image_id, project))

    def _delete(self, context: Context, image_id: str, project: str) -> None:
        image = self._look(context, image_id)
        policy.require_of(context, "delete_member", image)
        _check_shared(image)
        members.delete(self._database, image, project, self._clock())

    def _look(self, context: Context, image_id: str) -> Image:
        return images.show(self._database, image_id, context.viewer)


def _check_shared(image: Image) -> None:
    if image.visibility is not Visibility.SHARED:
        raise errors.ImageNotShared(image_id=image.id, visibility=image.visibility)
