"""Who may do what: every decision about a caller's permission, under the rules' names in Glance.

An administrator may do everything; of others it takes a role (a member is a reader, too) and the
right image.  What a caller may not even see the data layer has hidden before, so that an image
which comes here as shared, and is not the caller's own, is shared with his project.
"""

from collections.abc import Callable
from enum import StrEnum

from headrace import errors
from headrace.model import Image, Status, Visibility
from headrace.service.context import Context

_READER = frozenset({"reader", "member"})
_MEMBER = frozenset({"member"})


class MetadefRule(StrEnum):
    """What is decided about metadata definitions: for administrators alone (OSSN-0088)."""

    ADD_NAMESPACE = "add_metadef_namespace"
    MODIFY_NAMESPACE = "modify_metadef_namespace"
    DELETE_NAMESPACE = "delete_metadef_namespace"
    ADD_OBJECT = "add_metadef_object"
    MODIFY_OBJECT = "modify_metadef_object"
    DELETE_OBJECT = "delete_metadef_object"
    ADD_PROPERTY = "add_metadef_property"
    MODIFY_PROPERTY = "modify_metadef_property"
    REMOVE_PROPERTY = "remove_metadef_property"
    ADD_TAG = "add_metadef_tag"
    ADD_TAGS = "add_metadef_tags"
    MODIFY_TAG = "modify_metadef_tag"
    DELETE_TAG = "delete_metadef_tag"
    DELETE_TAGS = "delete_metadef_tags"
    ADD_ASSOCIATION = "add_metadef_resource_type_association"
    REMOVE_ASSOCIATION = "remove_metadef_resource_type_association"


_Which = Callable[[Context, Image], bool]


def _own(context: Context, image: Image) -> bool:
    return image.owner is not None and image.owner == context.project_id


def _shared_with_caller(context: Context, image: Image) -> bool:
    return (
        image.visibility is Visibility.SHARED
        and image.owner is not None
        and context.project_id not in (None, image.owner)
    )


def _own_or_shared(context: Context, image: Image) -> bool:
    return _own(context, image) or _shared_with_caller(context, image)


def _open_or_own(context: Context, image: Image) -> bool:
    return image.visibility is not Visibility.PRIVATE or _own(context, image)


# rule: (one of these roles, an image that passes; None: where there is no image yet).  What is not
# here is for administrators.
_RULES: dict[str, tuple[frozenset[str], _Which | None]] = {
    "get_images": (_READER, None),
    "get_image": (_READER, _open_or_own),
    "download_image": (_MEMBER, _open_or_own),
    "add_image": (_MEMBER, _own),
    "modify_image": (_MEMBER, _own),
    "upload_image": (_MEMBER, _own),
    "delete_image": (_MEMBER, _own),
    "add_image_location": (_MEMBER, _own),
    "set_image_location": (_MEMBER, _own),
    "deactivate": (_MEMBER, _own),
    "reactivate": (_MEMBER, _own),
    "get_members": (_READER, _own_or_shared),
    "get_member": (_READER, _own_or_shared),
    "add_member": (_MEMBER, _own),
    "delete_member": (_MEMBER, _own),
    "modify_member": (_MEMBER, _shared_with_caller),
}


def allows(context: Context, rule: str) -> bool:
    """Whether the caller may do what concerns no image."""
    return context.viewer.is_admin or _may(context, rule, None)


def require(context: Context, rule: str, image: Image | None = None) -> None:
    """Raises Forbidden when the caller may not do this (to the image)."""
    if not (context.viewer.is_admin or _may(context, rule, image)):
        raise errors.Forbidden(reason=rule)


def require_of(context: Context, rule: str, image: Image) -> None:
    """As ``require``, of an image on record: ImageNotFound for who may not even know of it."""
    if not (context.viewer.is_admin or _may(context, rule, image)):
        if not _may(context, "get_image", image):
            raise errors.ImageNotFound(image_id=image.id)
        raise errors.Forbidden(reason=rule)


def require_download(context: Context, image: Image) -> None:
    """Raises Forbidden or ImageNotFound; a deactivated image is for administrators alone."""
    require_of(context, "download_image", image)
    if image.status is Status.DEACTIVATED and not context.is_admin:
        raise errors.Forbidden(reason=f"image {image.id} is deactivated")


def require_values(context: Context, before: Image, after: Image) -> None:
    """What certain values need beyond the right to change the image; raises Forbidden."""
    if after.owner != before.owner and not context.is_admin:
        raise errors.Forbidden(reason="only an administrator sets the owner")
    if after.visibility is not before.visibility:
        if after.visibility is Visibility.PUBLIC:
            require(context, "publicize_image", after)
        elif after.visibility is Visibility.COMMUNITY:
            require(context, "communitize_image", after)


def require_membership(context: Context, image: Image, project: str) -> None:
    """A project itself accepts or rejects what is shared with it: neither the owner nor others.

    Raises Forbidden or ImageNotFound.
    """
    require_of(context, "modify_member", image)
    if project != context.project_id and not context.is_admin:
        raise errors.Forbidden(reason="modify_member of another project")


def shows_locations(context: Context, image: Image) -> bool:
    """Whether the caller may be told where the data lies: of a deactivated image, nobody else."""
    return context.is_admin or image.status is not Status.DEACTIVATED


def _may(context: Context, rule: str, image: Image | None) -> bool:
    if rule not in _RULES:
        return False
    roles, passes = _RULES[rule]
    if roles.isdisjoint(context.roles):
        return False
    return passes is None or (image is not None and passes(context, image))
