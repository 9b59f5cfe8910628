"""/v2/cache, and the routes that were there before: the image cache."""

import falcon
import msgspec

from headrace import errors
from headrace.api.requests import refuse_body
from headrace.cache.index import Cached
from headrace.service.cache_contents import LEGACY, CacheContents, Part
from headrace.service.context import Context

_TARGET = "x-image-cache-clear-target"
_NOTHING = "text/plain"  # clients parse what is said to be JSON, and there is nothing


def handlers(contents: CacheContents) -> dict[str, object]:
    """Path template → handler."""
    return {
        "/v2/cache": CacheHandler(contents),
        "/v2/cache/{image_id}": CachedImageHandler(contents),
        "/v2/cache/nodes/{image_id}": NodesHandler(contents),
        "/v2/cache/clean": CleanHandler(contents),
        "/v2/cache/prune": PruneHandler(contents),
        "/v2/cached_images": LegacyCacheHandler(contents),
        "/v2/cached_images/{image_id}": LegacyCachedImageHandler(contents),
        "/v2/queued_images": LegacyQueueHandler(contents),
        "/v2/queued_images/{image_id}": LegacyQueuedImageHandler(contents),
    }


class _Handler:
    def __init__(self, contents: CacheContents) -> None:
        self._contents = contents


class CacheHandler(_Handler):
    """All that is cached or queued."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        found = self._contents.list(_caller(req))
        cached = list(map(_render, found.cached))
        resp.data = msgspec.json.encode({"cached_images": cached, "queued_images": found.queued})

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._contents.clear(_caller(req), _part(req))
        resp.status = falcon.HTTP_204


class CachedImageHandler(_Handler):
    """One image in the cache."""

    def on_put(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        self._contents.queue(_caller(req), image_id)
        resp.status = falcon.HTTP_202
        resp.content_type = _NOTHING

    def on_delete(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        self._contents.delete(_caller(req), image_id)
        resp.status = falcon.HTTP_204


class NodesHandler(_Handler):
    """The nodes that have cached an image."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        self._contents.nodes(_caller(req), image_id)


class CleanHandler(_Handler):
    """Removal of what is of no use."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._contents.clean(_caller(req))
        resp.content_type = _NOTHING


class PruneHandler(_Handler):
    """Removal of what is too much."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        images, size = self._contents.prune(_caller(req))
        told = {"total_files_pruned": images, "total_bytes_pruned": size}
        resp.data = msgspec.json.encode(told)


class LegacyCacheHandler(_Handler):
    """All that is cached."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        found = self._contents.list(_caller(req), LEGACY)
        resp.data = msgspec.json.encode({"cached_images": list(map(_render, found.cached))})

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        number = self._contents.clear(_caller(req), Part.CACHE, LEGACY)
        resp.data = msgspec.json.encode({"num_deleted": number})


class LegacyCachedImageHandler(_Handler):
    """One image in the cache."""

    def on_delete(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        self._contents.delete(_caller(req), image_id, LEGACY)
        resp.data = b"null"


class LegacyQueueHandler(_Handler):
    """All that is queued."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        found = self._contents.list(_caller(req), LEGACY)
        resp.data = msgspec.json.encode({"queued_images": found.queued})

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        number = self._contents.clear(_caller(req), Part.QUEUE, LEGACY)
        resp.data = msgspec.json.encode({"num_deleted": number})


class LegacyQueuedImageHandler(_Handler):
    """One image in the queue."""

    def on_put(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        self._contents.queue(_caller(req), image_id, LEGACY)
        resp.data = b"null"

    def on_delete(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        self._contents.unqueue(_caller(req), image_id, LEGACY)
        resp.data = b"null"


def _caller(req: falcon.Request) -> Context:
    """Who asks; raises BadRequest where there is a body, which nothing here takes."""
    refuse_body(req)
    caller: Context = req.context.caller
    return caller


def _render(cached: Cached) -> dict[str, object]:
    told: dict[str, object] = {
        "image_id": cached.image_id,
        "hits": cached.hits,
        "last_accessed": cached.last_accessed,
        "last_modified": cached.last_modified,
        "size": cached.size,
    }
    if cached.checksum:
        told["checksum"] = cached.checksum
    return told


def _part(req: falcon.Request) -> Part:
    """What is to be cleared; raises BadRequest."""
    target = req.get_header(_TARGET) or ""
    try:
        return Part(target)
    except ValueError:
        raise errors.BadRequest(reason=f"{_TARGET} {target!r} is neither cache nor queue") from None
