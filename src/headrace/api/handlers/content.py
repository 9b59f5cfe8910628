"""/v2/images/{image_id}/file: the data."""

import falcon

from headrace import errors
from headrace.api import intake
from headrace.api.delivery import deliver
from headrace.api.requests import media_type
from headrace.service.content import Content


class FileHandler:
    """An image's data, up and down."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        image, extent = self._content.download(req.context.caller, image_id)
        if extent is None:
            resp.status = falcon.HTTP_204
        else:
            deliver(req, resp, image, extent)

    def on_put(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        media_type(req, "application/octet-stream")
        announced = _announced_size(req)
        self._content.upload(req.context.caller, image_id, intake.body(req.env), announced)
        resp.status = falcon.HTTP_204


def _announced_size(req: falcon.Request) -> int | None:
    text = req.get_header("x-openstack-image-size")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise errors.BadRequest(reason="x-openstack-image-size is not a number of bytes")
    return int(text)
