"""/v2/info/usage: what the caller's project uses, of what it may."""

import falcon
import msgspec

from headrace.api.requests import refuse_body
from headrace.model import MIB, Resource
from headrace.service.quota import Quota

_IN_MIB = (Resource.SIZE, Resource.STAGE)


class UsageHandler:
    """Usage and limits by their names; none where no project has limits."""

    def __init__(self, quota: Quota | None) -> None:
        self._quota = quota

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        refuse_body(req)
        usage = {}
        if self._quota is not None:
            for resource, (limit, used) in self._quota.usage(req.context.caller).items():
                if resource in _IN_MIB:
                    # A limit that is no whole number of MiB, and what is left of it, are not more.
                    limit, used = limit // MIB, -(-used // MIB)
                usage[resource] = {"limit": limit, "usage": used}
        resp.data = msgspec.json.encode({"usage": usage})
