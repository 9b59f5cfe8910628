"""What is said of the service itself: versions, health, stores, schemas, metrics."""

from headrace import errors, metrics
from headrace.api.openapi.operation import JSON, TEXT, Operation, Operations, json

_ROOT = Operation(summary="List the API's versions", status=300, content=json("Versions"))
_SCHEMAS = (
    "image",
    "images",
    "member",
    "members",
    "task",
    "tasks",
    *(
        f"metadefs/{name}"
        for one, more in (
            ("namespace", "namespaces"),
            ("object", "objects"),
            ("property", "properties"),
            ("resource_type", "resource_types"),
            ("tag", "tags"),
        )
        for name in (one, more)
    ),
)
_HEALTH = {JSON: {"$ref": "#/components/schemas/Health"}, "text/plain": TEXT}

OPERATIONS: Operations = {
    # Whatever is asked there: here end the paths of all versions that there are not.
    **{(method, "/"): _ROOT for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")},
    ("GET", "/versions"): Operation(summary="List the API's versions", content=json("Versions")),
    ("GET", "/v2"): Operation(summary="Go on with a slash", status=302, headers=("Location",)),
    ("GET", "/healthcheck"): Operation(
        summary="Ask whether requests should be sent here", content=_HEALTH, also={503: _HEALTH}
    ),
    ("HEAD", "/healthcheck"): Operation(
        summary="Ask whether requests should be sent here", status=204, also={503: {}}
    ),
    ("GET", "/metrics"): Operation(
        summary="Read what is counted, for Prometheus",
        content={metrics.CONTENT_TYPE.partition(";")[0]: TEXT},
        refusals=(errors.Forbidden,),
    ),
    ("GET", "/metrics/transfers"): Operation(
        summary="List the transfers under way",
        content=json("Transfers"),
        refusals=(errors.Forbidden,),
    ),
    ("GET", "/v2/openapi.json"): Operation(
        summary="Read this description", content={JSON: {"type": "object"}}
    ),
    ("GET", "/v2/info/stores"): Operation(
        summary="List the stores, where there are several",
        content=json("Stores"),
        refusals=(errors.NotFound,),
    ),
    ("GET", "/v2/info/stores/detail"): Operation(
        summary="List the stores with all about them",
        content=json("StoresDetail"),
        refusals=(errors.NotFound, errors.Forbidden),
    ),
    ("GET", "/v2/info/usage"): Operation(
        summary="Show what the caller's project uses, of what it may",
        content=json("Usage"),
        refusals=(errors.LimitsUnavailable,),
    ),
    ("DELETE", "/v2/stores/{store_id}/{image_id}"): Operation(
        summary="Remove an image's data from one store",
        status=204,
        refusals=(
            errors.NotFound,
            errors.ImageNotFound,
            errors.Forbidden,
            errors.LastLocation,
            errors.Conflict,
            errors.StatusConflict,
            errors.DataInUse,
            errors.ImageChanged,
        ),
    ),
    **{
        ("GET", f"/v2/schemas/{name}"): Operation(
            summary=f"Read the schema of {name.rpartition('/')[2].replace('_', ' ')}",
            content={JSON: {"type": "object"}},
        )
        for name in _SCHEMAS
    },
}
