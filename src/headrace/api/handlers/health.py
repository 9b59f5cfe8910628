"""/healthcheck: whether a load balancer should send requests here."""

import os

import falcon
import msgspec


class HealthHandler:
    """200 (204 for HEAD), or 503 while the operator's file exists."""

    def __init__(self, disabling_file: str) -> None:
        self._disabling_file = disabling_file

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        reason = self._reason()
        resp.status = falcon.HTTP_503 if reason != "OK" else falcon.HTTP_200
        if "application/json" in req.accept:
            resp.data = msgspec.json.encode({"detailed": False, "reasons": [reason]})
        else:
            resp.content_type = "text/plain"
            resp.data = reason.encode()

    def on_head(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.status = falcon.HTTP_503 if self._reason() != "OK" else falcon.HTTP_204

    def _reason(self) -> str:
        return "DISABLED BY FILE" if os.path.exists(self._disabling_file) else "OK"
