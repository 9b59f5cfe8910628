"""/v2/images/{image_id}/members and /v2/images/{image_id}/members/{project}: sharing."""

import falcon
import msgspec

from headrace.api import members
from headrace.api.requests import read_json, refuse_body
from headrace.service.members import Members


class MembersHandler:
    """The members of one image."""

    def __init__(self, service: Members) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        refuse_body(req)
        found = self._service.list(req.context.caller, image_id)
        resp.data = msgspec.json.encode(members.render_list(found))

    def on_post(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        project = members.project(read_json(req))
        member = self._service.create(req.context.caller, image_id, project)
        # 200, not 201: that is what this API's clients know.
        resp.data = msgspec.json.encode(members.render(member))


class MemberHandler:
    """One member of an image."""

    def __init__(self, service: Members) -> None:
        self._service = service

    def on_get(
        self, req: falcon.Request, resp: falcon.Response, image_id: str, project: str
    ) -> None:
        refuse_body(req)
        member = self._service.show(req.context.caller, image_id, project)
        resp.data = msgspec.json.encode(members.render(member))

    def on_put(
        self, req: falcon.Request, resp: falcon.Response, image_id: str, project: str
    ) -> None:
        status = members.status(read_json(req))
        member = self._service.update(req.context.caller, image_id, project, status)
        resp.data = msgspec.json.encode(members.render(member))

    def on_delete(
        self, req: falcon.Request, resp: falcon.Response, image_id: str, project: str
    ) -> None:
        refuse_body(req)
        self._service.delete(req.context.caller, image_id, project)
        resp.status = falcon.HTTP_204
