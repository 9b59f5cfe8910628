"""/v2/info/stores, and /v2/stores/{store_id}/{image_id}: the stores, and data removed from one."""

import falcon
import msgspec

from headrace.api.requests import refuse_body
from headrace.service.stores import StoreInfo, Stores


class StoresHandler:
    """What everybody is told of the stores."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        refuse_body(req)
        resp.data = msgspec.json.encode({"stores": list(map(_render, self._stores.info()))})


class StoresDetailHandler:
    """What administrators are told of the stores."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        refuse_body(req)
        found = self._stores.detail(req.context.caller)
        resp.data = msgspec.json.encode({"stores": list(map(_render_detail, found))})


class StoredImageHandler:
    """An image's data in one store."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def on_delete(
        self, req: falcon.Request, resp: falcon.Response, store_id: str, image_id: str
    ) -> None:
        refuse_body(req)
        self._stores.delete_data(req.context.caller, store_id, image_id)
        resp.status = falcon.HTTP_204


def _render(store: StoreInfo) -> dict[str, object]:
    """A store as the API shows it: flags are there, as strings, or they are not."""
    told: dict[str, object] = {"id": store.id}
    if store.description:
        told["description"] = store.description
    if store.default:
        told["default"] = "true"
    if store.read_only:
        told["read-only"] = "true"
    return told


def _render_detail(store: StoreInfo) -> dict[str, object]:
    return {
        **_render(store),
        "type": store.kind,
        "weight": store.weight,
        "properties": store.properties,
    }
