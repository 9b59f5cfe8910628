"""The member resource: what requests about it say, how it is shown, its schemas."""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from headrace import errors
from headrace.api.schemas import UUID, refuse_wide_characters
from headrace.api.times import timestamp
from headrace.model import Member, MemberStatus

_T = TypeVar("_T")

_LINK = "/v2/schemas/member"
_LIST_LINK = "/v2/schemas/members"


class NewMember(msgspec.Struct):
    """What is posted; whatever else it holds does not matter."""

    member: Annotated[str, Meta(min_length=1, max_length=255)]


class NewStatus(msgspec.Struct):
    """What is put."""

    status: MemberStatus


def project(body: object) -> str:
    """The project that a body makes a member; raises InvalidBody, InvalidProperty."""
    found = _read(body, NewMember).member
    refuse_wide_characters("member", found)
    return found


def status(body: object) -> MemberStatus:
    """The status that a body sets; raises InvalidBody."""
    return _read(body, NewStatus).status


def render(member: Member) -> dict[str, object]:
    """The member as the API shows it."""
    return {
        "member_id": member.project,
        "image_id": member.image_id,
        "status": member.status,
        "created_at": timestamp(member.created_at),
        "updated_at": timestamp(member.updated_at),
        "schema": _LINK,
    }


def render_list(members: list[Member]) -> dict[str, object]:
    """All members of an image as the API shows them."""
    return {"members": [render(member) for member in members], "schema": _LIST_LINK}


def _read(body: object, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise errors.InvalidBody(reason=error) from None


def _property(description: str, **details: object) -> dict[str, object]:
    return {"type": "string", "description": description, **details}


MEMBER_SCHEMA: dict[str, object] = {
    "name": "member",
    "properties": {
        "member_id": _property("Project that the image is shared with"),
        "image_id": _property("Identifier of the image", pattern=UUID),
        "status": _property("What the project makes of it", enum=[*MemberStatus]),
        "created_at": _property("When the project was first made a member"),
        "updated_at": _property("When the membership last changed"),
        "schema": _property("Path of this schema", readOnly=True),
    },
}

MEMBERS_SCHEMA: dict[str, object] = {
    "name": "members",
    "properties": {
        "members": {"type": "array", "items": MEMBER_SCHEMA},
        "schema": {"type": "string"},
    },
    "links": [{"rel": "describedby", "href": "{schema}"}],
}
