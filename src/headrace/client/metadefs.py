"""Metadata definitions of a service: namespaces, and what is in them."""

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from headrace.client.connection import Connection, Query
from headrace.client.images import Record, next_marker
from headrace.errors import ClientError, Error, NamespaceNotFound, NotFound

NAMESPACES = "/v2/metadefs/namespaces"
RESOURCE_TYPES = "/v2/metadefs/resource_types"
# What an update of a namespace leaves as it is, and the service's own.
NOT_SENT = frozenset(
    {
        "created_at", "updated_at", "self", "schema",
        "objects", "properties", "tags", "resource_type_associations",
    }
)  # fmt: skip


class Metadefs:
    """The metadata definitions behind ``connection``; records are the service's JSON objects.

    What they hold is said in the OpenStack Image API v2 reference.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def list(
        self,
        filters: Query | None = None,
        *,
        limit: int | None = None,
        sort: str | None = None,
        marker: str | None = None,
    ) -> Iterator[Record]:
        """The namespaces that pass ``filters``, at most ``limit``, page after page.

        ``filters`` are visibility and resource_types; ``sort`` is ``key[:asc|desc]``, ``marker``
        the name of the namespace after which to start.
        """
        query: dict[str, str | Sequence[str]] = dict(filters or {})
        if sort is not None:
            key, _, direction = sort.partition(":")
            query |= {"sort_key": key, "sort_dir": direction or "desc"}
        left = limit
        while left is None or left > 0:
            page = query | ({"marker": marker} if marker else {})
            page |= {"limit": str(left)} if left is not None else {}
            answer = self.connection.request("GET", NAMESPACES, query=page).json()
            found = answer.get("namespaces")
            if not isinstance(found, list):
                raise ClientError(
                    reason="the answer holds no namespaces: is this an image service?"
                )
            yield from found if left is None else found[:left]
            left = None if left is None else left - len(found)
            follower = next_marker(answer.get("next"))
            if follower is None or follower == marker:
                return
            marker = follower

    def show(self, namespace: str, *, resource_type: str | None = None) -> Record:
        """A namespace with all that is in it; NamespaceNotFound.

        With ``resource_type``, properties have the names they have on resources of that type.
        """
        query = {"resource_type": resource_type} if resource_type else None
        try:
            return self.connection.request("GET", _path(namespace), query=query).json()
        except NotFound as error:
            raise _no_namespace(error, namespace) from error

    def create(self, document: Mapping[str, object]) -> Record:
        """Make a namespace with all that ``document`` says is in it, or nothing."""
        return self.connection.request("POST", NAMESPACES, body=dict(document)).json()

    def update(self, namespace: str, changes: Mapping[str, object]) -> Record:
        """Set a namespace's attributes in ``changes``; what is in it stays.  NamespaceNotFound."""
        there = {
            name: value for name, value in self.show(namespace).items() if name not in NOT_SENT
        }
        return self.connection.request("PUT", _path(namespace), body={**there, **changes}).json()

    def delete(self, namespace: str) -> None:
        """Delete a namespace and all that is in it; NamespaceNotFound, NamespaceProtected."""
        try:
            self.connection.request("DELETE", _path(namespace))
        except NotFound as error:
            raise _no_namespace(error, namespace) from error

    def set_property(self, namespace: str, definition: Mapping[str, object]) -> Record:
        """Define a property anew, or for the first time; its ``name`` says which."""
        return self._set(namespace, "properties", definition)

    def set_object(self, namespace: str, document: Mapping[str, object]) -> Record:
        """Define an object anew, or for the first time; its ``name`` says which."""
        return self._set(namespace, "objects", document)

    def add_tags(self, namespace: str, tags: Sequence[str]) -> None:
        """Add tags one by one; DefinitionExists for one that is there, those before it stay."""
        for tag in tags:
            self.connection.request("POST", _path(namespace, "tags", tag))

    def delete_part(self, namespace: str, kind: str, name: str) -> None:
        """Delete a property, object, tag or association with a resource type (``kind``, plural).

        DefinitionNotFound, NamespaceNotFound, NamespaceProtected.
        """
        self.connection.request("DELETE", _path(namespace, kind, name))

    def resource_types(self) -> Iterator[Record]:
        """All resource types."""
        found = self.connection.request("GET", RESOURCE_TYPES).json().get("resource_types")
        yield from found if isinstance(found, list) else ()

    def associate(self, namespace: str, association: Mapping[str, object]) -> Record:
        """Say that a namespace is about a resource type: ``name``, prefix, properties_target."""
        path = _path(namespace, "resource_types")
        return self.connection.request("POST", path, body=dict(association)).json()

    def _set(self, namespace: str, kind: str, document: Mapping[str, object]) -> Record:
        body = dict(document)
        try:
            return self.connection.request(
                "PUT", _path(namespace, kind, str(body["name"])), body=body
            ).json()
        except NotFound as error:
            if isinstance(error, NamespaceNotFound):
                raise
        return self.connection.request("POST", _path(namespace, kind), body=body).json()


def _path(namespace: str, *parts: str) -> str:
    return "/".join([NAMESPACES, *(quote(part, safe="") for part in (namespace, *parts))])


def _no_namespace(error: Error, namespace: str) -> Error:
    """NamespaceNotFound in place of what another server calls it."""
    return NamespaceNotFound(namespace=namespace) if type(error) is NotFound else error
