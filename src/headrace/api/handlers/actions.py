"""/v2/images/{image_id}/actions/…: out of use, and back."""

import falcon

from headrace.api.requests import refuse_body
from headrace.service.images import Images


class DeactivateHandler:
    """An active image, out of use."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def on_post(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        refuse_body(req)
        self._images.deactivate(req.context.caller, image_id)
        resp.status = falcon.HTTP_204


class ReactivateHandler:
    """A deactivated image, in use again."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def on_post(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        refuse_body(req)
        self._images.reactivate(req.context.caller, image_id)
        resp.status = falcon.HTTP_204
