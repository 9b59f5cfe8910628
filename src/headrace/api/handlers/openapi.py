"""/v2/openapi.json: the API, described."""

from collections.abc import Mapping

import falcon
import msgspec

from headrace.api.openapi import document
from headrace.api.requests import refuse_body
from headrace.api.schemas import Fields


class OpenApiHandler:
    """The description of ``resources``, path template → handler, of which this is one."""

    def __init__(self, fields: Fields, resources: Mapping[str, object]) -> None:
        self._fields = fields
        self._resources = resources
        self._document = b""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        refuse_body(req)
        if not self._document:  # hardly anybody asks
            self._document = msgspec.json.encode(document(self._fields, self._resources))
        resp.data = self._document
