"""/metrics: what is counted, and what is under way, in all processes of the service."""

from collections import Counter
from collections.abc import Callable, Iterator

import falcon
import msgspec
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from headrace.api.processes import Processes, Report
from headrace.metrics import CONTENT_TYPE, Metrics

Check = Callable[[falcon.Request], None]
"""Raises Forbidden for who may not see it."""


class MetricsHandler:
    """/metrics, for Prometheus."""

    def __init__(self, metrics: Metrics, processes: Processes, check: Check) -> None:
        self._metrics = metrics
        self._processes = processes
        self._check = check

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._check(req)
        live = _gauges(self._metrics, self._processes.reports())
        resp.data, resp.content_type = self._metrics.exposition(live), CONTENT_TYPE


class TransfersHandler:
    """/metrics/transfers: the transfers under way, as JSON."""

    def __init__(self, processes: Processes, check: Check) -> None:
        self._processes = processes
        self._check = check

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._check(req)
        flights = [flight for report in self._processes.reports() for flight in report.flights]
        resp.data = msgspec.json.encode({"transfers": flights})


def _gauges(metrics: Metrics, reports: list[Report]) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "headrace_processes", "Processes of the service that answered.", len(reports)
    )
    versions = GaugeMetricFamily(
        "headrace_build_info", "1 for every version that runs.", labels=["version"]
    )
    for version in sorted({report.version for report in reports}):
        versions.add_metric([version], 1)
    yield versions
    under_way = GaugeMetricFamily(
        "headrace_transfers_in_flight", "Transfers under way.", labels=["direction", "way"]
    )
    flights = Counter(
        (flight.direction, flight.way) for report in reports for flight in report.flights
    )
    for labels, number in sorted(flights.items()):
        under_way.add_metric(labels, number)
    yield under_way
    for name, (help, _) in metrics.gauges.items():
        total = sum(report.gauges.get(name, 0) for report in reports)
        yield GaugeMetricFamily(name, help, total)
    for name, (help, gauge) in metrics.shared.items():
        yield GaugeMetricFamily(name, help, gauge())
