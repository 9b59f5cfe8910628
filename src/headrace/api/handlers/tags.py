"""/v2/images/{image_id}/tags/{tag}: one tag, put on or taken away."""

import falcon

from headrace import errors
from headrace.api.requests import refuse_body
from headrace.service.images import Images


class TagHandler:
    """One tag of an image."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def on_put(self, req: falcon.Request, resp: falcon.Response, image_id: str, tag: str) -> None:
        refuse_body(req)
        if not tag:
            raise errors.NotFound
        self._images.add_tag(req.context.caller, image_id, tag)
        resp.status = falcon.HTTP_204

    def on_delete(
        self, req: falcon.Request, resp: falcon.Response, image_id: str, tag: str
    ) -> None:
        refuse_body(req)
        self._images.delete_tag(req.context.caller, image_id, tag)
        resp.status = falcon.HTTP_204
