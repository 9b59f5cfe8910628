"""/v2/metadefs/namespaces/{namespace}/properties and …/properties/{name}."""

import falcon
import msgspec

from headrace.api import metadefs as shown
from headrace.api import queries
from headrace.api.requests import query_pairs, read_json
from headrace.model import AS_ADDED, MetadefProperty
from headrace.service.definitions import NamedPropertyForm, form
from headrace.service.metadefs import Metadefs


class PropertiesHandler:
    """The properties of a namespace."""

    def __init__(self, metadefs: Metadefs) -> None:
        self._metadefs = metadefs

    def on_get(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        found = self._metadefs.list_parts(req.context.caller, MetadefProperty, namespace, AS_ADDED)
        resp.data = msgspec.json.encode({"properties": shown.properties(found)})

    def on_post(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        made = _given(req, self._metadefs)
        self._metadefs.create_part(req.context.caller, namespace, made)
        resp.status = falcon.HTTP_201
        resp.data = msgspec.json.encode(shown.property_(made))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        self._metadefs.delete_parts(req.context.caller, MetadefProperty, namespace)
        resp.status = falcon.HTTP_204


class PropertyHandler:
    """One property."""

    def __init__(self, metadefs: Metadefs) -> None:
        self._metadefs = metadefs

    def on_get(self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str) -> None:
        resource_type = queries.resource_type(query_pairs(req))
        caller = req.context.caller
        if resource_type is None:
            found = self._metadefs.show_part(caller, MetadefProperty, namespace, name)
        else:
            found = self._metadefs.show_prefixed_property(caller, namespace, name, resource_type)
        resp.data = msgspec.json.encode(shown.property_(found))

    def on_put(self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str) -> None:
        given = _given(req, self._metadefs)
        changed = self._metadefs.update_part(req.context.caller, namespace, name, given)
        resp.data = msgspec.json.encode(shown.property_(changed))

    def on_delete(
        self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str
    ) -> None:
        self._metadefs.delete_part(req.context.caller, MetadefProperty, namespace, name)
        resp.status = falcon.HTTP_204


def _given(req: falcon.Request, metadefs: Metadefs) -> MetadefProperty:
    return form(NamedPropertyForm, read_json(req)).value(metadefs.now())
