"""What is said of /v2/metadefs: namespaces, and what they hold."""

from collections.abc import Iterator

from headrace import errors
from headrace.api import queries
from headrace.api.metadefs import NAMESPACES
from headrace.api.openapi.images import PAGE
from headrace.api.openapi.operation import (
    JSON_BODY,
    Operation,
    Operations,
    choice,
    header,
    json,
    query,
)

_NAMESPACE = f"{NAMESPACES}/{{namespace}}"
_DIRECTION = query("sort_dir", "How the list is sorted", choice(("asc", "desc")))
_PARTS_LIST = (
    *PAGE,
    query("sort_key", "What the list is sorted by", choice(queries.PART_SORT_KEYS)),
    _DIRECTION,
)
_RESOURCE_TYPE = query("resource_type", "Whose prefix the properties' names have")
_SEEN = (errors.NamespaceNotFound, errors.Forbidden)
_FOUND = (*_SEEN, errors.DefinitionNotFound)
_GIVEN = (*JSON_BODY, errors.PropertyReadOnly)
_DELETED = (errors.NamespaceProtected,)

_NAMESPACES: Operations = {
    ("GET", NAMESPACES): Operation(
        summary="List namespaces",
        content=json("Namespaces"),
        parameters=(
            *PAGE,
            query("sort_key", "What the list is sorted by", choice(queries.NAMESPACE_SORT_KEYS)),
            _DIRECTION,
            query("visibility", "Who may see them", choice(("public", "private"))),
            query("resource_types", "Those about one of these, parted by commas"),
        ),
        refusals=(*_SEEN, errors.InvalidQuery),
    ),
    ("POST", NAMESPACES): Operation(
        summary="Create a namespace, with what it holds",
        status=201,
        content=json("Namespace"),
        headers=("Location",),
        body=json("Namespace"),
        refusals=(*_GIVEN, errors.Forbidden, errors.NamespaceExists, errors.DefinitionExists),
    ),
    ("GET", _NAMESPACE): Operation(
        summary="Show a namespace with what it holds",
        content=json("Namespace"),
        parameters=(_RESOURCE_TYPE,),
        refusals=(errors.NamespaceNotFound, errors.InvalidQuery),
    ),
    ("PUT", _NAMESPACE): Operation(
        summary="Replace a namespace's record; what it holds stays",
        content=json("Namespace"),
        body=json("Namespace"),
        refusals=(*_GIVEN, *_SEEN, errors.NamespaceExists),
    ),
    ("DELETE", _NAMESPACE): Operation(
        summary="Delete a namespace with what it holds",
        status=204,
        refusals=(*_DELETED, *_SEEN),
    ),
}


def _parts(noun: str, many: str) -> Iterator[tuple[tuple[str, str], Operation]]:
    """What properties, objects and tags have in common."""
    path = f"{_NAMESPACE}/{many}"
    resource, resources = noun.capitalize(), many.capitalize()
    yield (
        ("GET", path),
        Operation(
            summary=f"List a namespace's {many}",
            content=json(f"Metadef{resources}"),
            parameters=() if noun == "property" else _PARTS_LIST,
            refusals=_SEEN if noun == "property" else (*_FOUND, errors.InvalidQuery),
        ),
    )
    yield (
        ("DELETE", path),
        Operation(summary=f"Delete a namespace's {many}", status=204, refusals=(*_DELETED, *_SEEN)),
    )
    one = f"{path}/{{name}}"
    yield (
        ("GET", one),
        Operation(
            summary=f"Show one of a namespace's {many}",
            content=json(f"Metadef{resource}"),
            parameters=(_RESOURCE_TYPE,) if noun == "property" else (),
            refusals=(*_FOUND, errors.InvalidQuery) if noun == "property" else _FOUND,
        ),
    )
    yield (
        ("PUT", one),
        Operation(
            summary=f"Replace one of a namespace's {many}",
            content=json(f"Metadef{resource}"),
            body=json(f"Metadef{resource}"),
            refusals=(*_GIVEN, *_FOUND, errors.DefinitionExists),
        ),
    )
    yield (
        ("DELETE", one),
        Operation(
            summary=f"Delete one of a namespace's {many}",
            status=204,
            refusals=(*_DELETED, *_FOUND),
        ),
    )


def _added(what: str, taken: str, given: str) -> Operation:
    return Operation(
        summary=what,
        status=201,
        content=json(given),
        body=json(taken),
        refusals=(*_GIVEN, *_SEEN, errors.DefinitionExists),
    )


_PARTS: Operations = {
    **dict(_parts("property", "properties")),
    ("POST", f"{_NAMESPACE}/properties"): _added(
        "Add a property", "MetadefProperty", "MetadefProperty"
    ),
    **dict(_parts("object", "objects")),
    ("POST", f"{_NAMESPACE}/objects"): _added("Add an object", "MetadefObject", "MetadefObject"),
    **dict(_parts("tag", "tags")),
    ("POST", f"{_NAMESPACE}/tags"): Operation(
        summary="Replace a namespace's tags, or add to them",
        status=201,
        content=json("MetadefTags"),
        parameters=(header("X-Openstack-Append", "true: those that there are stay"),),
        body=json("MetadefTags"),
        refusals=(*_GIVEN, *_SEEN, errors.DefinitionExists, errors.NamespaceProtected),
    ),
    ("POST", f"{_NAMESPACE}/tags/{{name}}"): Operation(
        summary="Add a tag",
        status=201,
        content=json("MetadefTag"),
        refusals=(*_SEEN, errors.InvalidBody, errors.DefinitionExists),
    ),
}

_TYPES: Operations = {
    ("GET", "/v2/metadefs/resource_types"): Operation(
        summary="List the resource types",
        content=json("ResourceTypes"),
        refusals=(errors.Forbidden,),
    ),
    ("GET", f"{_NAMESPACE}/resource_types"): Operation(
        summary="List what a namespace is about", content=json("Associations"), refusals=_SEEN
    ),
    ("POST", f"{_NAMESPACE}/resource_types"): _added(
        "Say what a namespace is about", "Association", "Association"
    ),
    ("DELETE", f"{_NAMESPACE}/resource_types/{{name}}"): Operation(
        summary="Say that a namespace is not about something",
        status=204,
        refusals=(*_DELETED, *_FOUND),
    ),
}

OPERATIONS: Operations = {**_NAMESPACES, **_PARTS, **_TYPES}
