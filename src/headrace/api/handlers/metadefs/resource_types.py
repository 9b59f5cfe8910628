"""/v2/metadefs/resource_types, and the associations of a namespace with them."""

import falcon
import msgspec

from headrace.api import metadefs as shown
from headrace.api.requests import read_json, refuse_body
from headrace.service.definitions import AssociationForm, form
from headrace.service.metadefs import Metadefs


class ResourceTypesHandler:
    """All resource types."""

    def __init__(self, metadefs: Metadefs) -> None:
        self._metadefs = metadefs

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        found = self._metadefs.list_resource_types(req.context.caller)
        resp.data = msgspec.json.encode(
            {"resource_types": [shown.resource_type(each) for each in found]}
        )


class AssociationsHandler:
    """The associations of a namespace."""

    def __init__(self, metadefs: Metadefs) -> None:
        self._metadefs = metadefs

    def on_get(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        found = self._metadefs.list_associations(req.context.caller, namespace)
        resp.data = msgspec.json.encode(
            {"resource_type_associations": [shown.association(each) for each in found]}
        )

    def on_post(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        made = form(AssociationForm, read_json(req)).value(self._metadefs.now())
        self._metadefs.associate(req.context.caller, namespace, made)
        resp.status = falcon.HTTP_201
        resp.data = msgspec.json.encode(shown.association(made))


class AssociationHandler:
    """One association."""

    def __init__(self, metadefs: Metadefs) -> None:
        self._metadefs = metadefs

    def on_delete(
        self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str
    ) -> None:
        refuse_body(req)
        self._metadefs.dissociate(req.context.caller, namespace, name)
        resp.status = falcon.HTTP_204
