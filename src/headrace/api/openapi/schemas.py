"""What bodies look like: from the forms that check them, and the schemas that clients are given."""

from typing import Any

import msgspec

from headrace.api.import_bodies import ImportBody
from headrace.api.location_bodies import NewLocation, NewValidation
from headrace.api.members import MEMBER_SCHEMA, NewMember, NewStatus
from headrace.api.openapi.operation import TEXT, Schema, ref, several
from headrace.api.schemas import Fields
from headrace.api.task_bodies import TaskBody
from headrace.api.tasks import TASK_SCHEMA
from headrace.api.traffic import Flight
from headrace.service.definitions import NamedPropertyForm, NamespaceForm, TagsForm

_REFS = "#/components/schemas/"
_FORMS = (
    NamespaceForm, NamedPropertyForm, TagsForm, NewMember, NewStatus, NewLocation, NewValidation,
    ImportBody, TaskBody, Flight,
)  # fmt: skip
# What a form is called here; another keeps its class's name.
_NAMES = {
    "NamespaceForm": "Namespace",
    "PropertyForm": "Definition",
    "NamedPropertyForm": "MetadefProperty",
    "ItemsForm": "Items",
    "ObjectForm": "MetadefObject",
    "TagForm": "MetadefTag",
    "TagsForm": "MetadefTags",
    "AssociationForm": "Association",
}
# Fields of an image that not every image has.
_OPTIONAL = frozenset({"direct_url", "stores", "locations"})


def schemas(fields: Fields) -> dict[str, Schema]:
    """The components' schemas, by their names."""
    found = {
        **_forms(),
        **_images(fields),
        **_members(),
        **_tasks(),
        **_lists(),
        **_told(),
        **_cache(),
    }
    return {name: found[name] for name in sorted(found)}


def _forms() -> dict[str, Schema]:
    _, components = msgspec.json.schema_components(_FORMS, ref_template=f"{_REFS}{{name}}")
    found = {_NAMES.get(name, name): _renamed(schema) for name, schema in components.items()}
    nothing: list[Schema] = [{"type": "object", "maxProperties": 0}, {"type": "null"}]
    found["TaskInput"]["properties"]["image_properties"] = ref("NewImage")
    # It is looked into only after it was found to hold something.
    found["NewLocation"]["properties"]["validation_data"] = {
        "anyOf": [ref("NewValidation"), *nothing]
    }
    return found


def _renamed(schema: Any) -> Any:
    """Without titles, which are names of classes, and with references to components."""
    if isinstance(schema, list):
        return [_renamed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    renamed = {key: _renamed(value) for key, value in schema.items()}
    if isinstance(schema.get("title"), str):
        del renamed["title"]
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REFS)
        renamed["$ref"] = f"{_REFS}{_NAMES.get(name, name)}"
    if isinstance(schema.get("description"), str):
        renamed["description"] = " ".join(schema["description"].replace("``", "").split())
    return renamed


def _images(fields: Fields) -> dict[str, Schema]:
    properties: dict[str, Schema] = {}
    custom = set()
    for name, schema in fields.image_schema()["properties"].items():  # type: ignore[attr-defined]
        properties[name] = {key: value for key, value in schema.items() if key != "is_base"}
        if "is_base" in schema:
            custom.add(name)
    given = {
        name: schema
        for name, schema in properties.items()
        if "readOnly" not in schema and name != "locations"
    }
    return {
        "Image": {
            "type": "object",
            "properties": properties,
            "additionalProperties": TEXT,
            "required": sorted(properties.keys() - custom - _OPTIONAL),
        },
        "NewImage": {
            "type": "object",
            "properties": given,
            "propertyNames": {"maxLength": 255},
            "additionalProperties": TEXT,
        },
        "PatchV21": several(_step("path", op={"enum": ["add", "replace", "remove"]})),
        "PatchV20": several({"oneOf": [_step(op) for op in ("add", "replace", "remove")]}),
        "Locations": several(
            _object({"url": TEXT, "metadata": {"type": "object"}}, "url", "metadata")
        ),
    }


def _step(pointer: str, **more: Schema) -> Schema:
    """An operation of a patch, with its JSON pointer under the key ``pointer``."""
    properties = {**more, pointer: {"type": "string", "pattern": "^/"}, "value": {}}
    return _object(properties, *more, pointer)


def _members() -> dict[str, Schema]:
    properties = MEMBER_SCHEMA["properties"]
    return {
        "Member": {"type": "object", "properties": properties, "required": sorted(properties)}  # type: ignore[call-overload]
    }


def _tasks() -> dict[str, Schema]:
    fields: dict[str, Schema] = TASK_SCHEMA["properties"]  # type: ignore[assignment]
    listed = ("id", "type", "status", "owner", "created_at", "updated_at", "self", "schema")
    beside = {
        **{name: schema for name, schema in fields.items() if name not in ("self", "schema")},
        "deleted_at": {"type": "null"},
        "deleted": {"type": "boolean"},
    }
    methods = _object({"description": TEXT, "type": TEXT, "value": several(TEXT)}, "value")
    return {
        "Task": _object(fields, *listed),
        "Tasks": _object(
            {"tasks": several(ref("Task")), "first": TEXT, "next": TEXT, "schema": TEXT},
            "tasks", "first", "schema",
        ),
        "ImageTasks": _object({"tasks": several(_object(beside, *beside))}, "tasks"),
        "ImportMethods": _object({"import-methods": methods}, "import-methods"),
    }  # fmt: skip


def _lists() -> dict[str, Schema]:
    def page(name: str, of: str) -> Schema:
        properties = {name: several(ref(of)), "first": TEXT, "next": TEXT, "schema": TEXT}
        return _object(properties, name, "first", "schema")

    times = {"created_at": TEXT, "updated_at": TEXT}
    return {
        "Images": page("images", "Image"),
        "Members": _object(
            {"members": several(ref("Member")), "schema": TEXT}, "members", "schema"
        ),
        "Namespaces": page("namespaces", "Namespace"),
        "MetadefObjects": _object(
            {"objects": several(ref("MetadefObject")), "schema": TEXT}, "objects", "schema"
        ),
        "MetadefProperties": _object(
            {"properties": {"type": "object", "additionalProperties": ref("Definition")}},
            "properties",
        ),
        "Associations": _object(
            {"resource_type_associations": several(ref("Association"))},
            "resource_type_associations",
        ),
        "ResourceTypes": _object(
            {"resource_types": several(_object({"name": TEXT, **times}, "name", *times))},
            "resource_types",
        ),
    }


def _told() -> dict[str, Schema]:
    """What the service tells of itself."""
    link = _object({"rel": TEXT, "href": TEXT}, "rel", "href")
    version = {"id": TEXT, "status": {"enum": ["CURRENT", "SUPPORTED"]}, "links": several(link)}
    true = {"const": "true"}
    store = {"id": TEXT, "description": TEXT, "default": true, "read-only": true}
    detail = {
        **store, "type": TEXT, "weight": {"type": "integer"}, "properties": {"type": "object"}
    }  # fmt: skip
    number = {"type": "integer"}
    usage = _object({"limit": number, "usage": number}, "limit", "usage")
    return {
        "Error": _object(
            {"message": TEXT, "code": TEXT, "title": TEXT}, "message", "code", "title"
        ),
        "Health": _object(
            {"detailed": {"type": "boolean"}, "reasons": several(TEXT)}, "detailed", "reasons"
        ),
        "Stores": _object({"stores": several(_object(store, "id"))}, "stores"),
        "StoresDetail": _object(
            {"stores": several(_object(detail, "id", "type", "weight", "properties"))}, "stores"
        ),
        "Usage": _object({"usage": {"type": "object", "additionalProperties": usage}}, "usage"),
        "Transfers": _object({"transfers": several(ref("Flight"))}, "transfers"),
        "Versions": _object({"versions": several(_object(version, *version))}, "versions"),
    }


def _cache() -> dict[str, Schema]:
    number = {"type": "integer"}
    time = {"type": "number"}
    cached = _object(
        {
            "image_id": TEXT, "hits": number, "last_accessed": time, "last_modified": time,
            "size": number, "checksum": TEXT,
        },
        "image_id", "hits", "last_accessed", "last_modified", "size",
    )  # fmt: skip
    both = {"cached_images": several(cached), "queued_images": several(TEXT)}
    pruned = {"total_files_pruned": number, "total_bytes_pruned": number}
    return {
        "Cache": _object(both, *both),
        "CachedImages": _object({"cached_images": several(cached)}, "cached_images"),
        "QueuedImages": _object({"queued_images": several(TEXT)}, "queued_images"),
        "Pruned": _object(pruned, *pruned),
        "Deleted": _object({"num_deleted": number}, "num_deleted"),
    }


def _object(properties: dict[str, Any], *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}
