"""Callers of every kind, told by a header that only tests believe, and what each is answered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from falcon import testing

from headrace.api.gate import Application
from headrace.model import Viewer
from headrace.service.context import Context

HEADER = "X-Persona"
OWNER = "mine"
MEMBERS = ("accepted", "pending", "rejected")


def _member(project: str) -> Context:
    return Context(Viewer(project), frozenset({"member", "reader"}))


PERSONAS: dict[str, Context] = {
    "anonymous": Context(),
    "roleless": Context(Viewer(OWNER)),
    "reader": Context(Viewer(OWNER), frozenset({"reader"})),
    "member": _member(OWNER),
    "stranger": _member("theirs"),
    **{status: _member(status) for status in MEMBERS},
    "admin": Context(Viewer("admins", is_admin=True), frozenset({"admin", "member", "reader"})),
    "service": Context(Viewer("services"), frozenset({"service"})),
}


def believe(environ: dict[str, Any]) -> Context:
    """An ``Authenticate``: the persona that a request says it comes from."""
    return PERSONAS[environ["HTTP_X_PERSONA"]]


@dataclass(frozen=True)
class Answer:
    status: int
    json: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str | None:
        return self.headers.get("x-headrace-error")


class Caller:
    """Requests to an application as one persona or another."""

    def __init__(self, application: Application) -> None:
        self._client = testing.TestClient(application)

    def ask(
        self,
        persona: str,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
    ) -> Answer:
        headers = {HEADER: persona, "Accept": "application/json"}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
            headers["Content-Type"] = content_type
        path, _, query = path.partition("?")
        found = self._client.simulate_request(
            method, path, query_string=query, body=data, headers=headers
        )
        is_json = found.content and "json" in found.headers.get("content-type", "")
        return Answer(
            found.status_code,
            found.json if is_json else None,
            found.headers,
        )

    def must(self, method: str, path: str, body: object = None, **how: str) -> Any:
        """As an administrator, who may."""
        answer = self.ask("admin", method, path, body, **how)
        assert answer.status < 300, (method, path, answer)
        return answer.json


PATCH = "application/openstack-images-v2.1-json-patch"
OCTETS = "application/octet-stream"


def patch(**values: object) -> list[dict[str, object]]:
    return [{"op": "add", "path": f"/{name}", "value": value} for name, value in values.items()]


def new_image(caller: Caller, visibility: str, state: str, **values: object) -> str:
    """The id of an image of the owner's, shared with the members before it became what it is.

    ``state`` is queued, uploading, active or deactivated.
    """
    record = {
        "owner": OWNER, "name": "i", "disk_format": "raw", "container_format": "bare",
        "tags": ["t"],
    }  # fmt: skip
    image_id: str = caller.must("POST", "/v2/images", record | values)["id"]
    path = f"/v2/images/{image_id}"
    for status in MEMBERS:
        caller.must("POST", f"{path}/members", {"member": status})
        caller.must("PUT", f"{path}/members/{status}", {"status": status})
    if state == "uploading":
        caller.must("PUT", f"{path}/stage", b"data", content_type=OCTETS)
    elif state != "queued":
        caller.must("PUT", f"{path}/file", b"data", content_type=OCTETS)
    if state == "deactivated":
        caller.must("POST", f"{path}/actions/deactivate")
    if visibility != "shared":
        caller.must("PATCH", path, patch(visibility=visibility), content_type=PATCH)
    return image_id


def new_namespace(caller: Caller, visibility: str) -> str:
    """The name of a namespace of the owner's with one of everything in it."""
    name = f"N-{visibility}"
    if caller.ask("admin", "GET", f"/v2/metadefs/namespaces/{name}").status == 200:
        caller.must("DELETE", f"/v2/metadefs/namespaces/{name}")
    caller.must(
        "POST",
        "/v2/metadefs/namespaces",
        {
            "namespace": name, "owner": OWNER, "visibility": visibility,
            "objects": [{"name": "o"}], "tags": [{"name": "t"}],
            "properties": {"p": {"title": "P", "type": "string"}},
            "resource_type_associations": [{"name": "R"}],
        },
    )  # fmt: skip
    return name


Body = Callable[[Caller, str], object]


@dataclass(frozen=True)
class Row:
    """A request: ``path`` with ``{id}`` for the image or ``{name}`` for the namespace."""

    method: str
    path: str
    body: object = None
    content_type: str = "application/json"
    state: str = "active"
    note: str = ""
    body_of: Body | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        return f"{self.method} {self.path}{f' ({self.note})' if self.note else ''}"


def _same_locations(caller: Caller, image_id: str) -> object:
    found = caller.must("GET", f"/v2/images/{image_id}")["locations"]
    changed = [{"url": each["url"], "metadata": {**each["metadata"], "x": "y"}} for each in found]
    return [{"op": "replace", "path": "/locations", "value": changed}]


_I, _N = "/v2/images/{id}", "/v2/metadefs/namespaces/{name}"
_PROPERTY = {"name": "p", "title": "P", "type": "string"}

_TASK = {
    "type": "import",
    "input": {
        "import_from": "http://127.0.0.1/", "import_from_format": "raw", "image_properties": {},
    },
}  # fmt: skip

IMAGE_ROWS = [
    Row("GET", _I),
    Row("GET", _I, state="deactivated", note="deactivated"),
    Row("PATCH", _I, patch(name="new"), PATCH, note="name"),
    Row("PATCH", _I, patch(owner="theirs"), PATCH, note="owner"),
    Row("PATCH", _I, patch(visibility="public"), PATCH, note="to public"),
    Row("PATCH", _I, patch(visibility="community"), PATCH, note="to community"),
    Row("PATCH", _I, patch(visibility="private"), PATCH, note="to private"),
    Row("PATCH", _I, content_type=PATCH, note="locations", body_of=_same_locations),
    Row("PATCH", _I, [{"op": "remove", "path": "/locations/0"}], PATCH, note="remove a location"),
    Row("DELETE", _I),
    Row("GET", f"{_I}/file"),
    Row("GET", f"{_I}/file", state="deactivated", note="deactivated"),
    Row("GET", f"{_I}/file?prefer=cheap"),
    Row("PUT", f"{_I}/file", b"data", OCTETS, state="queued"),
    Row("PUT", f"{_I}/stage", b"data", OCTETS, state="queued"),
    Row(
        "POST",
        f"{_I}/import",
        {"method": {"name": "web-download", "uri": "http://127.0.0.1/"}},
        state="queued",
        note="an address that is refused",
    ),
    Row(
        "POST",
        f"{_I}/import",
        {"method": {"name": "copy-image"}, "stores": ["fast"]},
        note="to where it is",
    ),
    Row("GET", f"{_I}/tasks"),
    Row("GET", f"{_I}/locations"),
    Row("POST", f"{_I}/locations", {"url": "file:///nowhere"}, state="queued", note="refused"),
    Row("GET", f"{_I}/members"),
    Row("POST", f"{_I}/members", {"member": "new"}),
    Row("GET", f"{_I}/members/pending"),
    Row("PUT", f"{_I}/members/pending", {"status": "rejected"}),
    Row("DELETE", f"{_I}/members/pending"),
    Row("PUT", f"{_I}/tags/new"),
    Row("DELETE", f"{_I}/tags/t"),
    Row("POST", f"{_I}/actions/deactivate"),
    Row("POST", f"{_I}/actions/reactivate", state="deactivated"),
    Row("DELETE", "/v2/stores/fast/{id}", note="the last one"),
]
NAMESPACE_ROWS = [
    Row("GET", _N),
    Row("PUT", _N, body_of=lambda _, name: {"namespace": name, "visibility": "public"}),
    Row("DELETE", _N),
    Row("GET", f"{_N}/objects"),
    Row("POST", f"{_N}/objects", {"name": "new"}),
    Row("DELETE", f"{_N}/objects"),
    Row("GET", f"{_N}/objects/o"),
    Row("PUT", f"{_N}/objects/o", {"name": "o"}),
    Row("DELETE", f"{_N}/objects/o"),
    Row("GET", f"{_N}/properties"),
    Row("POST", f"{_N}/properties", _PROPERTY | {"name": "new"}),
    Row("DELETE", f"{_N}/properties"),
    Row("GET", f"{_N}/properties/p"),
    Row("PUT", f"{_N}/properties/p", _PROPERTY),
    Row("DELETE", f"{_N}/properties/p"),
    Row("GET", f"{_N}/tags"),
    Row("POST", f"{_N}/tags", {"tags": [{"name": "new"}]}),
    Row("DELETE", f"{_N}/tags"),
    Row("GET", f"{_N}/tags/t"),
    Row("POST", f"{_N}/tags/new"),
    Row("PUT", f"{_N}/tags/t", {"name": "t"}),
    Row("DELETE", f"{_N}/tags/t"),
    Row("GET", f"{_N}/resource_types"),
    Row("POST", f"{_N}/resource_types", {"name": "New"}),
    Row("DELETE", f"{_N}/resource_types/R"),
]
OTHER_ROWS = [
    Row("GET", "/"),
    Row("GET", "/versions"),
    Row("GET", "/healthcheck"),
    Row("GET", "/v2"),
    Row("GET", "/v2/openapi.json"),
    Row("GET", "/v2/schemas/image"),
    Row("GET", "/v2/images"),
    Row("POST", "/v2/images", {}),
    Row("POST", "/v2/images", {"owner": OWNER}, note="for the owner's project"),
    Row("POST", "/v2/images", {"visibility": "public"}, note="public"),
    Row("POST", "/v2/images", {"visibility": "community"}, note="community"),
    Row("GET", "/v2/info/import"),
    Row("GET", "/v2/info/stores"),
    Row("GET", "/v2/info/stores/detail"),
    Row("GET", "/v2/info/usage"),
    Row("GET", "/v2/tasks"),
    Row("POST", "/v2/tasks", _TASK, note="an address that is refused"),
    Row("GET", "/v2/tasks/none"),
    Row("GET", "/v2/metadefs/namespaces"),
    Row("POST", "/v2/metadefs/namespaces", {"namespace": "New"}),
    Row("GET", "/v2/metadefs/resource_types"),
    Row("GET", "/v2/cache"),
    Row("DELETE", "/v2/cache"),
    Row("PUT", "/v2/cache/none"),
    Row("DELETE", "/v2/cache/none"),
    Row("GET", "/v2/cache/nodes/none"),
    Row("POST", "/v2/cache/clean"),
    Row("POST", "/v2/cache/prune"),
    Row("GET", "/v2/cached_images"),
    Row("DELETE", "/v2/cached_images"),
    Row("DELETE", "/v2/cached_images/none"),
    Row("GET", "/v2/queued_images"),
    Row("DELETE", "/v2/queued_images"),
    Row("PUT", "/v2/queued_images/none"),
    Row("DELETE", "/v2/queued_images/none"),
]


def settings(directory: Path) -> dict[tuple[str, str], object]:
    """Those under which every row has something to do."""
    return {
        ("DEFAULT", "enabled_backends"): {"fast": "file", "cheap": "file"},
        ("DEFAULT", "show_multiple_locations"): True,
        ("glance_store", "default_backend"): "fast",
        ("fast", "filesystem_store_datadir"): str(directory / "fast"),
        ("cheap", "filesystem_store_datadir"): str(directory / "cheap"),
        ("headrace", "state_dir"): str(directory / "state"),
        ("DEFAULT", "image_cache_dir"): str(directory / "cache"),
    }
