"""/v2/metadefs: metadata definitions, a module for each noun."""

from headrace.api.handlers.metadefs.namespaces import NamespaceHandler, NamespacesHandler
from headrace.api.handlers.metadefs.objects import ObjectHandler, ObjectsHandler
from headrace.api.handlers.metadefs.properties import PropertiesHandler, PropertyHandler
from headrace.api.handlers.metadefs.resource_types import (
    AssociationHandler,
    AssociationsHandler,
    ResourceTypesHandler,
)
from headrace.api.handlers.metadefs.tags import TagHandler, TagsHandler
from headrace.api.metadefs import NAMESPACES
from headrace.service.metadefs import Metadefs


def handlers(metadefs: Metadefs, default_limit: int, max_limit: int) -> dict[str, object]:
    """Path template → handler."""
    one = f"{NAMESPACES}/{{namespace}}"
    return {
        NAMESPACES: NamespacesHandler(metadefs, default_limit, max_limit),
        one: NamespaceHandler(metadefs),
        f"{one}/properties": PropertiesHandler(metadefs),
        f"{one}/properties/{{name}}": PropertyHandler(metadefs),
        f"{one}/objects": ObjectsHandler(metadefs, max_limit),
        f"{one}/objects/{{name}}": ObjectHandler(metadefs),
        f"{one}/tags": TagsHandler(metadefs, max_limit),
        f"{one}/tags/{{name}}": TagHandler(metadefs),
        f"{one}/resource_types": AssociationsHandler(metadefs),
        f"{one}/resource_types/{{name}}": AssociationHandler(metadefs),
        "/v2/metadefs/resource_types": ResourceTypesHandler(metadefs),
    }
