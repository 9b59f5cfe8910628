"""The image resource's fields, once: validation of requests and /v2/schemas come from here.

A field is a Python type with msgspec constraints.  ``Fields.check`` validates one value against
it; ``Fields.image_schema`` renders all of them in the form that the Image API's clients read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from headrace import errors
from headrace.model import Status, is_image_id

UUID = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
_Id = Annotated[str, Meta(pattern=UUID)]
_Text255 = Annotated[str, Meta(max_length=255)]
_LONGEST_VALUE = 65535  # bytes of UTF-8: a TEXT column of MySQL
_Megas = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class _Location(TypedDict):
    url: _Text255
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One property of the image resource; ``base`` is False for a custom one of known meaning."""

    name: str
    type: Any
    description: str
    read_only: bool = False
    base: bool = True


class Fields:
    """The fields of an image with the formats that the operator accepts."""

    def __init__(self, container_formats: Iterable[str], disk_formats: Iterable[str]) -> None:
        self._fields = {
            field.name: field
            for field in _image_fields(tuple(container_formats), tuple(disk_formats))
        }

    def check(self, name: str, value: object) -> object:
        """``value`` in the field's Python type; custom properties are strings.

        Raises InvalidProperty.
        """
        field = self._fields.get(name)
        try:
            if field is None:
                msgspec.convert(name, _Text255)
                checked: object = msgspec.convert(value, str)
            else:
                checked = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            raise errors.InvalidProperty(name=name[:255], reason=error) from None
        if name == "id" and not is_image_id(str(value)):  # the pattern's $ lets a newline through
            raise errors.InvalidProperty(name=name, reason="not a UUID")
        if isinstance(checked, str) and len(checked.encode()) > _LONGEST_VALUE:
            raise errors.InvalidProperty(name=name, reason=f"longer than {_LONGEST_VALUE} bytes")
        refuse_wide_characters(name, checked)
        return checked

    def image_schema(self) -> dict[str, object]:
        """The document ``/v2/schemas/image``."""
        return {
            "name": "image",
            "properties": {field.name: _render(field) for field in self._fields.values()},
            "additionalProperties": {"type": "string"},
            "links": [
                {"rel": "self", "href": "{self}"},
                {"rel": "enclosure", "href": "{file}"},
                {"rel": "describedby", "href": "{schema}"},
            ],
        }

    def images_schema(self) -> dict[str, object]:
        """The document ``/v2/schemas/images``."""
        return {
            "name": "images",
            "properties": {
                "images": {"type": "array", "items": self.image_schema()},
                "first": {"type": "string"},
                "next": {"type": "string"},
                "schema": {"type": "string"},
            },
            "links": [
                {"rel": "first", "href": "{first}"},
                {"rel": "next", "href": "{next}"},
                {"rel": "describedby", "href": "{schema}"},
            ],
        }


def refuse_wide_characters(name: str, value: object) -> None:
    """Raises InvalidProperty for 4-byte UTF-8, which a MySQL ``utf8`` column cannot hold."""
    for text in (name, value):
        if isinstance(text, str) and any(ord(character) > 0xFFFF for character in text):
            raise errors.InvalidProperty(name=ascii(name), reason="4-byte characters")


def _render(field: Field) -> dict[str, object]:
    schema = _resolved(msgspec.json.schema(field.type))
    rendered: dict[str, object] = _nullable(schema)
    rendered["description"] = field.description
    if field.read_only:
        rendered["readOnly"] = True
    if not field.base:
        rendered["is_base"] = False
    return rendered


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with what it refers to in its place: a reference would count from the document."""
    parts = schema.pop("$defs", {})
    if "$ref" in schema.get("items", {}):
        name = schema["items"]["$ref"].rpartition("/")[2]
        schema["items"] = {key: value for key, value in parts[name].items() if key != "title"}
    return schema


def _nullable(schema: Mapping[str, Any]) -> dict[str, object]:
    """``anyOf: [X, null]`` as the ``type: ["null", X]`` that the API's clients know."""
    inner, types = dict(schema), []
    if "anyOf" in schema:
        (inner,) = (dict(part) for part in schema["anyOf"] if part != {"type": "null"})
        types = ["null"]
    if "enum" in inner:
        values = [value for value in inner["enum"] if value is not None]
        if types or None in inner["enum"]:
            return {"type": ["null", "string"], "enum": [None, *values]}
        return {"type": "string", "enum": values}
    return {**inner, "type": [*types, inner["type"]] if types else inner["type"]}


def _image_fields(
    container_formats: tuple[str, ...], disk_formats: tuple[str, ...]
) -> tuple[Field, ...]:
    # Subscribing Literal with a tuple spreads it; the values are only known at start-up.
    container_format = Literal[container_formats] | None  # type: ignore[valid-type]
    disk_format = Literal[disk_formats] | None  # type: ignore[valid-type]
    digest = Annotated[str, Meta(max_length=128)] | None
    return (
        Field("id", _Id, "Identifier of the image"),
        Field("name", _Text255 | None, "Descriptive name of the image"),
        Field("status", Literal[tuple(map(str, Status))], "Status of the image", read_only=True),
        Field(
            "visibility",
            Literal["community", "private", "public", "shared"],
            "Who may see and use the image",
        ),
        Field("protected", bool, "Whether the image is protected against deletion"),
        Field("os_hidden", bool, "Whether the image is left out of default lists"),
        Field("owner", _Text255 | None, "Project that owns the image"),
        Field("size", int | None, "Size of the data in bytes", read_only=True),
        Field("virtual_size", int | None, "Size of the disk in bytes", read_only=True),
        Field(
            "checksum",
            Annotated[str, Meta(max_length=32)] | None,
            "MD5 of the data, in hex",
            read_only=True,
        ),
        Field(
            "os_hash_algo",
            Annotated[str, Meta(max_length=64)] | None,
            "Algorithm of os_hash_value",
            read_only=True,
        ),
        Field("os_hash_value", digest, "Digest of the data, in hex", read_only=True),
        Field("container_format", container_format, "Format of the container"),
        Field("disk_format", disk_format, "Format of the disk"),
        Field("min_disk", _Megas, "Disk that a machine needs at least, in GB"),
        Field("min_ram", _Megas, "Memory that a machine needs at least, in MB"),
        Field("tags", list[_Text255], "Words that the image can be found by"),
        Field("created_at", str, "When the image was recorded", read_only=True),
        Field("updated_at", str, "When the record last changed", read_only=True),
        Field("self", str, "Path of the image", read_only=True),
        Field("file", str, "Path of the image's data", read_only=True),
        Field("schema", str, "Path of this schema", read_only=True),
        Field("direct_url", str, "Address of the data in its store", read_only=True),
        Field("stores", str, "Stores that the data lies in, parted by commas", read_only=True),
        Field("locations", list[_Location], "Addresses of the data in its stores"),
        # Clients offer an option for each of these and drop the option when the schema has it not.
        Field("architecture", _Text255, "Architecture of the processor it runs on", base=False),
        Field("os_distro", _Text255, "Distribution of the operating system", base=False),
        Field("os_version", _Text255, "Version of the operating system", base=False),
        Field("instance_uuid", _Text255, "Machine that the image was taken of", base=False),
        Field("kernel_id", _Id, "Image of the kernel to boot with", base=False),
        Field("ramdisk_id", _Id, "Image of the ramdisk to boot with", base=False),
    )
