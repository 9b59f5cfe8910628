"""/v2/images and /v2/images/{image_id}: the records."""

import falcon
import msgspec

from headrace import errors
from headrace.api import patches, queries
from headrace.api.requests import media_type, query_pairs, read_json, refuse_body
from headrace.api.times import timestamp
from headrace.model import Image
from headrace.service.images import Images

_PATH = "/v2/images"


def render(image: Image) -> dict[str, object]:
    """The image as the API shows it."""
    path = f"{_PATH}/{image.id}"
    return {
        **image.properties,
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

    def __init__(self, images: Images, default_limit: int, max_limit: int) -> None:
        self._images = images
        self._default_limit = default_limit
        self._max_limit = max_limit

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read_json(req)
        if not isinstance(body, dict):
            raise errors.InvalidBody(reason="an image is an object")
        image = self._images.create(req.context.caller, body)
        resp.status = falcon.HTTP_201
        resp.location = f"{req.prefix}{_PATH}/{image.id}"
        resp.data = msgspec.json.encode(render(image))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        pairs = query_pairs(req)
        query = queries.image_query(pairs, self._default_limit, self._max_limit)
        page = self._images.list(req.context.caller, query)
        answer: dict[str, object] = {
            "images": [render(image) for image in page.images],
            "first": queries.page_link(_PATH, pairs, None),
            "schema": "/v2/schemas/images",
        }
        if page.full and page.images:
            answer["next"] = queries.page_link(_PATH, pairs, page.images[-1].id)
        resp.data = msgspec.json.encode(answer)


class ImageHandler:
    """One image."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        refuse_body(req)
        resp.data = msgspec.json.encode(render(self._images.show(req.context.caller, image_id)))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        try:
            draft = media_type(req, patches.V21, patches.V20)
        except errors.UnsupportedMediaType:
            resp.set_header("Accept-Patch", f"{patches.V21}, {patches.V20}")
            raise
        changes = patches.changes(draft, read_json(req))
        image = self._images.update(req.context.caller, image_id, changes)
        resp.data = msgspec.json.encode(render(image))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        refuse_body(req)
        self._images.delete(req.context.caller, image_id)
        resp.status = falcon.HTTP_204
