"""/v2/images/{image_id}/tasks and /v2/tasks: what was asked for, and what became of it."""

import falcon
import msgspec

from headrace import errors
from headrace.api import queries
from headrace.api.requests import query_pairs, read_json, refuse_body
from headrace.api.task_bodies import new_image
from headrace.api.tasks import TYPES
from headrace.api.times import timestamp
from headrace.model import Task, TaskQuery, TaskStatus, is_image_id
from headrace.service.tasks import Tasks

_PATH = "/v2/tasks"
SORT_KEYS = ("id", "type", "status", "owner", "created_at", "updated_at")


class ImageTasksHandler:
    """The tasks about one image."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        refuse_body(req)
        found = self._tasks.of_image(req.context.caller, image_id)
        resp.data = msgspec.json.encode({"tasks": [_of_image(task) for task in found]})


class TasksHandler:
    """All tasks, for administrators."""

    def __init__(self, tasks: Tasks, default_limit: int, max_limit: int) -> None:
        self._tasks = tasks
        self._default_limit = default_limit
        self._max_limit = max_limit

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        task = self._tasks.create(req.context.caller, new_image(read_json(req)))
        resp.status = falcon.HTTP_201
        resp.location = f"{req.prefix}{_PATH}/{task.id}"
        resp.data = msgspec.json.encode(_whole(task))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        pairs = query_pairs(req)
        query = self._query(dict(pairs))
        found = self._tasks.list(req.context.caller, query)
        answer: dict[str, object] = {
            "tasks": [_listed(task) for task in found],
            "first": queries.page_link(_PATH, pairs, None),
            "schema": "/v2/schemas/tasks",
        }
        if found and len(found) == query.limit:
            answer["next"] = queries.page_link(_PATH, pairs, found[-1].id)
        resp.data = msgspec.json.encode(answer)

    def _query(self, asked: dict[str, str]) -> TaskQuery:
        limit, marker = asked.get("limit", str(self._default_limit)), asked.get("marker")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 10):
            raise errors.InvalidQuery(name="limit", reason="it is not a number")
        if marker is not None and not is_image_id(marker):
            raise errors.InvalidQuery(name="marker", reason="it is not the id of a task")
        return TaskQuery(
            limit=min(int(limit), self._max_limit),
            marker=marker,
            sort_key=_among(asked, "sort_key", SORT_KEYS) or "created_at",
            descending=_among(asked, "sort_dir", ("asc", "desc")) != "asc",
            status=_among(asked, "status", tuple(TaskStatus)),
            type=_among(asked, "type", TYPES),
        )


class TaskHandler:
    """One task, for administrators."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def on_get(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        refuse_body(req)
        resp.data = msgspec.json.encode(_whole(self._tasks.show(req.context.caller, task_id)))


def _among(asked: dict[str, str], name: str, known: tuple[str, ...]) -> str | None:
    value = asked.get(name)
    if value is not None and value not in known:
        raise errors.InvalidQuery(name=name, reason=f"none of {', '.join(known)}")
    return value


def _listed(task: Task) -> dict[str, object]:
    """A task as the API shows it in a list."""
    path = f"{_PATH}/{task.id}"
    optional = {
        "image_id": task.image_id,
        "request_id": task.request_id,
        "user_id": task.user_id,
        "expires_at": timestamp(task.expires_at) if task.expires_at else None,
    }
    return {
        "id": task.id,
        "type": task.type,
        "status": task.status,
        "owner": task.owner,
        "created_at": timestamp(task.created_at),
        "updated_at": timestamp(task.updated_at),
        "self": path,
        "schema": "/v2/schemas/task",
        **{name: value for name, value in optional.items() if value is not None},
    }


def _whole(task: Task) -> dict[str, object]:
    """A task as the API shows it alone."""
    told = {**_listed(task), "input": task.input, "result": task.result}
    return {**told, "message": task.message}


def _of_image(task: Task) -> dict[str, object]:
    """A task as the API shows it beside its image."""
    return {
        "id": task.id,
        "type": task.type,
        "status": task.status,
        "owner": task.owner,
        "expires_at": task.expires_at and task.expires_at.isoformat(),
        "created_at": task.created_at.isoformat(),
        "updated_at": task.updated_at.isoformat(),
        "deleted_at": None,
        "deleted": False,
        "image_id": task.image_id,
        "request_id": task.request_id,
        "user_id": task.user_id,
        "input": task.input,
        "result": task.result,
        "message": task.message,
    }
