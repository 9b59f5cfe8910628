"""The real application on the embedded server, recording the calls of Headrace's own functions.

``python -m tests.deploy.traced_app STATE_DIR`` serves it; ``GET /trace`` gives the records.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

import headrace
from headrace import config, log
from headrace.api import app
from headrace.api.gate import Application
from headrace.server.embedded import serve
from headrace.server.options import ServeOptions
from headrace.server.worker import Worker

PACKAGE = f"{Path(headrace.__file__).parent}/"
HANDLE = Worker.handle.__code__


@dataclass
class Record:
    """What one request led to, in order; a call is ``file:function``, a statement its SQL."""

    request: str = ""
    done: bool = False
    calls: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)


class Recorder:
    """Records by thread: a request is what its thread does between begin and end of ``handle``.

    What other threads do that a request starts (digests) belongs to the newest request of them.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._current: dict[int, Record] = {}

    def install(self) -> None:
        threading.setprofile(self._profile)
        event.listen(sa.Engine, "before_cursor_execute", self._statement)

    def name(self, request: str) -> None:
        self._mine().request = request

    def _profile(self, frame: FrameType, what: str, _: object) -> None:
        code = frame.f_code
        if what == "call" and code is HANDLE:
            self._current[threading.get_ident()] = Record()
            self.records.append(self._mine())
        if what == "call" and code.co_filename.startswith(PACKAGE):
            self._mine().calls.append(f"{code.co_filename[len(PACKAGE) :]}:{code.co_qualname}")
        if what == "return" and code is HANDLE:
            self._mine().done = True
            del self._current[threading.get_ident()]

    def _statement(self, _c: object, _x: object, statement: str, *_: object) -> None:
        self._mine().statements.append(statement)

    def _mine(self) -> Record:
        found = self._current.get(threading.get_ident())
        return found or (self.records[-1] if self.records else Record())


class Traced:
    """The application, and its records at /trace."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.metrics = application.metrics
        self._recorder = Recorder()

    def start(self) -> None:
        self._application.start()
        self._recorder.install()  # after the housekeeping's thread, which is no request's

    def jobs(self) -> int:
        return self._application.jobs()

    def stop_jobs(self) -> None:
        self._application.stop_jobs()

    def close(self) -> None:
        self._application.close()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/trace":
            self._recorder.name(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            return self._application(environ, start_response)
        answer = json.dumps([asdict(record) for record in self._recorder.records]).encode()
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]


def main(state_dir: str) -> None:
    log.configure()
    conf = config.load([], {("headrace", "state_dir"): state_dir})
    serve(ServeOptions(port=0), lambda: Traced(app.build(conf)))


if __name__ == "__main__":
    main(sys.argv[1])
