"""/v2/images and /v2/images/{image_id}: the records."""

from collections.abc import Sequence

import falcon
import msgspec

from headrace import errors
from headrace.api import patches, queries
from headrace.api.location_bodies import location_changes
from headrace.api.requests import media_type, query_pairs, read_json, refuse_body
from headrace.api.times import timestamp
from headrace.api.whereabouts import Whereabouts
from headrace.model import Image
from headrace.service.context import Context
from headrace.service.images import Images
from headrace.service.locations import Locations

_PATH = "/v2/images"


def render(image: Image, caller: Context, whereabouts: Whereabouts) -> dict[str, object]:
    """The image as the API shows it to the caller."""
    path = f"{_PATH}/{image.id}"
    return {
        **image.properties,
        **whereabouts.of(image, caller),
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "visibility": image.visibility,
        "protected": image.protected,
        "os_hidden": image.os_hidden,
        "owner": image.owner,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "checksum": image.checksum,
        "os_hash_algo": image.os_hash_algo,
        "os_hash_value": image.os_hash_value,
        "container_format": image.container_format,
        "disk_format": image.disk_format,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "tags": sorted(image.tags),
        "created_at": timestamp(image.created_at),
        "updated_at": timestamp(image.updated_at),
        "self": path,
        "file": f"{path}/file",
        "schema": "/v2/schemas/image",
    }


class ImagesHandler:
    """The collection."""

    def __init__(
        self,
        images: Images,
        whereabouts: Whereabouts,
        store_ids: Sequence[str],
        import_methods: Sequence[str],
        default_limit: int,
        max_limit: int,
    ) -> None:
        self._images = images
        self._whereabouts = whereabouts
        self._store_ids = ",".join(store_ids)
        self._import_methods = ",".join(import_methods)
        self._default_limit = default_limit
        self._max_limit = max_limit

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read_json(req)
        if not isinstance(body, dict):
            raise errors.InvalidBody(reason="an image is an object")
        image = self._images.create(req.context.caller, body)
        if self._import_methods:
            resp.set_header("OpenStack-image-import-methods", self._import_methods)
        if self._store_ids:
            resp.set_header("OpenStack-image-store-ids", self._store_ids)
        resp.status = falcon.HTTP_201
        resp.location = f"{req.prefix}{_PATH}/{image.id}"
        resp.data = msgspec.json.encode(render(image, req.context.caller, self._whereabouts))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        pairs = query_pairs(req)
        query = queries.image_query(pairs, self._default_limit, self._max_limit)
        page = self._images.list(req.context.caller, query)
        answer: dict[str, object] = {
            "images": [
                render(image, req.context.caller, self._whereabouts) for image in page.images
            ],
            "first": queries.page_link(_PATH, pairs, None),
            "schema": "/v2/schemas/images",
        }
        if page.full and page.last is not None:
            answer["next"] = queries.page_link(_PATH, pairs, page.last)
        resp.data = msgspec.json.encode(answer)


class ImageHandler:
    """One image."""

    def __init__(self, images: Images, locations: Locations, whereabouts: Whereabouts) -> None:
        self._images = images
        self._locations = locations
        self._whereabouts = whereabouts

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        refuse_body(req)
        image = self._images.show(req.context.caller, image_id)
        resp.data = msgspec.json.encode(render(image, req.context.caller, self._whereabouts))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        try:
            draft = media_type(req, patches.V21, patches.V20)
        except errors.UnsupportedMediaType:
            resp.set_header("Accept-Patch", f"{patches.V21}, {patches.V20}")
            raise
        document = read_json(req)
        # Where they are not shown they are no part of the image.
        moves = location_changes(draft, document) if self._whereabouts.locations else None
        if moves is not None:
            image = self._locations.update(req.context.caller, image_id, moves)
        else:
            changes = patches.changes(draft, document)
            image = self._images.update(req.context.caller, image_id, changes)
        resp.data = msgspec.json.encode(render(image, req.context.caller, self._whereabouts))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        refuse_body(req)
        self._images.delete(req.context.caller, image_id)
        resp.status = falcon.HTTP_204
