"""/v2/metadefs/namespaces and /v2/metadefs/namespaces/{namespace}."""

import falcon
import msgspec

from headrace.api import metadefs as shown
from headrace.api import queries
from headrace.api.requests import query_pairs, read_json, refuse_body
from headrace.model import Namespace
from headrace.service.definitions import NamespaceForm, form
from headrace.service.metadefs import NOBODY, Metadefs


class NamespacesHandler:
    """The collection."""

    def __init__(self, metadefs: Metadefs, default_limit: int, max_limit: int) -> None:
        self._metadefs = metadefs
        self._default_limit = default_limit
        self._max_limit = max_limit

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        pairs = query_pairs(req)
        query = queries.namespace_query(pairs, self._default_limit, self._max_limit)
        found = self._metadefs.list_namespaces(req.context.caller, query)
        answer: dict[str, object] = {
            "namespaces": [shown.namespace(each) for each in found],
            "first": queries.page_link(shown.NAMESPACES, pairs, None),
            "schema": "/v2/schemas/metadefs/namespaces",
        }
        if found and len(found) == query.paging.limit:
            answer["next"] = queries.page_link(shown.NAMESPACES, pairs, found[-1].namespace)
        resp.data = msgspec.json.encode(answer)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        made = self._metadefs.create_namespace(req.context.caller, _given(req, self._metadefs))
        resp.status = falcon.HTTP_201
        resp.location = f"{req.prefix}{shown.namespace_path(made.namespace)}"
        resp.data = msgspec.json.encode(shown.namespace(made))


class NamespaceHandler:
    """One namespace."""

    def __init__(self, metadefs: Metadefs) -> None:
        self._metadefs = metadefs

    def on_get(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        refuse_body(req)
        resource_type = queries.resource_type(query_pairs(req))
        found = self._metadefs.show_namespace(req.context.caller, namespace, resource_type)
        resp.data = msgspec.json.encode(shown.namespace(found))

    def on_put(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        # What is in it may be given, since clients send back what they were shown; it stays.
        given = _given(req, self._metadefs)
        changed = self._metadefs.update_namespace(req.context.caller, namespace, given)
        resp.data = msgspec.json.encode(shown.namespace(changed))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        refuse_body(req)
        self._metadefs.delete_namespace(req.context.caller, namespace)
        resp.status = falcon.HTTP_204


def _given(req: falcon.Request, metadefs: Metadefs) -> Namespace:
    owner = req.context.caller.project_id or NOBODY
    return form(NamespaceForm, read_json(req)).value(metadefs.now(), owner)
