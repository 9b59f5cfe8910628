"""Locations in requests: as a body of their own, and as the steps of a JSON patch."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace import errors
from headrace.api.patches import steps
from headrace.service.images import ChangeOp
from headrace.service.locations import Hashes, LocationChange, Named

_LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_Hex = Annotated[str, Meta(pattern="^[0-9a-fA-F]+$", max_length=128)]


class _Validation(msgspec.Struct, forbid_unknown_fields=True):
    os_hash_algo: Annotated[str, Meta(max_length=64)]
    os_hash_value: _Hex
    checksum: Annotated[_Hex, Meta(min_length=32, max_length=32)] | None = None


class _Location(msgspec.Struct, forbid_unknown_fields=True):
    url: Annotated[str, Meta(min_length=1, max_length=255)]
    metadata: dict[str, Any]
    validation_data: dict[str, Any] | None = None


class NewValidation(msgspec.Struct, forbid_unknown_fields=True):
    """What the data must hash to."""

    os_hash_algo: Literal["md5", "sha1", "sha256", "sha512"]
    os_hash_value: _Hex


class NewLocation(msgspec.Struct):
    """Where the data of a queued image lies."""

    url: Annotated[str, Meta(min_length=1)]
    validation_data: dict[str, Any] | None = None


def new_location(document: object) -> Named:
    """The body of POST /v2/images/{id}/locations; raises InvalidBody."""
    try:
        body = msgspec.convert(document, NewLocation)
        if not body.validation_data:
            return Named(body.url, {})
        said = msgspec.convert(body.validation_data, NewValidation)
    except msgspec.ValidationError as error:
        raise errors.InvalidBody(reason=error) from None
    if len(said.os_hash_value) != _LENGTHS[said.os_hash_algo]:
        raise errors.InvalidBody(reason="os_hash_value is not as long as os_hash_algo makes it")
    return Named(body.url, {}, Hashes(said.os_hash_algo, said.os_hash_value.lower()))


def location_changes(media_type: str, document: object) -> list[LocationChange] | None:
    """The steps of a patch of locations; None for a patch of something else.

    Raises InvalidPatch, also for a patch of locations and of something else.
    """
    found = steps(media_type, document)
    ours = [pointer.split("/")[1:2] == ["locations"] for _, pointer, _ in found]
    if not any(ours):
        return None
    if not all(ours):
        raise errors.InvalidPatch(reason="locations are patched without anything else")
    return [_change(*step) for step in found]


def _change(op: ChangeOp, pointer: str, step: dict[str, Any]) -> LocationChange:
    _, _, *rest = pointer.split("/")
    if op is ChangeOp.REPLACE:
        if rest or not isinstance(step.get("value"), list):
            raise errors.InvalidPatch(reason="locations are replaced as a whole")
        return LocationChange(op, tuple(map(_named, step["value"])))
    if len(rest) != 1:
        raise errors.InvalidPatch(reason=f"path {pointer!r} names no one location")
    position = _position(rest[0])
    if op is ChangeOp.REMOVE:
        return LocationChange(op, position=position)
    return LocationChange(ChangeOp.ADD, (_named(step.get("value")),), position)


def _position(text: str) -> int | None:
    if text == "-":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise errors.InvalidPatch(reason=f"{text!r} is no position among locations")
    return int(text)


def _named(value: object) -> Named:
    try:
        location = msgspec.convert(value, _Location)
        if not location.validation_data:
            return Named(location.url, location.metadata)
        said = msgspec.convert(location.validation_data, _Validation)
    except msgspec.ValidationError as error:
        raise errors.InvalidPatch(reason=error) from None
    if len(said.os_hash_value) != _LENGTHS.get(said.os_hash_algo, len(said.os_hash_value)):
        raise errors.Conflict(reason="os_hash_value is not as long as os_hash_algo makes it")
    return Named(
        location.url,
        location.metadata,
        Hashes(said.os_hash_algo, said.os_hash_value.lower(), said.checksum),
    )
