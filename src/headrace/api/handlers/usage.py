"""/v2/info/usage: what the caller's project uses, of what it may."""

import falcon
import msgspec

from headrace.api.requests import refuse_body


class UsageHandler:
    """Usage and limits by their names; there are none as long as projects have no limits."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        refuse_body(req)
        resp.data = msgspec.json.encode({"usage": {}})
