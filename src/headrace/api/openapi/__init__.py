"""The API described in OpenAPI 3.1: /v2/openapi.json, and docs/reference/openapi.yaml.

Paths and methods are those that are routed.  What is said of each is in the tables beside; bodies
come from the forms that check them, refusals from the classes of errors.
"""

import re
from collections.abc import Iterable, Mapping

from headrace.api.answers import CODE_HEADER
from headrace.api.openapi import cache, images, imports, metadefs, service
from headrace.api.openapi.operation import ALWAYS, TEXT, Content, Operation, Operations, Schema, ref
from headrace.api.openapi.schemas import schemas
from headrace.api.schemas import Fields
from headrace.api.versions import CURRENT
from headrace.errors import Error, Unauthenticated, UnsupportedMediaType

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
OPERATIONS: Operations = {
    **service.OPERATIONS,
    **images.OPERATIONS,
    **imports.OPERATIONS,
    **metadefs.OPERATIONS,
    **cache.OPERATIONS,
}

_REQUEST_ID = "x-openstack-request-id"
_HEADERS: dict[str, Schema] = {
    _REQUEST_ID: {"description": "Name of the request in the log", "schema": TEXT},
    "Location": {"description": "Where it is", "required": True, "schema": TEXT},
    "OpenStack-image-import-methods": {
        "description": "The import methods, parted by commas, if there are any",
        "schema": TEXT,
    },
    "OpenStack-image-store-ids": {
        "description": "The stores, parted by commas, where there are several",
        "schema": TEXT,
    },
    "Content-MD5": {"description": "MD5 of the whole image, in hex", "schema": TEXT},
    "Content-Range": {"description": "Which bytes these are, of how many", "schema": TEXT},
    "Retry-After": {
        "description": "Seconds after which it may be worth trying again",
        "schema": {"type": "integer"},
    },
    "WWW-Authenticate": {"description": "How to show who asks", "schema": TEXT},
    "Accept-Patch": {"description": "Media types of patches", "schema": TEXT},
}
_PARAMETERS: dict[str, Schema] = {
    name: {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1},
    }
    for name, description in {
        "image_id": "Identifier of the image",
        "project": "Project that the image is shared with",
        "tag": "The tag",
        "store_id": "Identifier of the store",
        "task_id": "Identifier of the task",
        "namespace": "Name of the namespace",
        "name": "Name within the namespace",
    }.items()
} | {
    _REQUEST_ID: {
        "name": _REQUEST_ID,
        "in": "header",
        "description": "Name of the request in the log; one is made up where it has none",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]+$", "maxLength": 64},
    }
}
_ABOUT = """\
Every refusal has a code in X-Headrace-Error; its body is in the form that Accept asks for. Codes
never change. 405 is the answer to a method that a path has not, 404 to a path that there is not;
an answer of 500 that is not described here is a defect."""

_VARIABLE = re.compile(r"{(\w+)}")


def document(fields: Fields, resources: Mapping[str, object]) -> Schema:
    """The description of an application with these resources by their path templates."""
    refusals: dict[str, Schema] = {}
    paths: dict[str, Schema] = {}
    for path in sorted(resources):
        variables = [_named("parameters", name) for name in _VARIABLE.findall(path)]
        paths[path] = {"parameters": [*variables, _named("parameters", _REQUEST_ID)]}
        for method in METHODS:
            if hasattr(resources[path], f"on_{method.lower()}"):
                said = _operation(OPERATIONS[method, path], refusals)
                paths[path][method.lower()] = said
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Image API",
            "version": CURRENT,
            "description": " ".join(_ABOUT.split()),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "responses": {name: refusals[name] for name in sorted(refusals)},
            "schemas": schemas(fields),
        },
    }


def _operation(operation: Operation, refusals: dict[str, Schema]) -> Schema:
    successes = {operation.status: operation.content, **operation.also}
    responses = {
        str(status): _success(content, operation.headers) for status, content in successes.items()
    }
    for status, kinds in _by_status((*ALWAYS, *operation.refusals)).items():
        if status not in successes:
            name = "-".join([str(status), *(kind.code for kind in kinds)])
            refusals.setdefault(name, _refusal(kinds))
            responses[str(status)] = _named("responses", name)
    said: Schema = {"summary": operation.summary}
    if operation.parameters:
        said["parameters"] = list(operation.parameters)
    if operation.body is not None:
        said["requestBody"] = {"required": True, "content": _content(operation.body)}
    return {**said, "responses": {status: responses[status] for status in sorted(responses)}}


def _success(content: Content, headers: Iterable[str]) -> Schema:
    found: Schema = {"description": "Done"}
    found["headers"] = {name: _named("headers", name) for name in (_REQUEST_ID, *headers)}
    return found | ({"content": _content(content)} if content else {})


def _content(content: Content) -> Schema:
    return {media_type: {"schema": schema} for media_type, schema in content.items()}


def _refusal(kinds: list[type[Error]]) -> Schema:
    code = {
        "description": "What is wrong",
        "required": True,
        "schema": {"type": "string", "enum": [kind.code for kind in kinds]},
    }
    headers = {CODE_HEADER: code, _REQUEST_ID: _named("headers", _REQUEST_ID)}
    if any(kind.retry_after for kind in kinds):
        headers["Retry-After"] = _named("headers", "Retry-After")
    if Unauthenticated in kinds:
        headers["WWW-Authenticate"] = _named("headers", "WWW-Authenticate")
    if UnsupportedMediaType in kinds:
        headers["Accept-Patch"] = _named("headers", "Accept-Patch")
    return {
        "description": "\n".join(f"- {kind.code}: {kind.text}" for kind in kinds),
        "headers": headers,
        "content": _content(
            {"application/json": ref("Error"), "text/html": TEXT, "text/plain": TEXT}
        ),
    }


def _by_status(kinds: Iterable[type[Error]]) -> dict[int, list[type[Error]]]:
    found: dict[int, list[type[Error]]] = {}
    for kind in sorted(set(kinds), key=lambda each: (each.status, each.code)):
        found.setdefault(kind.status, []).append(kind)
    return found


def _named(kind: str, name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}
