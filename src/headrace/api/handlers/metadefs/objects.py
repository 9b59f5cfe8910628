"""/v2/metadefs/namespaces/{namespace}/objects and …/objects/{name}."""

import falcon
import msgspec

from headrace.api import metadefs as shown
from headrace.api import queries
from headrace.api.requests import query_pairs, read_json
from headrace.model import AS_ADDED, MetadefObject
from headrace.service.definitions import ObjectForm, form
from headrace.service.metadefs import Metadefs


class ObjectsHandler:
    """The objects of a namespace."""

    def __init__(self, metadefs: Metadefs, max_limit: int) -> None:
        self._metadefs = metadefs
        self._max_limit = max_limit

    def on_get(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        paging = queries.part_paging(query_pairs(req), self._max_limit, AS_ADDED, least=1)
        found = self._metadefs.list_parts(req.context.caller, MetadefObject, namespace, paging)
        resp.data = msgspec.json.encode(shown.objects(namespace, found))

    def on_post(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        made = form(ObjectForm, read_json(req)).value(self._metadefs.now())
        self._metadefs.create_part(req.context.caller, namespace, made)
        resp.status = falcon.HTTP_201
        resp.data = msgspec.json.encode(shown.object_(namespace, made))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        self._metadefs.delete_parts(req.context.caller, MetadefObject, namespace)
        resp.status = falcon.HTTP_204


class ObjectHandler:
    """One object."""

    def __init__(self, metadefs: Metadefs) -> None:
        self._metadefs = metadefs

    def on_get(self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str) -> None:
        found = self._metadefs.show_part(req.context.caller, MetadefObject, namespace, name)
        resp.data = msgspec.json.encode(shown.object_(namespace, found))

    def on_put(self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str) -> None:
        given = form(ObjectForm, read_json(req)).value(self._metadefs.now())
        changed = self._metadefs.update_part(req.context.caller, namespace, name, given)
        resp.data = msgspec.json.encode(shown.object_(namespace, changed))

    def on_delete(
        self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str
    ) -> None:
        self._metadefs.delete_part(req.context.caller, MetadefObject, namespace, name)
        resp.status = falcon.HTTP_204
