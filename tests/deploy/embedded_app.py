"""A small application on the embedded server, for tests of the server alone.

``python -m tests.deploy.embedded_app DIRECTORY OPTION=VALUE…`` serves the files of DIRECTORY; the
options are those of ServeOptions and of its TransferOptions.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

from headrace import errors, log
from headrace.metrics import Metrics
from headrace.server.embedded import serve
from headrace.server.options import ServeOptions
from headrace.server.transfers import TransferOptions
from headrace.transfer.engine import FileSink, pump_all
from headrace.transfer.extent import Extent
from headrace.transfer.growing import Growing
from tests.deploy.wire import GUARD
from tests.fills import Fill

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class Application:
    """One method a path; every answer says its length."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.metrics = Metrics()
        self._refuse_if_told("load")

    def _refuse_if_told(self, step: str) -> None:
        if (self._directory / f"no-{step}").exists():
            raise errors.ConfigurationError(reason=f"no {step}")

    def start(self) -> None:
        self._refuse_if_told("start")
        self._note("start", os.getpid())

    def jobs(self) -> int:
        return 0

    def stop_jobs(self) -> None:
        pass

    def close(self) -> None:
        self._note("close", os.getpid())

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_X_REQUEST" in environ:
            log.request_id.set(environ["HTTP_X_REQUEST"])
        name = environ["PATH_INFO"].split("/")[1]
        handler = getattr(self, f"_{name}")
        answer: Iterable[bytes] = handler(environ, start_response)
        return answer

    def _file(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """GET /file/NAME: the file as an Extent; in the query offset, length, size, status."""
        query = parse_qs(environ["QUERY_STRING"])
        fd = os.open(self._path(environ), os.O_RDONLY)
        extent = Extent(fd, 0, int(query.get("size", [os.fstat(fd).st_size])[0]))
        extent.on_close(lambda sent, ok: self._note("sent", sent, ok))
        if "offset" in query:
            extent.narrow(int(query["offset"][0]), int(query["length"][0]))
        start_response(query.get("status", ["200 OK"])[0], [("Content-Length", str(extent.length))])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](extent)
        return wrapped

    def _growing(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """GET /growing/NAME: a file that is being filled; in the query its size, offset, length,
        stall, and the file whose content it is to have when whoever fills it is gone.
        """
        query = parse_qs(environ["QUERY_STRING"])
        path = self._path(environ)
        revive = None
        if "content" in query:
            content = (self._directory / query["content"][0]).read_bytes()
            revive = partial(self._revive, path, content)
        size = int(query["size"][0])
        stall = float(query.get("stall", [GUARD])[0])
        extent = Growing(os.open(path, os.O_RDONLY), size, stall=stall, revive=revive)
        extent.on_close(lambda sent, ok: self._note("sent", sent, ok))
        if "offset" in query:
            extent.narrow(int(query["offset"][0]), int(query["length"][0]))
        start_response("200 OK", [("Content-Length", str(extent.length))])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](extent)
        return wrapped

    def _revive(self, path: Path, content: bytes) -> None:
        def fill_the_rest() -> None:
            with Fill(path) as fill:
                rest = content[fill.landed :]
                if rest:
                    self._note("revived")
                fill.land_slowly(rest, 1 << 20, 0.01)
                fill.verify()

        Thread(target=fill_the_rest).start()

    def _wrong(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """GET /wrong/NAME: an Extent whose length the headers do not say."""
        extent = Extent(os.open(self._path(environ), os.O_RDONLY), 0, 10)
        start_response("200 OK", [("Content-Length", "11")])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](extent)
        return wrapped

    def _upload(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """PUT /upload/NAME: the body into the file, by the engine."""
        body = environ["headrace.body"]
        self._note("begun")
        fd = os.open(self._path(environ), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            moved = pump_all(body.pieces(), FileSink(fd))
        except errors.Error as error:
            self._note("failed", type(error).__name__)
            raise
        finally:
            os.close(fd)
        return self._say(start_response, "200 OK", {"bytes": moved.bytes, "length": body.length})

    def _half(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """PUT /half: takes the first piece of the body and then refuses the rest."""
        pieces = environ["headrace.body"].pieces()
        next(pieces)
        pieces.close()
        return self._say(start_response, "413 Content Too Large", {})

    def _refuse(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self._say(start_response, "409 Conflict", {"error": "refused"})

    def _json(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """POST /json: reads the body as every WSGI application does, and gives it back."""
        return self._say(start_response, "200 OK", json.load(environ["wsgi.input"]))

    def _crash(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise RuntimeError("a defect of the application")

    def _break(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """GET /break: fails when half of the body is on its way."""
        start_response("200 OK", [("Content-Length", "10")])
        yield b"hello"
        raise RuntimeError("a defect of the application")

    def _short(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """GET /short: announces more than it gives."""
        start_response("200 OK", [("Content-Length", "10")])
        return [b"hello"]

    def _sleep(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self._note("begun")
        time.sleep(float(environ["QUERY_STRING"]))
        return self._say(start_response, "200 OK", {})

    def _process(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """GET /process: who answers, and what it holds."""
        nodelay = environ["gunicorn.socket"].getsockopt(6, 1)
        found = {
            "pid": os.getpid(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "nodelay": bool(nodelay),
            "scheme": environ["wsgi.url_scheme"],
        }
        return self._say(start_response, "200 OK", found)

    @staticmethod
    def _say(start_response: StartResponse, status: str, answer: Any) -> list[bytes]:
        data = json.dumps(answer).encode()
        start_response(
            status, [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        )
        return [data]

    def _path(self, environ: Environ) -> Path:
        return self._directory / environ["PATH_INFO"].split("/")[2]

    def _note(self, *words: object) -> None:
        """Append to the directory's list of events."""
        with (self._directory / "events").open("a") as events:
            events.write(" ".join(map(str, words)) + "\n")


def main(directory: str, *settings: str) -> None:
    pairs = (setting.split("=", 1) for setting in settings)
    given = {name: json.loads(value) for name, value in pairs}
    of_transfers = {field.name for field in fields(TransferOptions)} - {"threads"}
    transfers = TransferOptions(**{name: given.pop(name) for name in of_transfers & set(given)})
    log.configure()
    options = ServeOptions(**{"port": 0, "transfers": transfers, **given})
    serve(options, lambda: Application(Path(directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
