"""What several measurements of the same thing come to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from headrace.bench.cpu import Usage
from headrace.bench.outcome import Outcome
from headrace.bench.stats import Goal, Interval, interval

DISTURBED = 0.10
"""Share of a machine's busy time that others may use before its figures are theirs, too."""


@dataclass(frozen=True)
class Confidence:
    """Full widths of the confidence intervals, in percent of the means; None: not measured."""

    throughput: float
    local_cpu: float | None
    remote_cpu: float | None


@dataclass(frozen=True)
class Ratio:
    """One figure of a test over that of another, pair by pair, and the interval of their mean."""

    name: str
    pairs: Sequence[float]
    interval: Interval


def ratios(first: Sequence[Outcome], second: Sequence[Outcome], level: float) -> list[Ratio]:
    """Throughput and both ends' service demand of ``first`` over ``second``, taken in turn."""
    figures: dict[str, Callable[[Outcome], float | None]] = {
        "throughput": lambda each: each.rate,
        "local demand": lambda each: each.demand(each.local.measured(_busy)),
        "remote demand": lambda each: each.demand(each.remote.measured(_busy)),
    }
    found = []
    for name, figure in figures.items():
        both = list(zip(map(figure, first), map(figure, second), strict=True))
        # A machine that was not seen busy (ticks of 10 ms) has no demand to divide by.
        pairs = [one / other for one, other in both if one is not None and other]
        if len(pairs) == len(both):
            found.append(Ratio(name, pairs, interval(pairs, level)))
    return found


def _busy(usage: Usage) -> float:
    return usage.busy


def _utilisation(usage: Usage) -> float:
    return usage.utilisation


@dataclass(frozen=True)
class Summary:
    """Measurements of one spec: figures are their means."""

    outcomes: Sequence[Outcome]
    level: float = 0.99

    @property
    def first(self) -> Outcome:
        return self.outcomes[0]

    def series(self, figure: Callable[[Outcome], float | None]) -> list[float]:
        """The figure of each measurement; none where it is not known of all."""
        values = [value for each in self.outcomes if (value := figure(each)) is not None]
        return values if len(values) == len(self.outcomes) else []

    def mean(self, figure: Callable[[Outcome], float | None]) -> float | None:
        values = self.series(figure)
        return fmean(values) if values else None

    @property
    def confidence(self) -> Confidence:
        rates, *utilisations = self._watched()
        local, remote = (self._width(values) if values else None for values in utilisations)
        return Confidence(self._width(rates), local, remote)

    def meets(self, goal: Goal, *, local_cpu: bool, remote_cpu: bool) -> bool:
        """Whether all that is asked for is known well enough."""
        throughput, local, remote = self._watched()
        watched = [throughput, *([local] if local_cpu else []), *([remote] if remote_cpu else [])]
        return goal.reached(*watched)

    def disturbance(self, same_machine: bool) -> dict[str, float]:
        """By end, the share of the busy time that others used, where it is too much.

        An end whose processes are not all known is not judged.
        """
        ends: dict[str, float] = {}
        for name in ("local", "remote"):
            shares = self.series(partial(_strange, name=name, same_machine=same_machine))
            if shares and fmean(shares) > DISTURBED:
                ends[name] = fmean(shares)
        return ends

    def _watched(self) -> tuple[list[float], list[float], list[float]]:
        """Throughput, and CPU utilisation of the near and of the far machine."""
        return (
            self.series(lambda each: each.rate),
            self.series(lambda each: each.local.measured(_utilisation)),
            self.series(lambda each: each.remote.measured(_utilisation)),
        )

    def _width(self, values: Sequence[float]) -> float:
        return interval(values, self.level).width_percent


def _strange(outcome: Outcome, name: str, same_machine: bool) -> float | None:
    """The share of an end's busy time that neither processes nor interrupts used."""
    ends = (outcome.local, outcome.remote)
    usage, other = (end.usage for end in (ends if name == "local" else reversed(ends)))
    if usage is None or usage.processes is None:
        return None
    known = usage.processes + usage.softirq
    if same_machine:
        if other is None or other.processes is None:
            return None
        known += other.processes
    return max(usage.busy - known, 0.0) / usage.busy if usage.busy else 0.0
