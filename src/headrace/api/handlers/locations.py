"""/v2/images/{image_id}/locations: where an image's data lies."""

import falcon
import msgspec

from headrace.api.location_bodies import new_location
from headrace.api.requests import read_json, refuse_body
from headrace.service.locations import Locations


class LocationsHandler:
    """The locations of one image."""

    def __init__(self, locations: Locations) -> None:
        self._locations = locations

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        refuse_body(req)
        found = self._locations.show(req.context.caller, image_id)
        resp.data = msgspec.json.encode(
            [{"url": each.shown, "metadata": each.metadata} for each in found]
        )

    def on_post(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        self._locations.add(req.context.caller, image_id, new_location(read_json(req)))
        resp.status = falcon.HTTP_202
        # Clients parse what is said to be JSON, and there is nothing.
        resp.content_type = "text/plain"
