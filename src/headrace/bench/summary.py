"""What several measurements of the same thing come to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from headrace.bench.run import Outcome
from headrace.bench.stats import Goal, Interval, interval

DISTURBED = 0.10
"""Share of a machine's busy time that others may use before its figures are theirs, too."""


@dataclass(frozen=True)
class Confidence:
    """Full widths of the confidence intervals, in percent of the means."""

    throughput: float
    local_cpu: float
    remote_cpu: float


@dataclass(frozen=True)
class Ratio:
    """One figure of a test over that of another, pair by pair, and the interval of their mean."""

    name: str
    pairs: Sequence[float]
    interval: Interval


def ratios(first: Sequence[Outcome], second: Sequence[Outcome], level: float) -> list[Ratio]:
    """Throughput and both ends' service demand of ``first`` over ``second``, taken in turn."""
    figures: dict[str, Callable[[Outcome], float]] = {
        "throughput": lambda each: each.rate,
        "local demand": lambda each: each.local.busy / each.bytes,
        "remote demand": lambda each: each.remote.busy / each.bytes,
    }
    found = []
    for name, figure in figures.items():
        both = list(zip(map(figure, first), map(figure, second), strict=True))
        # A machine that was not seen busy (ticks of 10 ms) has no demand to divide by.
        pairs = [one / other for one, other in both if other]
        if len(pairs) == len(both):
            found.append(Ratio(name, pairs, interval(pairs, level)))
    return found


@dataclass(frozen=True)
class Summary:
    """Measurements of one spec: figures are their means."""

    outcomes: Sequence[Outcome]
    level: float = 0.99

    @property
    def first(self) -> Outcome:
        return self.outcomes[0]

    def mean(self, figure: Callable[[Outcome], float]) -> float:
        return fmean(map(figure, self.outcomes))

    @property
    def series(self) -> tuple[list[float], list[float], list[float]]:
        """Throughput, and CPU utilisation of the near and of the far machine."""
        return (
            [each.rate for each in self.outcomes],
            [each.local.utilisation for each in self.outcomes],
            [each.remote.utilisation for each in self.outcomes],
        )

    @property
    def confidence(self) -> Confidence:
        widths = [interval(values, self.level).width_percent for values in self.series]
        return Confidence(*widths)

    def meets(self, goal: Goal, *, local_cpu: bool, remote_cpu: bool) -> bool:
        """Whether all that is asked for is known well enough."""
        throughput, local, remote = self.series
        watched = [throughput, *([local] if local_cpu else []), *([remote] if remote_cpu else [])]
        return goal.reached(*watched)

    def disturbance(self, same_machine: bool) -> dict[str, float]:
        """By end, the share of the busy time that others used, where it is too much."""
        ends: dict[str, float] = {}
        for name in ("local", "remote"):
            shares = []
            for each in self.outcomes:
                usage = getattr(each, name)
                other = (each.remote if name == "local" else each.local).processes
                known = usage.processes + usage.softirq + (other if same_machine else 0.0)
                shares.append(max(usage.busy - known, 0.0) / usage.busy if usage.busy else 0.0)
            if fmean(shares) > DISTURBED:
                ends[name] = fmean(shares)
        return ends
