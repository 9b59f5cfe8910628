"""What a document that defines metadata must look like, in a request or a file.

A form is a class with msgspec constraints: ``form`` checks a document against one, and api/metadefs
renders /v2/schemas/metadefs from the same.  What is stored must be readable by a Glance on the same
database.  That knows the keys of ``PropertyForm`` alone (not ``required``, though its schema does),
and of an enum strings alone: anything else makes it fail on the whole namespace.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from headrace import errors
from headrace.model import (
    Association,
    Definition,
    MetadefObject,
    MetadefProperty,
    MetadefTag,
    Namespace,
    Visibility,
)

LONGEST_TEXT = 65535  # bytes of UTF-8: a TEXT column of MySQL

READ_ONLY = frozenset({"self", "schema", "created_at", "updated_at"})

Name = Annotated[str, Meta(min_length=1, max_length=80)]
Text80 = Annotated[str, Meta(max_length=80)]
Count = Annotated[int, Meta(ge=0)]
Type = Literal["array", "boolean", "integer", "number", "object", "string"]
Unique = Meta(extra_json_schema={"uniqueItems": True})
# The service's own keys: shown, and of no effect in what is given.
Shown = Annotated[str, Meta(extra_json_schema={"readOnly": True})] | UnsetType


class Form(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A checked document."""


class ItemsForm(Form):
    """What the items of an array may be."""

    type: Type
    enum: list[str] | UnsetType = UNSET


class PropertyForm(Form, kw_only=True, rename="camel"):
    """A definition; ``name`` is its key where there are several."""

    name: Annotated[Name, Meta(description="Name of the property")] | UnsetType = UNSET
    title: Annotated[str, Meta(description="Name that people are shown")]
    type: Annotated[Type, Meta(description="Type of the property's value")]
    description: Annotated[str, Meta(description="What it is for")] | UnsetType = UNSET
    operators: list[str] | UnsetType = UNSET
    default: str | bool | int | float | UnsetType = UNSET
    readonly: bool | UnsetType = UNSET
    minimum: int | float | UnsetType = UNSET
    maximum: int | float | UnsetType = UNSET
    enum: list[str] | UnsetType = UNSET
    pattern: str | UnsetType = UNSET
    min_length: Count | UnsetType = UNSET
    max_length: Count | UnsetType = UNSET
    confidential: bool | UnsetType = UNSET
    items: ItemsForm | UnsetType = UNSET
    unique_items: bool | UnsetType = UNSET
    min_items: Count | UnsetType = UNSET
    max_items: Count | UnsetType = UNSET
    additional_items: bool | UnsetType = UNSET

    def definition(self) -> Definition:
        """As it is stored and shown: without its name, and its default as a string.

        Raises InvalidBody for a default that Glance cannot read.
        """
        found: Definition = msgspec.to_builtins(self)
        found.pop("name", None)
        if "default" in found:
            found["default"] = default = str(found["default"])
            if not default.isascii():
                raise errors.InvalidBody(reason="a default that is not ASCII")
        return found


class NamedPropertyForm(PropertyForm, kw_only=True):
    """A definition by itself, which therefore says its name."""

    name: Annotated[Name, Meta(description="Name of the property")]

    def value(self, now: datetime) -> MetadefProperty:
        return MetadefProperty(
            name=self.name, definition=_small(self.definition()), created_at=now, updated_at=now
        )


class ResourceForm(Form, kw_only=True):
    """What a document has besides, when it was read from a service."""

    created_at: Shown = UNSET
    updated_at: Shown = UNSET


class LinkedForm(ResourceForm, kw_only=True):
    """A resource that has an address and a schema of its own."""

    self_: Shown = msgspec.field(default=UNSET, name="self")
    schema: Shown = UNSET


class ObjectForm(LinkedForm, kw_only=True):
    """Properties that belong together."""

    name: Annotated[Name, Meta(description="Name of the object")]
    description: Annotated[str, Meta(description="What it is for")] | UnsetType = UNSET
    required: Annotated[list[Name], Unique] | UnsetType = UNSET
    properties: dict[Name, PropertyForm] | UnsetType = UNSET

    def value(self, now: datetime) -> MetadefObject:
        required = self.required or ()
        if len(set(required)) < len(required):
            raise errors.InvalidBody(reason="a required name is given twice")
        if any("," in name for name in required):
            raise errors.InvalidBody(reason="a required name holds a comma, which parts the names")
        properties = {name: form.definition() for name, form in (self.properties or {}).items()}
        return MetadefObject(
            name=self.name,
            description=_text(self.description),
            required=tuple(required),
            properties=_small(properties),
            created_at=now,
            updated_at=now,
        )


class TagForm(ResourceForm, kw_only=True):
    """A word that is offered as a tag."""

    name: Annotated[Name, Meta(description="The tag")]

    def value(self, now: datetime) -> MetadefTag:
        return MetadefTag(name=self.name, created_at=now, updated_at=now)


class TagsForm(Form):
    """Several tags."""

    tags: list[TagForm]


class AssociationForm(ResourceForm, kw_only=True):
    """What kind of thing a namespace is about."""

    name: Annotated[Name, Meta(description="Name of the resource type, such as OS::Glance::Image")]
    prefix: (
        Annotated[Text80, Meta(description="What the properties' names begin with there")]
        | UnsetType
    ) = UNSET
    properties_target: (
        Annotated[Text80, Meta(description="Which of the resource's properties are meant")]
        | UnsetType
    ) = UNSET

    def value(self, now: datetime) -> Association:
        return Association(
            name=self.name,
            prefix=_text(self.prefix),
            properties_target=_text(self.properties_target),
            created_at=now,
            updated_at=now,
        )


class NamespaceForm(LinkedForm, kw_only=True):
    """A set of definitions."""

    namespace: Annotated[Name, Meta(description="Name of the namespace")]
    display_name: Annotated[Text80, Meta(description="Name that people are shown")] | UnsetType = (
        UNSET
    )
    description: Annotated[str, Meta(max_length=500, description="What it is for")] | UnsetType = (
        UNSET
    )
    visibility: (
        Annotated[Literal["public", "private"], Meta(description="Who may see it")] | UnsetType
    ) = UNSET
    protected: Annotated[bool, Meta(description="Whether deleting it is refused")] | UnsetType = (
        UNSET
    )
    owner: Annotated[str, Meta(max_length=255, description="Project that owns it")] | UnsetType = (
        UNSET
    )
    resource_type_associations: list[AssociationForm] | UnsetType = UNSET
    properties: dict[Name, PropertyForm] | UnsetType = UNSET
    objects: list[ObjectForm] | UnsetType = UNSET
    tags: list[TagForm] | UnsetType = UNSET

    def value(self, now: datetime, owner: str) -> Namespace:
        """``owner`` owns it unless it says who does."""
        return Namespace(
            namespace=self.namespace,
            display_name=_text(self.display_name),
            description=_text(self.description),
            visibility=self.visibility or Visibility.PRIVATE.value,
            protected=bool(self.protected),
            owner=self.owner or owner,
            created_at=now,
            updated_at=now,
            properties=tuple(
                MetadefProperty(
                    name=name,
                    definition=_small(form.definition()),
                    created_at=now,
                    updated_at=now,
                )
                for name, form in (self.properties or {}).items()
            ),
            objects=tuple(form.value(now) for form in self.objects or ()),
            tags=tuple(form.value(now) for form in self.tags or ()),
            associations=tuple(form.value(now) for form in self.resource_type_associations or ()),
        )


_Form = TypeVar("_Form", bound=Form)


def form(kind: type[_Form], document: object) -> _Form:
    """The document of a request, checked.

    Raises PropertyReadOnly when it sets at its top what only the service does; InvalidBody.
    """
    for name in sorted(READ_ONLY):
        if isinstance(document, dict) and name in document:
            raise errors.PropertyReadOnly(name=name)
    return from_file(kind, document)


def from_file(kind: type[_Form], document: object) -> _Form:
    """A document that may have been read from a service, checked; raises InvalidBody."""
    try:
        found = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise errors.InvalidBody(reason=error) from None
    _refuse_wide_characters(document)
    return found


def document(namespace: Namespace) -> dict[str, object]:
    """A namespace as a definition file has it: ``from_file`` reads it back the same."""
    return {
        **present(
            namespace=namespace.namespace,
            display_name=namespace.display_name,
            description=namespace.description,
            visibility=namespace.visibility,
            protected=namespace.protected,
            owner=namespace.owner,
        ),
        "resource_type_associations": [
            present(name=each.name, prefix=each.prefix, properties_target=each.properties_target)
            for each in namespace.associations
        ],
        "properties": {each.name: each.definition for each in namespace.properties},
        "objects": [
            present(
                name=each.name,
                description=each.description,
                required=list(each.required) or None,
                properties=each.properties,
            )
            for each in namespace.objects
        ],
        "tags": [{"name": each.name} for each in namespace.tags],
    }


def present(**values: object) -> dict[str, object]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


_T = TypeVar("_T", bound=Mapping[str, object])


def _small(value: _T) -> _T:
    if len(msgspec.json.encode(value)) > LONGEST_TEXT:
        raise errors.InvalidBody(reason=f"a definition is longer than {LONGEST_TEXT} bytes")
    return value


def _text(value: str | UnsetType) -> str | None:
    return None if value is UNSET else value


def _refuse_wide_characters(value: object) -> None:
    """No 4-byte UTF-8 anywhere: a MySQL ``utf8`` column cannot hold it."""
    if isinstance(value, str):
        if any(ord(character) > 0xFFFF for character in value):
            raise errors.InvalidBody(reason="4-byte characters")
    elif isinstance(value, dict):
        _refuse_each((*value, *value.values()))
    elif isinstance(value, list):
        _refuse_each(value)


def _refuse_each(values: Iterable[object]) -> None:
    for value in values:
        _refuse_wide_characters(value)
