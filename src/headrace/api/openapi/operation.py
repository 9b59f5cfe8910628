"""What is said of one operation: what it takes, what it answers, and which errors it may answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace import errors

Schema = dict[str, Any]
Content = Mapping[str, Schema]
"""Media type → what it holds."""

Refusals = tuple[type[errors.Error], ...]

JSON = "application/json"
TEXT: Schema = {"type": "string"}
DATA: Content = {"application/octet-stream": {"type": "string", "format": "binary"}}

# What any request may be answered: by the gate that all of them pass, or because of the database.
ALWAYS: Refusals = (
    errors.BadRequest,
    errors.Unauthenticated,
    errors.RemoteWithoutAuth,
    errors.WrongScope,
    errors.TooManyLogins,
    errors.HeaderTooLarge,
    errors.LoginsBusy,
    errors.KeystoneBusy,
    errors.KeystoneUnavailable,
    errors.ServiceUnavailable,
)
BODY: Refusals = (
    errors.UploadIncomplete,
    errors.RequestTimeout,
    errors.PeerStalled,
    errors.PeerTooSlow,
)
JSON_BODY: Refusals = (errors.InvalidBody, errors.TooLarge, *BODY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """``refusals`` come besides ``ALWAYS``; ``headers`` are names of components, as parameters are.

    ``also`` are further answers of success, by their statuses.
    """

    summary: str
    status: int = 200
    content: Content = field(default_factory=dict)
    also: Mapping[int, Content] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    parameters: tuple[Schema, ...] = ()
    body: Content | None = None
    refusals: Refusals = ()


Operations = dict[tuple[str, str], Operation]
"""(method, path template) → what is said of it."""


def ref(name: str) -> Schema:
    """A schema of the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def json(name: str) -> Content:
    """A body of JSON as a schema of the components says."""
    return {JSON: ref(name)}


def query(name: str, description: str, schema: Schema | None = None) -> Schema:
    """A parameter of the query string."""
    return {"name": name, "in": "query", "description": description, "schema": schema or TEXT}


def header(name: str, description: str, schema: Schema | None = None) -> Schema:
    """A header of the request."""
    return {"name": name, "in": "header", "description": description, "schema": schema or TEXT}


def choice(values: Iterable[object]) -> Schema:
    """One of some words."""
    return {"type": "string", "enum": sorted(map(str, values))}


def several(schema: Schema) -> Schema:
    """As often as is liked."""
    return {"type": "array", "items": schema}
