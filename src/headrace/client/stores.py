"""The stores of a service that has several."""

from urllib.parse import quote

from headrace.client.connection import Connection
from headrace.errors import ClientError

Record = dict[str, object]


class Stores:
    """The stores behind ``connection``; records are the service's JSON objects."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def list(self, *, detail: bool = False) -> list[Record]:
        """All stores; with ``detail`` what administrators are told of them.

        NotFound if the service has only one.
        """
        path = "/v2/info/stores/detail" if detail else "/v2/info/stores"
        found = self.connection.request("GET", path).json().get("stores")
        if not isinstance(found, list):
            raise ClientError(reason="the answer holds no stores: is this an image service?")
        return found

    def delete_data(self, store_id: str, image_id: str) -> None:
        """Remove an image's data from one store; LastLocation if it is in no other."""
        path = f"/v2/stores/{quote(store_id, safe='')}/{quote(image_id, safe='')}"
        self.connection.request("DELETE", path)
