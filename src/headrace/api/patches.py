"""From a JSON-patch body to Changes (RFC 6902, in the forms of API v2.0 and v2.1)."""

from typing import Any

from headrace import errors
from headrace.service.images import Change, ChangeOp

V21 = "application/openstack-images-v2.1-json-patch"
V20 = "application/openstack-images-v2.0-json-patch"

_V21_OPS = {"add": ChangeOp.ADD, "replace": ChangeOp.REPLACE, "remove": ChangeOp.REMOVE}
_V20_OPS = {"add": ChangeOp.CREATE, "replace": ChangeOp.REPLACE, "remove": ChangeOp.REMOVE}

Step = tuple[ChangeOp, str, dict[str, Any]]
"""What is done, the pointer to what it is done to, and the operation as it came."""


def changes(media_type: str, document: object) -> list[Change]:
    """The steps of a patch; raises InvalidPatch.

    ``media_type`` says the draft: in v2.1 a step is ``{"op", "path", "value"}``, in v2.0 the
    operation is the key and the path its value.
    """
    return [_change(*step) for step in steps(media_type, document)]


def steps(media_type: str, document: object) -> list[Step]:
    """The operations of a patch, whatever they are done to; raises InvalidPatch."""
    if not isinstance(document, list):
        raise errors.InvalidPatch(reason="the body must be an array of operations")
    parse = _v21 if media_type == V21 else _v20
    return [parse(step) for step in document]


def _v21(step: object) -> Step:
    if not isinstance(step, dict):
        raise errors.InvalidPatch(reason="an operation must be an object")
    op = step.get("op")
    if not isinstance(op, str) or op not in _V21_OPS:
        raise errors.InvalidPatch(reason=f"operation {op!r} is not add, replace or remove")
    return _V21_OPS[op], _pointer(step.get("path")), step


def _v20(step: object) -> Step:
    if not isinstance(step, dict):
        raise errors.InvalidPatch(reason="an operation must be an object")
    named = [name for name in _V20_OPS if name in step]
    if len(named) != 1:
        raise errors.InvalidPatch(reason="an operation has exactly one of add, replace, remove")
    return _V20_OPS[named[0]], _pointer(step[named[0]]), step


def _change(op: ChangeOp, pointer: str, step: dict[str, Any]) -> Change:
    name = _property(pointer)
    if op is not ChangeOp.REMOVE and "value" not in step:
        raise errors.InvalidPatch(reason=f"the operation on {name} has no value")
    return Change(op, name, step.get("value"))


def _pointer(pointer: object) -> str:
    """A JSON pointer (RFC 6901) without empty segments."""
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise errors.InvalidPatch(reason=f"path {pointer!r} does not start with /")
    segment = pointer[1:]
    if not segment or segment.endswith("/") or "//" in segment:
        raise errors.InvalidPatch(reason=f"path {pointer!r} has an empty segment")
    return pointer


def _property(pointer: str) -> str:
    """The property that a pointer of depth 1 names."""
    segment = pointer[1:]
    if segment.split("/")[0] == "locations":
        raise errors.PropertyReserved(name="locations")
    if "/" in segment:
        raise errors.InvalidPatch(reason=f"path {pointer!r} is too deep")
    if "~" in segment.replace("~0", "").replace("~1", ""):
        raise errors.InvalidPatch(reason=f"path {pointer!r} has an unknown escape")
    return segment.replace("~1", "/").replace("~0", "~")
