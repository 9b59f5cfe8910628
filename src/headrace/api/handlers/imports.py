"""/v2/images/{image_id}/stage and …/import, and /v2/info/import: data that is imported."""

from collections.abc import Sequence
from functools import partial

import falcon
import msgspec

from headrace import errors
from headrace.api import intake
from headrace.api.handlers.content import Turns, announced_size, store_id
from headrace.api.import_bodies import import_request
from headrace.api.requests import media_type, read_json, refuse_body
from headrace.api.traffic import Traffic
from headrace.service.imports import Imports
from headrace.service.staging import Staging
from headrace.transfer import engine


class StageHandler:
    """An image's data, to be imported later; an upload among the others."""

    def __init__(self, staging: Staging, enabled: bool, traffic: Traffic, turns: Turns) -> None:
        self._staging = staging
        self._enabled = enabled
        self._traffic = traffic
        self._turns = turns

    def on_put(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        if not self._enabled:
            raise errors.NotFound("the import method glance-direct is not enabled")
        media_type(req, "application/octet-stream")
        announced, body = announced_size(req), intake.body(req.env)
        size = announced if body.length is None else body.length
        way = "splice" if intake.BODY in req.env and engine.enabled() else "copy"
        with self._turns, self._traffic.upload(image_id, req.remote_addr, size, way) as transfer:
            how = self._staging.stage(
                req.context.caller, image_id, body, announced, partial(setattr, transfer, "landed")
            )
            if how is not None:
                transfer.went(how)
        resp.status = falcon.HTTP_204


class ImportHandler:
    """The import of one image's data."""

    def __init__(self, imports: Imports) -> None:
        self._imports = imports

    def on_post(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        request = import_request(read_json(req), store_id(req))
        self._imports.begin(req.context.caller, image_id, request)
        resp.status = falcon.HTTP_202
        # Clients parse what is said to be JSON, and there is nothing.
        resp.content_type = "text/plain"


class ImportInfoHandler:
    """The import methods that a caller may choose among."""

    def __init__(self, methods: Sequence[str]) -> None:
        self._methods = list(methods)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        refuse_body(req)
        told = {
            "description": "Import methods available.",
            "type": "array",
            "value": self._methods,
        }
        resp.data = msgspec.json.encode({"import-methods": told})
