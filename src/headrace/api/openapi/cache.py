"""What is said of the image cache."""

from headrace import errors
from headrace.api.openapi.operation import JSON, Operation, Operations, choice, header, json
from headrace.service.cache_contents import Part

# NotFound: there is no cache here.
_ALL = (errors.NotFound, errors.Forbidden, errors.StoreUnwritable)
_ONE = (*_ALL, errors.ImageNotFound)
_PARTS = [part for part in Part if part]
_NULL = {JSON: {"type": "null"}}

OPERATIONS: Operations = {
    ("GET", "/v2/cache"): Operation(
        summary="List what is cached, and what is queued for it",
        content=json("Cache"),
        refusals=_ALL,
    ),
    ("DELETE", "/v2/cache"): Operation(
        summary="Empty the cache, its queue or both",
        status=204,
        parameters=(header("x-image-cache-clear-target", "One of them", choice(_PARTS)),),
        refusals=(*_ALL, errors.BadRequest),
    ),
    ("PUT", "/v2/cache/{image_id}"): Operation(
        summary="Have an image cached soon", status=202, refusals=(*_ONE, errors.BadRequest)
    ),
    ("DELETE", "/v2/cache/{image_id}"): Operation(
        summary="Remove an image from the cache and its queue", status=204, refusals=_ONE
    ),
    ("GET", "/v2/cache/nodes/{image_id}"): Operation(
        summary="List the nodes that have cached an image: none knows of others",
        refusals=(*_ONE, errors.Conflict),
    ),
    ("POST", "/v2/cache/clean"): Operation(
        summary="Remove from the cache what is of no use", refusals=_ALL
    ),
    ("POST", "/v2/cache/prune"): Operation(
        summary="Make the cache fit its size", content=json("Pruned"), refusals=_ALL
    ),
    ("GET", "/v2/cached_images"): Operation(
        summary="List what is cached", content=json("CachedImages"), refusals=_ALL
    ),
    ("DELETE", "/v2/cached_images"): Operation(
        summary="Empty the cache", content=json("Deleted"), refusals=_ALL
    ),
    ("DELETE", "/v2/cached_images/{image_id}"): Operation(
        summary="Remove an image from the cache and its queue", content=_NULL, refusals=_ONE
    ),
    ("GET", "/v2/queued_images"): Operation(
        summary="List what is queued for the cache", content=json("QueuedImages"), refusals=_ALL
    ),
    ("DELETE", "/v2/queued_images"): Operation(
        summary="Empty the cache's queue", content=json("Deleted"), refusals=_ALL
    ),
    ("PUT", "/v2/queued_images/{image_id}"): Operation(
        summary="Have an image cached soon", content=_NULL, refusals=(*_ONE, errors.BadRequest)
    ),
    ("DELETE", "/v2/queued_images/{image_id}"): Operation(
        summary="Have an image not cached that was to be", content=_NULL, refusals=_ONE
    ),
}
