"""/v2/metadefs/namespaces/{namespace}/tags and …/tags/{name}."""

import falcon
import msgspec

from headrace.api import metadefs as shown
from headrace.api import queries
from headrace.api.requests import query_pairs, read_json, refuse_body
from headrace.model import MetadefTag, Paging
from headrace.service.definitions import TagForm, TagsForm, form
from headrace.service.metadefs import Metadefs

_NEWEST_FIRST = Paging()
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})


class TagsHandler:
    """The tags of a namespace."""

    def __init__(self, metadefs: Metadefs, max_limit: int) -> None:
        self._metadefs = metadefs
        self._max_limit = max_limit

    def on_get(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        paging = queries.part_paging(query_pairs(req), self._max_limit, _NEWEST_FIRST)
        found = self._metadefs.list_parts(req.context.caller, MetadefTag, namespace, paging)
        resp.data = msgspec.json.encode({"tags": [shown.tag_name(each) for each in found]})

    def on_post(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        now = self._metadefs.now()
        tags = [each.value(now) for each in form(TagsForm, read_json(req)).tags]
        append = (req.get_header("X-Openstack-Append") or "").strip().lower() in _TRUE
        self._metadefs.set_tags(req.context.caller, namespace, tags, append=append)
        resp.status = falcon.HTTP_201
        resp.data = msgspec.json.encode({"tags": [shown.tag_name(each) for each in tags]})

    def on_delete(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        self._metadefs.delete_parts(req.context.caller, MetadefTag, namespace)
        resp.status = falcon.HTTP_204


class TagHandler:
    """One tag."""

    def __init__(self, metadefs: Metadefs) -> None:
        self._metadefs = metadefs

    def on_get(self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str) -> None:
        found = self._metadefs.show_part(req.context.caller, MetadefTag, namespace, name)
        resp.data = msgspec.json.encode(shown.tag(found))

    def on_post(
        self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str
    ) -> None:
        refuse_body(req)
        made = form(TagForm, {"name": name}).value(self._metadefs.now())
        self._metadefs.create_part(req.context.caller, namespace, made)
        resp.status = falcon.HTTP_201
        resp.data = msgspec.json.encode(shown.tag(made))

    def on_put(self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str) -> None:
        given = form(TagForm, read_json(req)).value(self._metadefs.now())
        changed = self._metadefs.update_part(req.context.caller, namespace, name, given)
        resp.data = msgspec.json.encode(shown.tag(changed))

    def on_delete(
        self, req: falcon.Request, resp: falcon.Response, namespace: str, name: str
    ) -> None:
        self._metadefs.delete_part(req.context.caller, MetadefTag, namespace, name)
        resp.status = falcon.HTTP_204
