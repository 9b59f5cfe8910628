"""Who may do what: every decision about a caller's permission, under the rules' names in Glance.

An administrator may do everything; of others it takes a role (a member is a reader, too) and the
right image.  What a caller may not even see the data layer has hidden before, so that an image
which comes here as shared, and is not the caller's own, is shared with his project.

The table here is what api/rules.py says in oslo.policy's language, compiled by hand; a test holds
the two against each other.  What an operator says otherwise comes with the caller
(``Context.rules``) and is then the only word.
"""

from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum

from headrace import errors
from headrace.model import Image, Namespace, Status, Visibility
from headrace.service.context import Context

Subject = Image | Namespace

_READER = frozenset({"reader", "member"})
_MEMBER = frozenset({"member"})


class MetadefRule(StrEnum):
    """What is decided about metadata definitions: to change them is for administrators alone
    (OSSN-0088)."""

    GET_NAMESPACE = "get_metadef_namespace"
    GET_NAMESPACES = "get_metadef_namespaces"
    GET_OBJECT = "get_metadef_object"
    GET_OBJECTS = "get_metadef_objects"
    GET_PROPERTY = "get_metadef_property"
    GET_PROPERTIES = "get_metadef_properties"
    GET_TAG = "get_metadef_tag"
    GET_TAGS = "get_metadef_tags"
    LIST_RESOURCE_TYPES = "list_metadef_resource_types"
    GET_RESOURCE_TYPE = "get_metadef_resource_type"
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


_Which = Callable[[Context, Subject], bool]


def _own(context: Context, subject: Subject) -> bool:
    return subject.owner is not None and subject.owner == context.project_id


def _shared_with_caller(context: Context, subject: Subject) -> bool:
    return (
        subject.visibility == Visibility.SHARED
        and subject.owner is not None
        and context.project_id not in (None, subject.owner)
    )


def _own_or_shared(context: Context, subject: Subject) -> bool:
    return _own(context, subject) or _shared_with_caller(context, subject)


def _open_or_own(context: Context, subject: Subject) -> bool:
    return subject.visibility != Visibility.PRIVATE or _own(context, subject)


# rule: (one of these roles, what passes; None: where there is nothing yet, but a project).  What is
# not here is for administrators.
_RULES: dict[str, tuple[frozenset[str], _Which | None]] = {
    "get_images": (_READER, None),
    "get_image": (_READER, _open_or_own),
    "download_image": (_MEMBER, _open_or_own),
    "download_from_store": (_MEMBER, _open_or_own),
    "add_image": (_MEMBER, _own),
    "modify_image": (_MEMBER, _own),
    "communitize_image": (_MEMBER, _own),
    "upload_image": (_MEMBER, _own),
    "delete_image": (_MEMBER, _own),
    "get_image_location": (_READER, _own),
    "add_image_location": (_MEMBER, _own),
    "set_image_location": (_MEMBER, _own),
    "deactivate": (_MEMBER, _own),
    "reactivate": (_MEMBER, _own),
    "get_members": (_READER, _own_or_shared),
    "get_member": (_READER, _own_or_shared),
    "add_member": (_MEMBER, _own),
    "delete_member": (_MEMBER, _own),
    "modify_member": (_MEMBER, _shared_with_caller),
    MetadefRule.GET_NAMESPACES: (_READER, None),
    MetadefRule.LIST_RESOURCE_TYPES: (_READER, None),
    MetadefRule.GET_NAMESPACE: (_READER, _open_or_own),
    MetadefRule.GET_OBJECT: (_READER, _open_or_own),
    MetadefRule.GET_OBJECTS: (_READER, _open_or_own),
    MetadefRule.GET_PROPERTY: (_READER, _open_or_own),
    MetadefRule.GET_PROPERTIES: (_READER, _open_or_own),
    MetadefRule.GET_TAG: (_READER, _open_or_own),
    MetadefRule.GET_TAGS: (_READER, _open_or_own),
    MetadefRule.GET_RESOURCE_TYPE: (_READER, _open_or_own),
}
# These are for whoever asks for a service, too, whichever the image.
_OF_SERVICES = frozenset(
    {"service_api", "add_image_location", "fetch_image_location", "stores_info_detail"}
)

# What a target has besides the image's own fields; a custom property of such a name is none of it,
# or whoever writes properties would write what he is judged by.
_COMPUTED = frozenset({"image_id", "project_id", "member_id"})
_FIELDS = frozenset(each.name for each in fields(Image)) - {"locations", "properties"}


def implied(roles: frozenset[str]) -> frozenset[str]:
    """These roles and those that they contain, in Keystone and here: admin ⊃ member ⊃ reader."""
    if "admin" in roles:
        return roles | {"member", "reader"}
    return roles | {"reader"} if "member" in roles else roles


def allows(context: Context, rule: str, subject: Subject | None = None) -> bool:
    """Whether the caller may do this, of an image or namespace on record to that one."""
    rules = context.rules
    if rules is not None and rule in rules:
        allowed = rules.allow(context, rule, target(context, subject))
        return allowed and (not rules.guarded or _leaves_others_alone(context, rule, subject))
    return context.viewer.is_admin or _may(context, rule, subject)


def require(context: Context, rule: str, subject: Subject | None = None) -> None:
    """Raises Forbidden when the caller may not do this."""
    if not allows(context, rule, subject):
        raise errors.Forbidden(reason=rule)


def require_of(context: Context, rule: str, image: Image) -> None:
    """As ``require``, of an image on record: ImageNotFound for who may not even know of it."""
    if not allows(context, rule, image):
        if not allows(context, "get_image", image):
            raise errors.ImageNotFound(image_id=image.id)
        raise errors.Forbidden(reason=rule)


def require_of_namespace(context: Context, rule: MetadefRule, namespace: Namespace) -> None:
    """As ``require_of``; raises Forbidden or NamespaceNotFound."""
    if not allows(context, rule, namespace):
        if not allows(context, MetadefRule.GET_NAMESPACE, namespace):
            raise errors.NamespaceNotFound(namespace=namespace.namespace)
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


def target(context: Context, subject: Subject | None) -> dict[str, object]:
    """What rules are told of: the fields of the image and its properties, or of the namespace.

    ``project_id`` is the owner, or the caller's project where there is nothing yet; ``member_id``
    the caller's project if the image is shared with it.  What is None is left out: a rule that
    compares with it then says no, where it would be the same as a caller's None.
    """
    found: dict[str, object] = {}
    if subject is None:
        found["project_id"] = context.project_id
    else:
        found.update(visibility=str(subject.visibility), owner=subject.owner)
        found["project_id"] = subject.owner
    if isinstance(subject, Image):
        taken = _FIELDS | _COMPUTED
        found |= {key: value for key, value in subject.properties.items() if key not in taken}
        found |= {name: getattr(subject, name) for name in _FIELDS}
        found["image_id"] = subject.id
        if _shared_with_caller(context, subject):
            found["member_id"] = context.project_id
    elif subject is not None:
        found["namespace"] = subject.namespace
    return {key: value for key, value in found.items() if value is not None}


def _leaves_others_alone(context: Context, rule: str, subject: Subject | None) -> bool:
    """Whether the caller's project is the one that the rule is about, by the usual table."""
    _, passes = _RULES.get(rule, (_MEMBER, None))
    if passes not in (_own, _shared_with_caller) or context.viewer.is_admin:
        return True
    return subject is not None and passes(context, subject)


def _may(context: Context, rule: str, subject: Subject | None) -> bool:
    if rule in _OF_SERVICES and "service" in context.roles:
        return True
    if rule not in _RULES:
        return False
    roles, passes = _RULES[rule]
    if roles.isdisjoint(context.roles):
        return False
    if passes is None:
        return context.project_id is not None
    return subject is not None and passes(context, subject)
