"""What is said of imports: data that is staged, brought in, fetched or copied, and their tasks."""

from headrace import errors
from headrace.api.handlers.tasks import SORT_KEYS
from headrace.api.openapi.images import IMAGE, PAGE
from headrace.api.openapi.operation import (
    BODY,
    DATA,
    JSON_BODY,
    Operation,
    Operations,
    choice,
    header,
    json,
    query,
)
from headrace.api.tasks import TYPES
from headrace.model import TaskStatus

_SEEN = (errors.ImageNotFound, errors.Forbidden)

OPERATIONS: Operations = {
    ("PUT", f"{IMAGE}/stage"): Operation(
        summary="Stage an image's data, to be imported",
        status=204,
        parameters=(header("x-openstack-image-size", "How many bytes will come"),),
        body=DATA,
        refusals=(
            *BODY,
            *_SEEN,
            errors.NotFound,
            errors.UnsupportedMediaType,
            errors.StatusConflict,
            errors.ImageTooLarge,
            errors.QuotaExceeded,
            errors.LimitsUnavailable,
            errors.SizeMismatch,
            errors.StoreFull,
            errors.StoreUnwritable,
            errors.DataExists,
            errors.ImageGone,
            errors.ImageChanged,
            errors.UploadsBusy,
        ),
    ),
    ("POST", f"{IMAGE}/import"): Operation(
        summary="Have an image's data brought in, behind the answer",
        status=202,
        parameters=(header("x-image-meta-store", "The store that it is for"),),
        body=json("ImportBody"),
        refusals=(
            *JSON_BODY,
            *_SEEN,
            errors.InvalidLocation,
            errors.StatusConflict,
            errors.Conflict,
            errors.ImageBusy,
            errors.QuotaExceeded,
            errors.LimitsUnavailable,
            errors.ImageChanged,
        ),
    ),
    ("GET", f"{IMAGE}/tasks"): Operation(
        summary="List the tasks about an image", content=json("ImageTasks"), refusals=_SEEN
    ),
    ("GET", "/v2/info/import"): Operation(
        summary="List the import methods", content=json("ImportMethods")
    ),
    ("GET", "/v2/tasks"): Operation(
        summary="List all tasks",
        content=json("Tasks"),
        parameters=(
            *PAGE,
            query("sort_key", "What the list is sorted by", choice(SORT_KEYS)),
            query("sort_dir", "Which way", choice(("asc", "desc"))),
            query("status", "Tasks of this status", choice(TaskStatus)),
            query("type", "Tasks of this type", choice(TYPES)),
        ),
        refusals=(errors.Forbidden, errors.InvalidQuery),
    ),
    ("POST", "/v2/tasks"): Operation(
        summary="Have an image made of data that is fetched; deprecated",
        status=201,
        headers=("Location",),
        content=json("Task"),
        body=json("TaskBody"),
        refusals=(
            *JSON_BODY,
            errors.Forbidden,
            errors.InvalidLocation,
            errors.InvalidProperty,
            errors.PropertyReadOnly,
            errors.PropertyReserved,
            errors.QuotaExceeded,
            errors.LimitsUnavailable,
            errors.ImageExists,
        ),
    ),
    ("GET", "/v2/tasks/{task_id}"): Operation(
        summary="Show a task", content=json("Task"), refusals=(errors.NotFound, errors.Forbidden)
    ),
}
