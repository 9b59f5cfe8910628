"""The versions document, at / and /versions; the way from /v2 to /v2/."""

import falcon
import msgspec

from headrace.api import versions


class VersionsHandler:
    """The versions document; ``base`` is public_endpoint, None for the request's own address.

    ``several`` is whether there are several stores, ``cached`` whether there is an image cache:
    some versions stand for them.
    """

    def __init__(self, status: str, base: str | None, *, several: bool, cached: bool) -> None:
        self._status = status
        self._base = base
        self._several = several
        self._cached = cached

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.status = self._status
        base = self._base or req.prefix
        document = versions.document(base, several=self._several, cached=self._cached)
        resp.data = msgspec.json.encode(document)


class RootHandler(VersionsHandler):
    """The same whatever is asked: here end the paths of all versions that there are not."""

    on_head = on_post = on_put = on_patch = on_delete = VersionsHandler.on_get


class SlashHandler:
    """A redirect to the same path with a slash behind it."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.status = falcon.HTTP_302
        resp.location = f"{req.prefix}{req.path}/"
