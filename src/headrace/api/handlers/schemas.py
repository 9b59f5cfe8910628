"""/v2/schemas: what the resources look like; python-glanceclient builds its options from it."""

import falcon
import msgspec

from headrace.api import metadefs
from headrace.api.members import MEMBER_SCHEMA, MEMBERS_SCHEMA
from headrace.api.requests import refuse_body
from headrace.api.schemas import Fields
from headrace.api.tasks import TASK_SCHEMA, TASKS_SCHEMA


class SchemaHandler:
    """One schema document, encoded once."""

    def __init__(self, document: dict[str, object]) -> None:
        self._document = msgspec.json.encode(document)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        refuse_body(req)
        resp.data = self._document


def handlers(fields: Fields) -> dict[str, SchemaHandler]:
    """Path → handler of every schema."""
    return {
        "/v2/schemas/image": SchemaHandler(fields.image_schema()),
        "/v2/schemas/images": SchemaHandler(fields.images_schema()),
        "/v2/schemas/member": SchemaHandler(MEMBER_SCHEMA),
        "/v2/schemas/members": SchemaHandler(MEMBERS_SCHEMA),
        "/v2/schemas/task": SchemaHandler(TASK_SCHEMA),
        "/v2/schemas/tasks": SchemaHandler(TASKS_SCHEMA),
        **{path: SchemaHandler(document) for path, document in metadefs.schemas().items()},
    }
