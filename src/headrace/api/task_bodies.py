"""The body of a request for a task."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace import errors
from headrace.service.tasks import NewImage


class TaskInput(msgspec.Struct):
    """What an image is to be made of, and what it is to be."""

    import_from: Annotated[str, Meta(max_length=2048)]
    import_from_format: str
    image_properties: dict[str, Any]


class TaskBody(msgspec.Struct):
    """What is asked for: an image made of what is fetched."""

    type: Literal["import"]
    input: TaskInput


def new_image(document: object) -> NewImage:
    """What ``document`` asks for; raises InvalidBody."""
    try:
        body = msgspec.convert(document, TaskBody)
    except msgspec.ValidationError as error:
        raise errors.InvalidBody(reason=error) from None
    given = body.input
    return NewImage(given.import_from, given.import_from_format, given.image_properties)
