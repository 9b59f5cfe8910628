"""Metadata definitions as the API shows them, and the schemas of what it takes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from headrace.model import (
    Association,
    Definition,
    MetadefObject,
    MetadefProperty,
    MetadefTag,
    Namespace,
    ResourceType,
)
from headrace.service.definitions import (
    AssociationForm,
    Form,
    NamedPropertyForm,
    NamespaceForm,
    ObjectForm,
    PropertyForm,
    TagForm,
    present,
)

NAMESPACES = "/v2/metadefs/namespaces"
_SCHEMAS = "/v2/schemas/metadefs"
_DEFINITIONS = "#/definitions/"
_TEXT = {"type": "string"}

# What a path of /v2/schemas/metadefs is about: the document's name, and the form it is made from.
_ITEMS: dict[str, tuple[str, type[Form]]] = {
    "namespace": ("namespace", NamespaceForm),
    "object": ("object", ObjectForm),
    "property": ("property", NamedPropertyForm),
    "tag": ("tag", TagForm),
    "resource_type": ("resource_type_association", AssociationForm),
}


def schemas() -> dict[str, dict[str, object]]:
    """The documents of /v2/schemas/metadefs, by their paths."""
    found = {f"{_SCHEMAS}/{path}": _schema(*item) for path, item in _ITEMS.items()}
    for path, (name, kind) in _ITEMS.items():
        if path != "property":
            found[f"{_SCHEMAS}/{path}s"] = _collection(f"{name}s", _schema(name, kind))
    named = _schema("property", PropertyForm)
    found[f"{_SCHEMAS}/properties"] = _collection("properties", named, by_name=True)
    return found


def _schema(name: str, kind: type[Form]) -> dict[str, object]:
    _, components = msgspec.json.schema_components([kind], ref_template=f"{_DEFINITIONS}{{name}}")
    parts = {_defined(key): _renamed(part) for key, part in components.items()}
    whole = parts.pop(_defined(kind.__name__))
    document = {
        "name": name,
        "properties": whole["properties"],
        "additionalProperties": False,
        "required": whole["required"],
    }
    return document | ({"definitions": parts} if parts else {})


def _collection(name: str, item: dict[str, object], *, by_name: bool = False) -> dict[str, object]:
    definitions = item.pop("definitions", None)
    items = (
        {"type": "object", "additionalProperties": item}
        if by_name
        else {"type": "array", "items": item}
    )
    return present(
        name=name,
        properties={name: items, "first": _TEXT, "next": _TEXT, "schema": _TEXT},
        links=[
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
        definitions=definitions,
    )


def _defined(name: str) -> str:
    return name.removesuffix("Form").lower()


def _renamed(schema: Any) -> Any:
    """A schema whose references are to definitions named as nouns, not as classes."""
    if isinstance(schema, list):
        return [_renamed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"{_DEFINITIONS}{_defined(value.removeprefix(_DEFINITIONS))}"
        if key == "$ref"
        else _renamed(value)
        for key, value in schema.items()
    }


def namespace_path(name: str) -> str:
    """Where a namespace is."""
    return f"{NAMESPACES}/{quote(name, safe=':')}"


def namespace(value: Namespace) -> dict[str, object]:
    """The namespace with what is in it, as far as it is at hand."""
    return present(
        namespace=value.namespace,
        display_name=value.display_name,
        description=value.description,
        visibility=value.visibility,
        protected=value.protected,
        owner=value.owner,
        **_times(value),
        self=namespace_path(value.namespace),
        schema=f"{_SCHEMAS}/namespace",
        resource_type_associations=[association(each) for each in value.associations] or None,
        properties=properties(value.properties) or None,
        objects=[object_(value.namespace, each) for each in value.objects] or None,
        tags=[tag_name(each) for each in value.tags] or None,
    )


def properties(values: Iterable[MetadefProperty]) -> dict[str, Definition]:
    """Definitions by their names."""
    return {each.name: each.definition for each in values}


def property_(value: MetadefProperty) -> dict[str, object]:
    """A definition by itself."""
    return {"name": value.name, **value.definition}


def object_(namespace: str, value: MetadefObject) -> dict[str, object]:
    """An object of the namespace of that name."""
    return present(
        name=value.name,
        description=value.description,
        required=list(value.required) or None,
        properties=value.properties or None,
        **_times(value),
        self=f"{namespace_path(namespace)}/objects/{quote(value.name, safe=':')}",
        schema=f"{_SCHEMAS}/object",
    )


def objects(namespace: str, values: Iterable[MetadefObject]) -> dict[str, object]:
    """A list of objects of the namespace of that name."""
    return {
        "objects": [object_(namespace, each) for each in values],
        "schema": f"{_SCHEMAS}/objects",
    }


def tag(value: MetadefTag) -> dict[str, object]:
    """A tag by itself."""
    return {"name": value.name, **_times(value)}


def tag_name(value: MetadefTag) -> dict[str, object]:
    """A tag among others."""
    return {"name": value.name}


def association(value: Association) -> dict[str, object]:
    return present(
        name=value.name,
        prefix=value.prefix,
        properties_target=value.properties_target,
        **_times(value),
    )


def resource_type(value: ResourceType) -> dict[str, object]:
    return {"name": value.name, **_times(value)}


def _times(
    value: Namespace | MetadefObject | MetadefTag | Association | ResourceType,
) -> dict[str, object]:
    return {"created_at": _time(value.created_at), "updated_at": _time(value.updated_at)}


def _time(moment: datetime) -> str:
    return f"{moment.isoformat(timespec='seconds')}Z"
