"""The schemas of tasks, in the form that the Image API's clients read."""

from headrace.api.schemas import UUID
from headrace.model import TaskStatus

TYPES = ("import", "api_image_import", "location_import")

_TEXT: dict[str, object] = {"type": ["null", "string"]}
_OBJECT: dict[str, object] = {"type": ["null", "object"]}
_FIELDS: dict[str, dict[str, object]] = {
    "id": {"description": "Identifier of the task", "pattern": UUID, "type": "string"},
    "type": {"description": "What is done", "enum": list(TYPES), "type": "string"},
    "status": {
        "description": "How far it is",
        "enum": [each.value for each in TaskStatus],
        "type": "string",
    },
    "owner": {"description": "Project that asked for it", "type": "string"},
    "image_id": {"description": "Image that it is about", **_TEXT},
    "request_id": {"description": "Request that asked for it", **_TEXT},
    "user_id": {"description": "User who asked for it", **_TEXT},
    "input": {"description": "What was asked for", **_OBJECT},
    "result": {"description": "What came of it", **_OBJECT},
    "message": {"description": "How far it is, or why it failed", "type": "string"},
    "expires_at": {"description": "When it is forgotten", **_TEXT},
    "created_at": {"description": "When it was asked for", "type": "string"},
    "updated_at": {"description": "When it was last heard of", "type": "string"},
    "self": {"readOnly": True, "type": "string"},
    "schema": {"readOnly": True, "type": "string"},
}

TASK_SCHEMA: dict[str, object] = {"name": "task", "properties": _FIELDS}
TASKS_SCHEMA: dict[str, object] = {
    "name": "tasks",
    "properties": {
        "tasks": {"type": "array", "items": TASK_SCHEMA},
        "first": {"type": "string"},
        "next": {"type": "string"},
        "schema": {"type": "string"},
    },
    "links": [
        {"rel": "first", "href": "{first}"},
        {"rel": "next", "href": "{next}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}
