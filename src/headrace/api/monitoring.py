"""What is known of a service at work: its metrics and its transfers, and who may see them."""

import falcon
from prometheus_client import Counter

from headrace import errors
from headrace.api import auth
from headrace.api.handlers.metrics import Check, MetricsHandler, TransfersHandler
from headrace.api.processes import Processes
from headrace.api.traffic import Traffic
from headrace.metrics import Metrics
from headrace.transfer import record

FOR_METRICS = "headrace.for_metrics"
"""Where the embedded server says that a request came to the address of the metrics."""


class Monitoring:
    """The counts of this process, and its word with the others.

    ``app`` is the WSGI application of an address that has nothing but the metrics.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.traffic = Traffic(metrics)
        self._processes = Processes(metrics, self.traffic)
        self.app = falcon.App[falcon.Request, falcon.Response]()
        for path, handler in self._routes(_anybody).items():
            self.app.add_route(path, handler)
        fallbacks: Counter = metrics.fallbacks
        record.on_fallback(lambda how, reason: fallbacks.labels(how, reason).inc())

    def routes(self, who: str) -> dict[str, object]:
        """Path → handler at the service's own address, by the setting ``metrics``."""
        checks: dict[str, Check] = {"this-machine": _this_machine, "everybody": _anybody}
        return self._routes(checks[who]) if who in checks else {}

    def start(self) -> None:
        """Begin in this process, after the fork."""
        self._processes.start()

    def close(self) -> None:
        """End in this process, after its last transfer."""
        self._processes.close()

    def _routes(self, check: Check) -> dict[str, object]:
        return {
            "/metrics": MetricsHandler(self.metrics, self._processes, check),
            "/metrics/transfers": TransfersHandler(self._processes, check),
        }


def _anybody(req: falcon.Request) -> None:
    """Whoever comes here may."""


def _this_machine(req: falcon.Request) -> None:
    if (reason := auth.strangeness(req.env)) is not None:
        raise errors.Forbidden(reason=f"metrics are for programs of this machine: {reason}")
