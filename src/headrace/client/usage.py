"""What a project uses of what it may."""

from headrace.client.connection import Connection
from headrace.errors import ClientError


class Usage:
    """The usage of the caller's project at the service behind ``connection``."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def show(self) -> dict[str, dict[str, int]]:
        """``limit`` (negative: none) and ``usage`` by name; MiB, or images.

        Empty if the service has no limits.
        """
        found = self.connection.request("GET", "/v2/info/usage").json().get("usage")
        if not isinstance(found, dict):
            raise ClientError(reason="the answer holds no usage: is this an image service?")
        return found
