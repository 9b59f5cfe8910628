"""Callers of an application in this process, whoever they are to be."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import falcon
from falcon.testing import TestClient
from oslo_config import cfg

from headrace.api import app
from headrace.model import Viewer
from headrace.service.context import Context
from tests.deploy.conftest import RECORD, path


class _Somebody:
    """Says that everybody is this caller."""

    def __init__(self, caller: Context) -> None:
        self._caller = caller

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.caller = self._caller


def _client(conf: cfg.ConfigOpts, viewer: Viewer) -> Any:
    built = app.build(conf)
    built._app.add_middleware(_Somebody(Context(viewer, frozenset({"member"}))))
    return TestClient(built)


def only_its_owner_is_given(conf: cfg.ConfigOpts, header: str) -> None:
    """Assert who gets the answer's ``header`` that tells a server in front where the data lies.

    Neither a stranger does, nor the owner when the image is deactivated; the owner otherwise does.
    """
    admin, owner, stranger = (
        _client(conf, viewer)
        for viewer in (Viewer(is_admin=True), Viewer("owner"), Viewer("somebody else"))
    )
    record = {**RECORD, "owner": "owner", "visibility": "private"}
    image = admin.simulate_post("/v2/images", body=json.dumps(record)).json["id"]
    octets = {"Content-Type": "application/octet-stream"}
    assert admin.simulate_put(path(image), body=b"data", headers=octets).status_code == 204
    asked = ({}, {"Range": "bytes=0-1"})
    for headers in asked:
        assert header in owner.simulate_get(path(image), headers=headers).headers
        answer = stranger.simulate_get(path(image), headers=headers)
        assert (answer.status_code, header in answer.headers) == (404, False)
    database = sqlite3.connect(Path(conf.headrace.state_dir) / "headrace.db")
    with contextlib.closing(database), database:
        database.execute("UPDATE images SET status = 'deactivated'")
    for headers in asked:
        answer = owner.simulate_get(path(image), headers=headers)
        assert (answer.status_code, header in answer.headers) == (403, False)
        assert b"data" not in answer.content
