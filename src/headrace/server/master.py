"""The master process: gunicorn's, whose workers may take for ever to finish what they began.

A worker that is replaced (SIGHUP, max_requests) stops listening and serves its transfers to their
ends, for which gunicorn would give it a limited time; only when the service stops, the drain
time-out counts.
"""

import signal
from typing import Any, Protocol

from gunicorn.arbiter import Arbiter


class Service(Protocol):
    """What a master and its workers tell each other."""

    def tell_stopping(self) -> None: ...

    def retiring(self) -> list[int]:
        """Workers that have asked to be replaced."""
        ...


class Master(Arbiter):  # type: ignore[misc]
    """Keeps as many workers serving as there are to be, beside those that only finish."""

    app: Any
    num_workers: int
    WORKERS: dict[int, Any]

    def __init__(self, app: Service) -> None:
        self._retired: set[int] = set()
        super().__init__(app)

    def reload(self) -> None:
        """Have new workers, by the settings as they are now, in the place of those there are."""
        self.app.reload()
        self.setup(self.app)
        for pid in list(self.WORKERS):
            self._retire(pid)
        self.manage_workers()

    def manage_workers(self) -> None:
        for pid in self.app.retiring():
            if pid in self.WORKERS:
                self._retire(pid)
        self._retired &= self.WORKERS.keys()
        serving = sorted(
            (pid for pid in self.WORKERS if pid not in self._retired),
            key=lambda pid: int(self.WORKERS[pid].age),
        )
        for _ in range(self.num_workers - len(serving)):
            self.spawn_worker()
        for pid in serving[: max(0, len(serving) - self.num_workers)]:
            self._retire(pid)

    def stop(self, graceful: bool = True) -> None:
        self.app.tell_stopping()
        super().stop(graceful)

    def _retire(self, pid: int) -> None:
        if pid not in self._retired:
            self._retired.add(pid)
            self.kill_worker(pid, signal.SIGTERM)
