"""The gunicorn installed is the one whose insides server/ relies upon."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import Response, create
from gunicorn.workers.gthread import TConn, ThreadWorker

from headrace.server.gunicorn_private import PRIVATE


@pytest.mark.parametrize("cls", PRIVATE, ids=lambda cls: cls.__name__)
def test_every_name_in_use_exists(cls: type) -> None:
    # Attributes are often set in __init__ only, so the class itself does not know them.
    source = "".join(
        inspect.getsource(base) for base in cls.__mro__[:-1] if base.__module__ != "io"
    )
    for name in PRIVATE[cls]:
        assert hasattr(cls, name) or f"self.{name} = " in source, name


# What Headrace replaces or builds upon line by line.  When one of these changes, read what changed
# and take it over before the new digest is written here.
READ = {
    Arbiter.manage_workers: "518f2dd040ef",
    Arbiter.reload: "fec344d2f774",
    Arbiter.stop: "7138b6afd9c4",
    ThreadWorker.run: "f92c7394d857",
    ThreadWorker.accept: "f8dcead3dce5",
    ThreadWorker.enqueue_req: "c9f428953d24",
    ThreadWorker.finish_request: "616e7bb15a00",
    ThreadWorker.handle: "ca85c9be3df7",
    ThreadWorker.handle_quit: "36bd35a8dae5",
    ThreadWorker.handle_request: "6d0de5b91910",
    ThreadWorker.on_pending_socket_readable: "2475f7087832",
    ThreadWorker.murder_pending: "7bf11f464542",
    ThreadWorker._keepalive_after: "4ebdbbc8bf5a",
    TConn.init: "5ff3d4ba451c",
    SocketUnreader.chunk: "9f62532259f8",
    Response.write: "a13659ff072c",
    Response.write_file: "dbbc63339312",
    Response.send_headers: "7aff3b7d004f",
    Response.close: "1e78fc7777ff",
    create: "2c35d4a2dc62",
    Logger.setup: "17c79acdddea",
}


@pytest.mark.parametrize("function", READ, ids=lambda function: function.__qualname__)
def test_what_is_replaced_is_what_was_read(function: Callable[..., Any]) -> None:
    source = inspect.getsource(function).encode()
    assert hashlib.sha256(source).hexdigest()[:12] == READ[function]
