"""What administrators see of the image cache, and do with it."""

from dataclasses import dataclass, replace
from enum import StrEnum

from headrace import errors
from headrace.cache.index import Cached
from headrace.db import images as rows
from headrace.db.engine import Database
from headrace.model import IMAGE_ID, Image, Status, Viewer
from headrace.service import policy
from headrace.service.cache import Cache
from headrace.service.context import Context
from headrace.service.prefetch import Prefetch

_EVERYBODY = Viewer(is_admin=True)

LEGACY = "manage_image_cache"
"""The rule of the API that was there before."""


class Part(StrEnum):
    """What of a cache is meant."""

    ALL = ""
    CACHE = "cache"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Contents:
    """What is cached, and the images that are to be, oldest wish first."""

    cached: list[Cached]
    queued: list[str]


class CacheContents:
    """The contents of a cache, if there is one; everything raises Forbidden, and NotFound where
    there is none.

    ``rule`` is what is asked of the policy, where it is not the act's own.
    """

    def __init__(self, database: Database, cache: Cache | None, prefetch: Prefetch | None) -> None:
        self._database = database
        self._cache = cache
        self._prefetch = prefetch

    def list(self, context: Context, rule: str = "cache_list") -> Contents:
        """What is there."""
        cache = self._require(context, rule)
        hits = cache.hits()
        cached = [
            replace(each, hits=each.hits + hits[each.image_id]) for each in cache.directory.cached()
        ]
        cached.sort(key=lambda each: each.image_id)
        return Contents(cached, cache.directory.queued())

    def queue(self, context: Context, image_id: str, rule: str = "cache_image") -> None:
        """Have an image cached soon; raises ImageNotFound, BadRequest (it is not active)."""
        cache = self._require(context, rule)
        image = self._image(image_id)
        if image.status is not Status.ACTIVE:
            raise errors.BadRequest(reason=f"image {image.id} is {image.status}, not active")
        cache.directory.queue(image.id)
        if self._prefetch is not None:
            self._prefetch.start()

    def delete(self, context: Context, image_id: str, rule: str = "cache_delete") -> None:
        """Remove an image from the cache and from the queue; raises ImageNotFound."""
        cache = self._require(context, rule)
        if IMAGE_ID.fullmatch(image_id):
            there = cache.directory.unqueue(image_id)
            if cache.directory.delete(image_id) or there:
                return
        self._image(image_id)

    def clear(self, context: Context, part: Part, rule: str = "cache_delete") -> int:
        """Remove all that is cached, all that is queued or both; how many images that were."""
        cache = self._require(context, rule)
        queued = [] if part is Part.CACHE else cache.directory.queued()
        number = sum(map(cache.directory.unqueue, queued))
        return number if part is Part.QUEUE else number + cache.directory.clear()

    def unqueue(self, context: Context, image_id: str, rule: str) -> None:
        """Have an image not cached that was to be."""
        cache = self._require(context, rule)
        if not IMAGE_ID.fullmatch(image_id) or not cache.directory.unqueue(image_id):
            self._image(image_id)

    def clean(self, context: Context) -> None:
        """Remove what failed, and what was interrupted too long ago."""
        cache = self._require(context, "cache_clean")
        cache.directory.clean(cache.keep)

    def prune(self, context: Context) -> tuple[int, int]:
        """Make the cache fit its size; how many images, and bytes, had to go."""
        return self._require(context, "cache_prune").directory.prune()

    def nodes(self, context: Context, image_id: str) -> None:
        """Which nodes have cached an image: no node knows of others.

        Raises ImageNotFound, Conflict.
        """
        self._require(context, "list_cached_nodes")
        self._image(image_id)
        raise errors.Conflict(reason="the caches of several nodes know nothing of each other")

    def _require(self, context: Context, rule: str) -> Cache:
        policy.require(context, rule)
        if self._cache is None:
            raise errors.NotFound("there is no image cache here: image_cache_dir is not set")
        return self._cache

    def _image(self, image_id: str) -> Image:
        return rows.show_for_download(self._database, image_id, _EVERYBODY)
